"""A member that attacks the memory, the processor and the patience of a real node, over real TLS.

`python -m p2pnode.bench.flooders HOME VICTIM FLOOD` does it in a process of its own, at the lowest priority: what it
takes of this machine another one would have. It floods while the last line on its standard input is `on`, over and over
where the flood has an end; at `off` it leaves, and says how many bytes it was rid of. When its input ends, it ends.
"""

import asyncio
import os
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from p2pnode.codec import encode
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity
from p2pnode.learning import catalogue
from p2pnode.net.tls import client_context
from p2pnode.settings import split_address
from protocols.effects import Certificate, Evidence, Hello, Proposal
from protocols.faults import Equivocation
from protocols.header import FLOAT32, Header, PeerId, SignedHeader, Slot

NICENESS = 19
ON, OFF = b"on\n", b"off\n"

_PAUSE_S = 0.01
"""Between two knocks at a door that stays shut, and between the bytes of who is slow."""

_STEPS = 10**6
"""The steps of the networks that are attacked, none of which gets there."""


class Intruder:
    """A member's key and certificate in the hands of whoever speaks by hand to another member's node."""

    def __init__(self, home: Home, genesis: Genesis, victim: int) -> None:
        self._address = split_address(genesis.members[victim].address)
        self._tls = client_context(home, genesis)
        self._pairs = 0
        self.said = 0
        """Bytes that it was rid of."""
        self.lanes: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
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
        """Send bytes, as fast as the victim reads them.

        Raises:
            ConnectionResetError: if the lane is closed. To go on would cost the victim nothing.
        """
        await _write(self.lanes[lane][1], data)
        self.said += len(data)

    async def closed(self, lane: str) -> None:
        """Wait for the end of a lane."""
        with suppress(OSError):
            while await self.lanes[lane][0].read(65536):
                pass

    def leave(self) -> None:
        """Close all lanes, whatever waits in them."""
        for _, writer in self.lanes.values():
            writer.transport.abort()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if writer.is_closing():
        raise ConnectionResetError
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(0)  # a drain that need not wait hears nothing, not even that the other side is gone


class Attacker(Intruder):
    """Node 0, which opens the links to all others."""

    def __init__(self, home: Home, genesis: Genesis, victim: int) -> None:
        super().__init__(home, genesis, victim)
        self.home, self.genesis, self.victim = home, genesis, victim
        self.length = catalogue.find(genesis.training.task).parameters or 1
        self._sign = Identity.load(home.key).sign

    def header(self, step: int, value: int = 0, origin: int = 0) -> SignedHeader:
        """A header signed by the attacker, in whose ever name."""
        digest = struct.pack(">Q24x", value)
        named = Header(self.genesis.network, PeerId(origin), Slot(step), FLOAT32, self.length, digest)
        return SignedHeader(named, self._sign(named.proposal().statement))

    async def again(self) -> None:
        """A new link, in the place of the one that was closed; for who is banned there is none for long."""
        self.leave()
        while not await self.open():
            await asyncio.sleep(_PAUSE_S)


def framed(*messages: bytes) -> bytes:
    """Messages as the control lane carries them."""
    return b"".join(struct.pack(">I", len(message)) + message for message in messages)


async def tiny_frames(attacker: Attacker) -> None:
    """A million messages of seven bytes."""
    await attacker.again()
    for _ in range(1000):
        await attacker.say("control", framed(encode(Hello(0))) * 1000)


async def words_about_later_slots(attacker: Attacker) -> None:
    """Each of them has to wait, if anything of it is kept at all."""
    await attacker.again()
    words = [framed(encode(Proposal(attacker.header(step)))) for step in range(1000, 3000)]
    while True:
        for begin in range(0, len(words), 100):
            await attacker.say("control", b"".join(words[begin : begin + 100]))


async def certificates_of_a_larger_network(attacker: Attacker) -> None:
    """A thousand echoes each, though five members are all there are."""
    await attacker.again()
    echoes = tuple((PeerId(member), bytes(64)) for member in range(1000))
    for step in range(_STEPS):
        await attacker.say("control", framed(encode(Certificate(attacker.header(2000 + step), echoes))))


