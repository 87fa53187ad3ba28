"""Where members are said to be: lies cost dials, boundedly many, and never the genesis's address or a member's name."""

import asyncio

import pytest
import uvloop

from p2pnode.genesis import Genesis
from p2pnode.net.mesh import Mesh
from p2pnode.net.whereabouts import ADDRESSES_MAX, Whereabouts, fingerprint
from protocols.header import PeerId
from tests.loopback import LogBook, found_network, until
from tests.p2pnode.net.test_mesh import Member, linked, running

LIES = [f"127.0.0.1:{port}" for port in range(1, 200)]
"""Nobody listens there."""


def keys_of(genesis):
    return [fingerprint(member.public_key) for member in genesis.members]


def test_what_is_said_of_a_member_is_kept_newest_first_and_never_more_than_the_bound(tmp_path):
    genesis, _ = found_network(tmp_path, 2)
    whereabouts, key = Whereabouts(genesis), keys_of(genesis)[1]
    for lie in LIES:
        whereabouts.hear(key, lie)
    assert whereabouts.of(PeerId(1)) == tuple(reversed(LIES[-ADDRESSES_MAX:]))
    assert whereabouts.of(PeerId(0)) == ()
    whereabouts.hear(key, LIES[-ADDRESSES_MAX])
    assert whereabouts.of(PeerId(1))[0] == LIES[-ADDRESSES_MAX]
    assert len(whereabouts.of(PeerId(1))) == ADDRESSES_MAX


def test_what_is_said_of_strangers_or_is_known_already_is_no_address_to_try(tmp_path):
    genesis, _ = found_network(tmp_path, 2)
    whereabouts = Whereabouts(genesis)
    for key in ("", "ff" * 32, genesis.members[1].public_key):
        whereabouts.hear(key, LIES[0])
    whereabouts.hear(keys_of(genesis)[1], genesis.members[1].address)
    assert [whereabouts.of(PeerId(peer)) for peer in (0, 1)] == [(), ()]


def test_where_it_did_not_answer_it_is_sought_only_when_that_is_said_again(tmp_path):
    genesis, _ = found_network(tmp_path, 2)
    whereabouts, key = Whereabouts(genesis), keys_of(genesis)[1]
    whereabouts.hear(key, LIES[0])
    whereabouts.refute(PeerId(1), LIES[0])
    whereabouts.refute(PeerId(1), LIES[0])
    assert whereabouts.of(PeerId(1)) == ()
    whereabouts.hear(key, LIES[0])
    assert whereabouts.of(PeerId(1)) == (LIES[0],)


def moved(genesis, peer, address):
    """The genesis as one had it before this member moved."""
    values = genesis.model_dump(mode="json")
    values["members"][peer]["address"] = address
    return Genesis.checked(values, "test")


class Seeker(Member):
    """A member that hears where others are said to be, and counts its dials."""

    def __init__(self, genesis, home):
        super().__init__(genesis, home)
        self.whereabouts = Whereabouts(genesis)
        self.mesh = Mesh(self.me, home, genesis, self.config, self, LogBook(), whereabouts=self.whereabouts)
        self.dialled, dial = [], self.mesh._dial

        async def counted(peer, address):
            self.dialled.append(address)
            return await dial(peer, address)

        self.mesh._dial = counted


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_member_that_moved_is_found_among_lies(tmp_path, run):
    """One lie names a port where nobody is, one another member's: it is not taken for the one that is sought."""
    genesis, homes = found_network(tmp_path, 3)
    where, third, before = genesis.members[1].address, genesis.members[2].address, "127.0.0.1:1"

    async def work():
        seeker, sought, other = Seeker(moved(genesis, 1, before), homes[0]), *(Member(genesis, h) for h in homes[1:])
        for address in (where, third, LIES[5]):
            seeker.whereabouts.hear(keys_of(genesis)[1], address)
        async with running(other, sought, seeker):
            await linked(seeker, sought, other)
            assert seeker.dialled[:5].count(before) >= 1
            assert seeker.whereabouts.of(PeerId(1)) == (where,), "the lies are found out"

    run(work())


def test_a_flood_of_lies_costs_so_many_dials_for_each_of_the_true_address_and_never_its_turn(tmp_path):
    genesis, homes = found_network(tmp_path, 2)

    async def work():
        seeker = Seeker(genesis, homes[0])

        async def lie():
            while True:
                for address in LIES:
                    seeker.whereabouts.hear(keys_of(genesis)[1], address)
                await asyncio.sleep(0)

        lying = asyncio.create_task(lie())
        own = genesis.members[1].address
        async with running(seeker):
            await until(lambda: seeker.dialled.count(own) >= 4, "tries of the true address")
            tries = "".join("o" if address == own else "x" for address in seeker.dialled).split("o")
            assert max(map(len, tries)) == ADDRESSES_MAX
            sought = Member(genesis, homes[1])
            async with running(sought):
                await linked(seeker, sought)
                assert seeker.dialled[-1] == own
        lying.cancel()

    asyncio.run(work())
