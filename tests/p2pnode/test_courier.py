"""What goes to a peer over a link that just came up, and in which order."""

import numpy as np
import pytest

from p2pnode.codec import HELD_MAX, Holding, Want
from p2pnode.courier import SKIPPED_MAX, Courier, Parcel
from p2pnode.storage.unfinished import Unfinished
from p2pnode.storage.vectors import Vectors, digest_of
from protocols.header import FLOAT32, Header, Slot
from tests.p2pnode.storage.test_unfinished import Beginning

ME, ONE, OTHER = 0, 1, 2
LENGTH = 4
NBYTES = 4 * LENGTH


def numbers(value):
    return np.full(LENGTH, value, np.float32)


def digest(value):
    return digest_of(numbers(value))


def header(step, value, origin=ME):
    return Header(b"n" * 32, origin, Slot(step), FLOAT32, LENGTH, digest(value))


def shown(parcels):
    """(to, step, value, offset) of each."""
    return [(parcel.to, parcel.slot.step, int(parcel.vector[0]), parcel.offset) for parcel in parcels]


class Stage:
    """A courier of a node whose own vectors of steps 1 to 3 are 1 to 3."""

    def __init__(self):
        self.vectors, self.unfinished = Vectors(LENGTH), Unfinished()
        self.vectors.window(Slot(0), Slot(0), Slot(5))
        for step in (1, 2, 3):
            self.vectors.put(Slot(step), digest(step), numbers(step))
        self.courier = Courier(self.vectors, self.unfinished)

    def link_up(self, *peers, holding=None):
        for peer in peers:
            self.courier.connected(peer)
            self.courier.greeted(peer)
            self.courier.heard(peer, holding or Holding())

    def told(self, step, to=ONE):
        return shown(self.courier.stream(header(step, step), to))


@pytest.fixture
def stage():
    return Stage()


def test_over_links_that_are_up_a_vector_is_pushed_at_once_whole_and_to_all(stage):
    stage.link_up(ONE, OTHER)
    assert stage.courier.stream(header(3, 3), None) == [
        Parcel(peer, Slot(3), digest(3), stage.vectors.get(digest(3)), 0) for peer in (ONE, OTHER)
    ]
    assert stage.told(2) == [(ONE, 2, 2, 0)]
    assert stage.courier.stream(header(4, 4), None) == [], "what is not here any more"


def test_before_hello_nothing_goes_and_what_is_retained_follows_it(stage):
    """A vector of today, before those of yesterday that the peer needs to get there, would wait in front of them."""
    stage.link_up(OTHER)
    stage.courier.connected(ONE)
    stage.courier.heard(ONE, Holding())
    assert shown(stage.courier.stream(header(3, 3), None)) == [(OTHER, 3, 3, 0)]
    stage.courier.greeted(ONE)
    assert [*stage.told(1), *stage.told(2), *stage.told(3)] == [(ONE, step, step, 0) for step in (1, 2, 3)]


def test_before_the_peer_said_what_it_holds_all_waits_in_order(stage):
    stage.courier.connected(ONE)
    stage.courier.greeted(ONE)
    assert [stage.told(1), stage.told(2), shown(stage.courier.stream(header(3, 3), None))] == [[], [], []]
    assert shown(stage.courier.heard(ONE, Holding())) == [(ONE, step, step, 0) for step in (1, 2, 3)]
    assert stage.courier.heard(ONE, Holding()) == [], "said twice, it brings nothing twice"
    assert stage.told(1) == [(ONE, 1, 1, 0)]


def test_what_is_there_is_not_sent_and_of_what_is_there_in_part_the_rest(stage):
    for early in (True, False):
        stage.courier.connected(ONE)
        stage.courier.greeted(ONE)
        holding = Holding(((Slot(1), digest(1)),), ((digest(2), 5), (digest(3), 10**9)))
        sent = stage.courier.heard(ONE, holding) if early else []
        sent += [parcel for step in (1, 2, 3) for parcel in stage.courier.stream(header(step, step), ONE)]
        sent += [] if early else stage.courier.heard(ONE, holding)
        assert shown(sent) == [(ONE, 2, 2, 5), (ONE, 3, 3, NBYTES)], "who has more than all gets no more than the end"
        assert stage.told(2) == [(ONE, 2, 2, 0)], "the beginning is there once"


def test_the_same_bytes_for_a_later_slot_are_sent_again(stage):
    stage.link_up(ONE, holding=Holding(((Slot(2), digest(1)),)))
    assert shown(stage.courier.stream(header(2, 1), ONE)) == []
    assert shown(stage.courier.stream(header(3, 1), ONE)) == [(ONE, 3, 1, 0)]


def test_a_new_link_knows_nothing_of_the_old_one(stage):
    stage.link_up(ONE, holding=Holding(((Slot(1), digest(1)),), ((digest(2), 5),)))
    stage.courier.asked(ONE, Want(Slot(3), digest(3)))
    stage.courier.connected(ONE)
    assert stage.told(1) == []
    assert shown(stage.courier.asked(ONE, Want(Slot(3), digest(3)))) == [(ONE, 3, 3, 0)]
    stage.courier.greeted(ONE)
    assert stage.told(1) == stage.told(2) == []
    assert shown(stage.courier.heard(ONE, Holding())) == [(ONE, 1, 1, 0), (ONE, 2, 2, 0)]