async def proofs_that_prove_nothing(attacker: Attacker) -> None:
    """Each with two signatures of the wrong member."""
    await attacker.again()
    for number in range(_STEPS):
        forged = Equivocation(attacker.header(0, number, origin=1), attacker.header(0, number + 1, origin=1))
        await attacker.say("control", framed(encode(Evidence(forged))) * 50)


async def deep_nesting(attacker: Attacker) -> None:
    """Lists in lists, and what else may hold itself."""
    for opener in (b"\x91", b"\x81", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"):
        await attacker.again()
        await attacker.say("control", framed(opener * (100_000 // len(opener))))
        await attacker.closed("control")


async def declared_lengths(attacker: Attacker) -> None:
    """More than there is in the world, in a frame, in a message and of a vector."""
    for lane, data in (
        ("control", b"\xff\xff\xff\xff"),
        ("control", framed(b"\xdd\xff\xff\xff\xff")),
        ("control", framed(b"\xc6\xff\xff\xff\xff")),
        ("bulk", struct.pack(">QBHQQ32s", 0, 0, 0, 2**62, 0, bytes(32))),
    ):
        await attacker.again()
        await attacker.say(lane, data + bytes(100_000))
        await attacker.closed(lane)


async def half_open_links(attacker: Attacker) -> None:
    """One lane of a link and no other, requests without an end, and connections that say nothing."""
    halves = []
    try:
        for number in range(30):
            half = Intruder(attacker.home, attacker.genesis, attacker.victim)
            halves.append(half)
            await half.open("control" if number % 2 else "bulk")
            with suppress(OSError, KeyError):  # banned, it has no lane
                await half.say("control" if number % 2 else "bulk", bytes(50_000))
        for request in (b"GET /v1/link/control?pair=", b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"GET / HTTP/1.1\r\n\r\n"):
            with suppress(OSError):
                _, writer = await attacker.connect()
                for _ in range(2000):
                    await _write(writer, request * 100)
    finally:
        for half in halves:
            half.leave()
            attacker.said += half.said


async def slow_writers(attacker: Attacker) -> None:
    """The largest of messages, and the head of a vector, that never become whole."""
    await attacker.again()
    await attacker.say("control", struct.pack(">I", 128 * 1024))
    await attacker.say("bulk", struct.pack(">QBHQ", 0, 0, 0, 4 * attacker.length))
    for _ in range(_STEPS):
        await attacker.say("control", b"x")
        await asyncio.sleep(_PAUSE_S)


Flood: TypeAlias = Callable[[Attacker], Awaitable[None]]

FLOODS: dict[str, Flood] = {
    flood.__name__.replace("_", " "): flood
    for flood in (
        tiny_frames,
        words_about_later_slots,
        certificates_of_a_larger_network,
        proofs_that_prove_nothing,
        deep_nesting,
        declared_lengths,
        half_open_links,
        slow_writers,
    )
}
"""By what a person calls them."""


async def _flood(attacker: Attacker, flood: Flood) -> None:
    """Flood until cancelled, whatever the victim does about it."""
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            await flood(attacker)
        await asyncio.sleep(_PAUSE_S)


async def _serve(attacker: Attacker, flood: Flood) -> None:
    """Flood and leave as the standard input says."""
    loop, flooding = asyncio.get_running_loop(), None
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        if line == ON:
            flooding = asyncio.create_task(_flood(attacker, flood))
        elif flooding is not None:
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
            attacker.leave()
            sys.stdout.write(f"{attacker.said}\n")
            sys.stdout.flush()
            attacker.said, flooding = 0, None


def main() -> None:
    """Flood from a member's home."""
    os.nice(NICENESS)
    home, victim, name = Home(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
    attacker = Attacker(home, Genesis.load(home.genesis), victim)
    asyncio.run(_serve(attacker, FLOODS[name]))


if __name__ == "__main__":
    main()
