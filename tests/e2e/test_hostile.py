"""A member that attacks the memory and the patience of a real node, over real TLS, while honest ones go on learning.

Memory is what the system says that this process holds, four honest nodes that train and the attacker in it. Patience is
counted in steps that the honest take meanwhile.
"""

import asyncio
import struct
from contextlib import suppress

import pytest

from p2pnode.bench.memory import forget_peak, peak
from p2pnode.codec import encode
from p2pnode.driver import Driver
from p2pnode.identity import Identity
from protocols.effects import Certificate, Evidence, Hello, Proposal
from protocols.faults import Equivocation
from protocols.header import FLOAT32, Header, SignedHeader, Slot
from tests.loopback import Intruder, LogBook, found_network, until

MIB = 2**20
CAP = 48 * MIB
"""More than twice what was seen, 19 MiB, some of which the nodes take when they are left alone."""
STEPS = 10**6
MEANWHILE = 2
RUN_S = 120.0


def framed(*messages):
    return b"".join(struct.pack(">I", len(message)) + message for message in messages)


class Attacker(Intruder):
    """Node 0, which opens the links to all others."""

    def __init__(self, home, genesis, victim):
        super().__init__(home, genesis, victim)
        self.home, self.genesis, self.victim = home, genesis, victim
        self.network = genesis.network
        self._sign = Identity.load(home.key).sign

    def header(self, step, value=0, origin=0):
        named = Header(self.network, origin, Slot(step), FLOAT32, 4810, struct.pack(">Q24x", value))
        return SignedHeader(named, self._sign(named.proposal().statement))

    async def again(self):
        """A new link, in the place of the one that was closed."""
        self.leave()
        while not await self.open():
            await asyncio.sleep(0.01)


async def tiny_frames(attacker):
    """A million messages of seven bytes."""
    await attacker.again()
    for _ in range(1000):
        await attacker.say("control", framed(encode(Hello(0))) * 1000)


async def words_about_later_slots(attacker):
    """Each of them has to wait, if anything of it is kept at all."""
    await attacker.again()
    words = [framed(encode(Proposal(attacker.header(step)))) for step in range(1000, 3000)]
    while True:
        for begin in range(0, len(words), 100):
            await attacker.say("control", b"".join(words[begin : begin + 100]))


async def certificates_of_a_larger_network(attacker):
    """A thousand echoes each, though five members are all there are."""
    await attacker.again()
    echoes = tuple((member, bytes(64)) for member in range(1000))
    for step in range(STEPS):
        await attacker.say("control", framed(encode(Certificate(attacker.header(2000 + step), echoes))))


async def proofs_that_prove_nothing(attacker):
    await attacker.again()
    for number in range(STEPS):
        forged = Equivocation(attacker.header(0, number, origin=1), attacker.header(0, number + 1, origin=1))
        await attacker.say("control", framed(encode(Evidence(forged))) * 50)


async def deep_nesting(attacker):
    for opener in (b"\x91", b"\x81", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"):
        await attacker.again()
        await attacker.say("control", framed(opener * (100_000 // len(opener))))
        await attacker.closed("control")


async def declared_lengths(attacker):
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


async def half_open_links(attacker):
    """One lane of a link and no other, requests without an end, and connections that say nothing."""
    halves = []
    for number in range(30):
        half = Intruder(attacker.home, attacker.genesis, attacker.victim)
        halves.append(half)
        await half.open("control" if number % 2 else "bulk")
        with suppress(OSError):
            await half.say("control" if number % 2 else "bulk", bytes(50_000))
    for request in (b"GET /v1/link/control?pair=", b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"GET / HTTP/1.1\r\n\r\n"):
        with suppress(OSError):
            _, writer = await attacker.connect()
            for _ in range(2000):
                writer.write(request * 100)
                await writer.drain()
    for half in halves:
        half.leave()


async def slow_writers(attacker):
    """The largest of messages, and the head of a vector, that never become whole."""
    await attacker.again()
    await attacker.say("control", struct.pack(">I", 128 * 1024))
    await attacker.say("bulk", struct.pack(">QBHQ", 0, 0, 0, 4 * 4810))
    for _ in range(STEPS):
        await attacker.say("control", b"x")
        await asyncio.sleep(0.01)


ATTACKS = [
    tiny_frames,
    words_about_later_slots,
    certificates_of_a_larger_network,
    proofs_that_prove_nothing,
    deep_nesting,
    declared_lengths,
    half_open_links,
    slow_writers,
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_member_is_bounded_and_the_others_are_served_meanwhile(tmp_path, attack):
    genesis, homes = found_network(tmp_path, 5, 1, steps=STEPS, evaluate_every=0, checkpoint_every=0, ban_s=0.0)

    async def work():
        honest = [Driver(home, LogBook()) for home in homes[1:]]
        runs = [asyncio.create_task(driver.run()) for driver in honest]

        def steps():
            return [driver.node.position.step for driver in honest]

        await until(lambda: min(steps()) >= 2, "a running network")
        attacker = Attacker(homes[0], genesis, victim=1)
        before, begun = forget_peak(), max(steps())
        attacking = asyncio.create_task(attack(attacker))
        await until(lambda: min(steps()) >= begun + MEANWHILE, "steps of the honest", RUN_S)
        with suppress(asyncio.TimeoutError, OSError):
            await asyncio.wait_for(attacking, 1.0)
        after = max(steps())
        await until(lambda: min(steps()) >= after + MEANWHILE, "more steps", RUN_S)
        attacker.leave()
        if before is not None:
            assert peak() - before < CAP, f"{(peak() - before) / MIB:.1f} MiB"
        assert all({peer for peer, _ in driver._accusations.faults} <= {0} for driver in honest)
        for driver in honest:
            driver.stop()
        await asyncio.gather(*runs)

    asyncio.run(work())
