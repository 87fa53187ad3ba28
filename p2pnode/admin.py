"""The endpoint for the node's owner, on localhost unless told otherwise.

`/status` tells what the node does, and `/metrics` the same to Prometheus; `/history` what it saw, and `/` is a page for
people that shows both. `/healthz` answers as long as it lives, `/readyz` with 503 and a reason while it is not in step
with enough of its peers: who restarts nodes looks at the first, who counts on them at the second. Whatever is asked
for, it is asked of this node by name (`p2pnode.observe.named`).
"""

import asyncio
import json
from collections.abc import Callable, Collection
from typing import Any

from aiohttp import web

from p2pnode.errors import LinkError
from p2pnode.observe.metrics import exposition
from p2pnode.observe.named import only_by_name
from p2pnode.observe.page import add_page, since_of
from p2pnode.settings import split_address

_SHUTDOWN_S = 0.5
"""For so long a server that stops waits for an answer under way, and for the client that it has to; twice at most."""


class AdminServer:
    """Serves what the node says of itself.

    Args:
        address: where to listen, host:port; port 0 lets the system choose.
        status: gives the status as JSON values.
        unready: why the node is not ready; None where it is.
        history: gives what the node saw from a step on, as JSON values; called in a thread of its own.
        names: by which the node may be asked, beside the host that it listens on, `localhost` and IP addresses.
    """

    def __init__(
        self,
        address: str,
        status: Callable[[], dict[str, Any]],
        unready: Callable[[], str | None] = lambda: None,
        history: Callable[[int], dict[str, Any]] = lambda since: {},
        names: Collection[str] = (),
    ) -> None:
        self.address = address
        self._history = history
        self._status = status
        self._unready = unready
        self._names = names
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; `address` is then the one that was chosen.

        Raises:
            LinkError: if the address cannot be listened on.
        """
        host, port = split_address(self.address)
        app = web.Application(middlewares=[only_by_name([host, *self._names])])
        add_page(app)
        app.router.add_get("/status", self._tell_status)
        app.router.add_get("/metrics", self._tell_metrics)
        app.router.add_get("/history", self._tell_history)
        app.router.add_get("/healthz", self._tell_health)
        app.router.add_get("/readyz", self._tell_readiness)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            raise LinkError(f"cannot listen on {self.address}: {error.strerror}; free it, or change `admin`") from error
        self.address = f"{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _tell_status(self, _: web.Request) -> web.Response:
        return web.json_response(self._status())

    async def _tell_metrics(self, request: web.Request) -> web.Response:
        told, accept = self._status(), request.headers.get("Accept", "")
        # Of hundreds of members it takes tens of milliseconds: the loop has its peers to hear meanwhile.
        body, media_type = await asyncio.to_thread(exposition, told, accept)
        return web.Response(body=body, headers={"Content-Type": media_type})

    async def _tell_history(self, request: web.Request) -> web.Response:
        # All that is kept of a hundred members takes some 90 ms: the loop has its peers to hear meanwhile.
        text = await asyncio.to_thread(lambda since: json.dumps(self._history(since)), since_of(request))
        return web.json_response(text=text)

    async def _tell_health(self, _: web.Request) -> web.Response:
        return web.json_response({"healthy": True})

    async def _tell_readiness(self, _: web.Request) -> web.Response:
        why = self._unready()
        return web.json_response({"ready": why is None, "reason": why}, status=200 if why is None else 503)
