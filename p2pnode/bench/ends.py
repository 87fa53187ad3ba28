"""The two ends of a measured link: the lanes of a real one, and a bare connection that carries the same bytes.

`python -m p2pnode.bench.ends` is the far end, in a process of its own: it sends what the near end asks for, over the
near end's control lane, until that lane is closed.
"""

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import cast

import numpy as np
import uvloop

from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.net.budget import Allowance, Budget
from p2pnode.net.lane import BulkLane, ControlLane
from p2pnode.net.tls import client_context
from p2pnode.storage.vectors import Announced, Vector, Verdict, digest_of
from protocols.header import Digest, Slot

HOST = "127.0.0.1"
HERE, READY, PREPARE, LINK, BARE, PING = b"here", b"ready", b"prepare", b"link", b"bare", b"ping"
"""What the ends say: the far end that it is here, or has a vector of the size asked for; the near end, what to send."""

BACKLOG_BYTES_MAX = 2**30
PLENTY = Allowance(1e9, 1e12, 1e9)
"""The other end is honest, and faster than any network."""

_PIECE_BYTES = 256 * 1024
_WRITE_BUFFER_BYTES_MAX = 1024 * 1024
"""As large as made the bare connection fastest, under TLS and without."""


class BareSender(asyncio.Protocol):
    """Writes bytes as fast as the transport takes them."""

    def __init__(self) -> None:
        self._unsent = memoryview(b"")
        self._writable = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES_MAX)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pump()

    def send(self, data: memoryview) -> None:
        self._unsent = data
        self._pump()

    def _pump(self) -> None:
        assert self._transport is not None
        while self._writable and self._unsent:
            self._transport.write(self._unsent[:_PIECE_BYTES])
            self._unsent = self._unsent[_PIECE_BYTES:]


class BareReceiver(asyncio.BufferedProtocol):
    """Reads bytes into one buffer, made before; says when it is full, and begins again."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(1))
        self._filled = 0
        self.full: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def prepare(self, buffer: bytearray) -> None:
        self._buffer = memoryview(buffer)

    def await_full(self) -> "asyncio.Future[None]":
        self.full = asyncio.get_running_loop().create_future()
        return self.full

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled == len(self._buffer):
            self._filled = 0
            self.full.set_result(None)


class FarEnd:
    """Sends what the near end asks for."""

    def __init__(self) -> None:
        self.bare = BareSender()
        self.bulk = BulkLane(self, Budget(PLENTY), BACKLOG_BYTES_MAX)
        self.control = ControlLane(self, Budget(PLENTY), BACKLOG_BYTES_MAX)
        self._vector: Vector = np.empty(0, np.float32)
        self._digest = digest_of(self._vector)

    def message(self, data: bytes) -> None:
        what, _, size = data.partition(b" ")
        if what == PREPARE:
            self._vector = np.random.default_rng(0).standard_normal(int(size) // 4, np.float32)
            self._digest = digest_of(self._vector)
            self.control.send(READY)
        elif what == LINK:
            self.bulk.send(Slot(0), self._digest, self._vector)
        elif what == BARE:
            self.bare.send(self._vector.view(np.uint8).data)
        else:
            self.control.send(data)

    def judge(self, slot: Slot, digest: Digest, nbytes: int) -> Verdict:
        return Verdict.REFUSE

    def vector(self, digest: Digest, vector: Announced) -> None:
        raise AssertionError("judged otherwise")

    def again(self, digest: Digest) -> None:
        raise AssertionError("nothing was taken")

    def lost(self, reason: BaseException | None) -> None:
        """The near end is done, as `run` notices."""

    async def run(self, ports: dict[str, int], context: ssl.SSLContext | None) -> None:
        """Connect, and serve until the near end closes."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self.bare, HOST, ports["bare"], ssl=context)
        await loop.create_connection(lambda: self.bulk, HOST, ports["bulk"], ssl=context)
        await loop.create_connection(lambda: self.control, HOST, ports["control"], ssl=context)
        self.control.send(HERE)
        await self.control.closed.wait()


def main() -> None:
    """Run the far end: its arguments are the ports, as JSON, and the home whose key it shows under TLS, if any."""
    ports, *home_path = sys.argv[1:]
    context = None
    if home_path:
        home = Home(Path(home_path[0]))
        context = client_context(home, Genesis.load(home.genesis))

    async def run() -> None:
        await FarEnd().run(json.loads(ports), context)

    uvloop.run(run())


if __name__ == "__main__":
    main()
