"""A simulated disk forgets what was not flushed and nothing else; a lone broadcast is all that its node does."""

import numpy as np
import pytest

from p2pnode.node import Adopt, Arrived, Finish, Received, Started, Train, Trained
from p2pnode.simulation.process import Disk, OneBroadcast
from p2pnode.simulation.scenario import one_broadcast
from protocols.effects import Accuse, Broadcast, Expect, Proposal, Report, Stream
from protocols.errors import UsageError
from protocols.faults import Fault
from protocols.header import PeerId, Slot
from tests.ideal import digest, header, party, sign, signed

ONE, OTHER = header(0, digest("one")).proposal(), header(0, digest("other")).proposal()
ZERO, FIRST = np.zeros(1, np.float32), np.ones(1, np.float32)


@pytest.fixture
def disk():
    return Disk(lambda statement: sign(0, statement))


# The disk.


def test_one_statement_is_signed_for_a_place(disk):
    assert disk.sign(ONE) == sign(0, ONE.statement)
    assert disk.sign(OTHER) is None
    assert disk.sign(ONE) == sign(0, ONE.statement)


def test_what_was_flushed_binds_after_a_crash(disk):
    disk.sign(ONE)
    disk.flush()
    disk.tear()
    assert disk.promised(ONE.place) == ONE.statement
    assert disk.sign(OTHER) is None


def test_what_was_not_flushed_is_gone_after_a_crash(disk):
    disk.sign(ONE)
    disk.tear()
    disk.flush()
    assert disk.promised(ONE.place) is None
    assert disk.sign(OTHER) is not None


def test_a_promise_binds_as_a_signature_does(disk):
    assert disk.promise(ONE)
    assert disk.promised(ONE.place) == ONE.statement
    assert not disk.promise(OTHER)
    assert disk.sign(OTHER) is None
    disk.flush()
    assert disk.promise(ONE)
    assert not disk.promise(OTHER)


def test_places_do_not_bind_each_other(disk):
    later = header(0, digest("other"), Slot(1)).proposal()
    assert disk.promise(ONE)
    assert disk.promise(later)
    assert disk.promised(header(0, digest("one"), Slot(2)).proposal().place) is None


def test_the_first_vector_of_a_slot_is_what_is_proposed_ever_after(disk):
    assert disk.propose(Slot(0), b"first", FIRST) == (b"first", FIRST)
    disk.tear()
    assert disk.propose(Slot(0), b"other", ZERO) == (b"first", FIRST)


def test_vectors_of_two_steps_are_kept(disk):
    for slot in (Slot(0), Slot(0, 1), Slot(1), Slot(1, 0, 1), Slot(2)):
        disk.propose(slot, b"d", ZERO)
    assert list(disk.outbox) == [Slot(1), Slot(1, 0, 1), Slot(2)]


def test_a_new_disk_begins_at_the_beginning(disk):
    assert disk.first_step == 0


def test_after_a_crash_it_goes_on_in_the_last_step_that_it_spoke_in_or_that_it_saved(disk):
    disk.checkpoint = (2, None)
    assert disk.first_step == 2
    disk.propose(Slot(1), b"d", ZERO)
    assert disk.first_step == 2
    disk.propose(Slot(3), b"d", ZERO)
    assert disk.first_step == 3
    disk.propose(Slot(4, 1), b"d", ZERO)  # it begins a step with the first exchange
    assert disk.first_step == 3


# A lone broadcast.


def lone(me, kind="plain"):
    node = OneBroadcast(party(me), one_broadcast(kind), PeerId(0), steps=1)
    assert node.handle(Started()) == [Train(0)]
    return node


def test_the_origin_proposes_its_vector_and_is_done_by_its_own_broadcast():
    origin, proposed = lone(0), signed(0, digest("v"))
    effects = origin.handle(Trained(0, digest("v")))
    assert effects[:2] == [Stream(proposed.header), Broadcast(Proposal(proposed))]
    assert [effect for effect in effects if isinstance(effect, Adopt | Finish)] == [Adopt(0, digest("v")), Finish()]


def test_the_others_propose_nothing_and_are_done_when_they_deliver():
    member, proposed = lone(1), signed(0, digest("v"))
    assert member.handle(Trained(0, digest("own"))) == []
    assert member.waits_for == (0,)
    assert member.handle(Received(PeerId(0), Proposal(proposed))) == [Expect(proposed.header)]
    effects = member.handle(Arrived(digest("v")))
    assert [effect for effect in effects if isinstance(effect, Adopt | Finish)] == [Adopt(0, digest("v")), Finish()]


@pytest.mark.parametrize("word", [Proposal(signed(2, digest("v"))), Report(Slot(0), (PeerId(0), PeerId(1), PeerId(2)))])
def test_words_about_anything_else_are_out_of_turn(word):
    assert lone(1).handle(Received(PeerId(2), word)) == [Accuse(PeerId(2), Fault.OUT_OF_TURN)]


def test_it_has_no_step_before_to_say_again():
    node = lone(0)
    with pytest.raises(UsageError, match="no step before"):
        node._agreement(Slot(0)).restate((digest("v"),))
