"""Small real networks on loopback: homes that run at once; waiting for something without guessing how long; and a
member that keeps no rule but those of the handshake."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.init import Place, found
from p2pnode.net.tls import client_context
from p2pnode.settings import split_address
from p2pnode.testnet import free_ports

PATIENCE_S = 30.0
"""For what takes milliseconds on an idle machine; only a failing test waits so long."""


def found_network(
    folder: Path,
    nodes: int,
    f: int = 0,
    *,
    steps: int = 6,
    recipe: dict | None = None,
    vectors: str = "tls",
    **settings,
) -> tuple[Genesis, list[Home]]:
    """The homes of a network of `nodes` on free ports, that learns digits and keeps its deadlines short."""
    settings = {"threads": 1, "reconnect_s": 0.2, "linger_s": 10.0, **settings}
    places = [Place(f"node{i}", f"127.0.0.1:{port}", settings) for i, port in enumerate(free_ports(nodes))]
    values = {
        "f": f,
        "recipe": recipe or {},
        "vectors": vectors,
        "training": {"task": "digits", "steps": steps, "local_batch": 16, "momentum": 0.9, "lr": 0.5},
    }
    genesis = found(folder, places, values)
    return genesis, [Home(folder / place.name) for place in places]


async def until(true, what: str = "", seconds: float = PATIENCE_S) -> None:
    """Wait until `true()`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.01)


class Intruder:
    """A member's key and certificate in the hands of whoever speaks by hand to another member's node."""

    def __init__(self, home: Home, genesis: Genesis, victim: int):
        self._address = split_address(genesis.members[victim].address)
        self._tls = client_context(home, genesis)
        self._pairs = 0
        self.lanes = {}

    async def connect(self):
        """A connection after its handshake."""
        return await asyncio.open_connection(*self._address, ssl=self._tls)

    async def open(self, *names: str) -> bool:
        """Open these lanes of a new link, both unless told otherwise; whether they were let in."""
        self._pairs += 1
        self.lanes = {}
        for name in names or ("control", "bulk"):
            try:
                reader, writer = await self.connect()
                writer.write(
                    f"GET /v1/link/{name}?pair={id(self):x}{self._pairs:x} HTTP/1.1\r\nHost: x\r\n"
                    "Connection: Upgrade\r\nUpgrade: p2pnode-link\r\n\r\n".encode()
                )
                self.lanes[name] = (reader, writer)
                if b" 101 " not in await reader.readuntil(b"\r\n\r\n"):
                    return False
            except (OSError, asyncio.IncompleteReadError):
                return False
        return True

    async def say(self, lane: str, data: bytes) -> None:
        """Send bytes, as fast as the victim reads them."""
        writer = self.lanes[lane][1]
        writer.write(data)
        await writer.drain()

    async def closed(self, lane: str) -> None:
        """Wait for the end of a lane."""
        with suppress(OSError):
            while await self.lanes[lane][0].read(65536):
                pass

    def leave(self) -> None:
        for _, writer in self.lanes.values():
            writer.transport.abort()


class LogBook:
    """A log that keeps (event, details) in order."""

    def __init__(self):
        self.said = []

    def _write(self, event, **details):
        self.said.append((event, details))

    debug = info = warning = error = exception = _write

    def of(self, event):
        return [details for said, details in self.said if said == event]
