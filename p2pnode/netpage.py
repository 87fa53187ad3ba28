"""The whole of a testnet on one page, on loopback: the page of a node, that asks all of them through this process."""

import json
import time
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

from p2pnode.observe.named import only_by_name
from p2pnode.observe.page import add_page, since_of
from p2pnode.testnet import NodeView

_PATIENCE_S = 2.0
"""For so long a node is waited for; the page asks again a second later."""

_SHUTDOWN_S = 0.5


class NetPage:
    """Serves the page while a testnet runs.

    `/status` tells of all nodes what the testnet heard of them last, and how long ago, `/history?node=NAME` what one of
    them saw: as it says itself, or, once it ended, as it left it in its home. Nobody else can be asked for through it.

    Args:
        nodes: as the testnet keeps them up to date.
    """

    def __init__(self, nodes: list[NodeView]) -> None:
        self.address = ""
        self._nodes = nodes
        self._began = time.monotonic()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[only_by_name(())])
        add_page(app)
        app.router.add_get("/status", self._tell_status)
        app.router.add_get("/history", self._tell_history)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PATIENCE_S))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        assert self._runner is not None
        await self._session.close()
        await self._runner.cleanup()

    async def _tell_status(self, _: web.Request) -> web.Response:
        now = time.monotonic()
        nodes = [
            {
                "name": node.name,
                "honest": node.honest,
                "exit": node.exit,
                "silent": round(now - node.heard_at, 3),
                "status": node.status,
            }
            for node in self._nodes
        ]
        return web.json_response({"nodes": nodes, "seconds": now - self._began})

    async def _tell_history(self, request: web.Request) -> web.Response:
        since = since_of(request)
        name = request.query.get("node", "")
        node = next((node for node in self._nodes if node.name == name), None)
        if node is None:
            raise web.HTTPNotFound(text="node: no such node here. Remedy: write ?node=NAME, as /status has them\n")
        told = await self._asked(node, since) or _left(node, since)
        if told is None:
            raise web.HTTPServiceUnavailable(text=f"{name} does not answer, and left no history\n")
        return web.json_response(told)

    async def _asked(self, node: NodeView, since: int) -> dict[str, Any] | None:
        assert self._session is not None
        try:
            address = node.home.admin.read_text().strip()
            async with self._session.get(f"http://{address}/history", params={"since": since}) as answer:
                told: dict[str, Any] = await answer.json()
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return told


def _left(node: NodeView, since: int) -> dict[str, Any] | None:
    """What a node that ended left in its home."""
    try:
        told: dict[str, Any] = json.loads(node.home.history.read_text())
        later = {what: [one for one in told[what] if one["step"] >= since] for what in ("steps", "measured")}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return {**told, **later}