def test_what_is_retained_is_told_once_where_a_link_is_lost_before_it_was_greeted(stage):
    """The first link's Hello comes over the second one, and so would all that follows it, before the second Hello."""
    stage.courier.connected(ONE)
    stage.courier.connected(ONE)
    stage.courier.heard(ONE, Holding())
    stage.courier.greeted(ONE)
    assert stage.told(1) == []
    stage.courier.greeted(ONE)
    assert stage.told(1) == [(ONE, 1, 1, 0)]


def test_who_asks_gets_the_bytes_once_from_the_start_and_once_from_within_until_the_window_moves(stage):
    stage.courier.connected(OTHER)
    for _ in range(2):
        for _ in range(3):
            assert stage.courier.asked(OTHER, Want(Slot(9), digest(7))) == []
        assert shown(stage.courier.asked(OTHER, Want(Slot(9), digest(1), 5))) == [(OTHER, 9, 1, 5)]
        assert stage.courier.asked(OTHER, Want(Slot(9), digest(1), 6)) == []
        assert shown(stage.courier.asked(OTHER, Want(Slot(9), digest(1)))) == [(OTHER, 9, 1, 0)]
        assert stage.courier.asked(OTHER, Want(Slot(9), digest(1))) == []
        assert shown(stage.courier.asked(OTHER, Want(Slot(9), digest(2), 10**9))) == [(OTHER, 9, 2, NBYTES)]
        stage.courier.moved()


def test_a_peer_that_never_says_what_it_holds_takes_no_memory(stage):
    stage.courier.connected(ONE)
    stage.courier.greeted(ONE)
    for step in range(4, 200):
        stage.vectors.put(Slot(step), digest(step), numbers(step))
        assert stage.told(step) == []
        stage.vectors.window(Slot(step), Slot(step - 3), Slot(step + 1))
        stage.courier.moved()
    assert len(stage.courier._links[ONE].queue) <= 4


def test_a_peer_is_told_what_came_of_its_own_vectors_and_what_it_may_send_the_rest_of(stage):
    for step, value, origin in ((1, 11, ONE), (2, 12, ONE), (2, 22, OTHER), (2, 23, OTHER)):
        stage.vectors.expect(header(step, value, origin))
    stage.vectors.take(digest(11), numbers(11))
    stage.vectors.take(digest(22), numbers(22))
    for peer, value in ((ONE, 12), (OTHER, 23)):
        stage.unfinished.keep(peer, digest(value), Beginning(10 + value))
    assert stage.courier.connected(ONE) == Holding(((Slot(1), digest(11)),), ((digest(12), 22),))
    assert stage.courier.connected(OTHER) == Holding(((Slot(2), digest(22)),), ((digest(23), 33),))
    assert stage.courier.ask(digest(23), ONE) == Want(Slot(2), digest(23), 33), "any holder goes on"
    assert stage.courier.ask(digest(23), ONE, offset=0) == Want(Slot(2), digest(23))
    assert stage.courier.ask(digest(22), ONE) is None
    stage.vectors.window(Slot(4), Slot(4), Slot(5))
    stage.courier.moved()
    assert stage.courier.connected(ONE) == Holding()
    assert len(stage.unfinished) == 0


def test_of_more_than_can_be_said_the_latest_is(stage):
    stage.vectors.window(Slot(0), Slot(0), Slot(10_000))
    for step in range(HELD_MAX + 3):
        stage.vectors.expect(header(step, 1000 + step, ONE))
        stage.vectors.take(digest(1000 + step), numbers(1000 + step))
    said = stage.courier.connected(ONE)
    assert [slot.step for slot, _ in said.whole] == list(range(3, HELD_MAX + 3))


def test_while_nothing_was_asked_for_nothing_is_skipped(stage):
    stage.link_up(ONE)
    assert not stage.courier.skips(ONE, digest(9))
    assert stage.courier.due() == []


def test_what_waits_before_bytes_that_were_asked_for_is_skipped_and_asked_for_when_it_is_welcome(stage):
    """Of the peer that was asked, of no other; until the bytes are here."""
    stage.link_up(ONE, OTHER)
    stage.vectors.expect(header(1, 11, origin=OTHER))
    assert stage.courier.ask(digest(11), ONE) == Want(Slot(1), digest(11), 0)
    assert stage.courier.skips(ONE, digest(19))
    assert not stage.courier.skips(OTHER, digest(19))
    assert stage.courier.due() == []
    stage.vectors.take(digest(11), numbers(11))
    assert not stage.courier.skips(ONE, digest(20))
    stage.vectors.expect(header(4, 19, origin=ONE))
    assert stage.courier.due() == [(ONE, Want(Slot(4), digest(19), 0))]
    assert stage.courier.due() == []


def test_a_new_link_owes_no_answer_to_what_was_asked_on_the_old_one(stage):
    stage.link_up(ONE)
    stage.vectors.expect(header(1, 11, origin=OTHER))
    stage.courier.ask(digest(11), ONE)
    stage.link_up(ONE)
    assert not stage.courier.skips(ONE, digest(19))


def test_what_is_skipped_takes_little_memory_however_much_a_peer_sends_too_early(stage):
    stage.link_up(ONE)
    stage.vectors.expect(header(1, 11, origin=OTHER))
    stage.courier.ask(digest(11), ONE)
    for value in range(3 * SKIPPED_MAX):
        stage.courier.skips(ONE, b"%32d" % value)
    assert len(stage.courier._skipped[ONE]) == SKIPPED_MAX
