"""Delays, deadlines and who is late, at virtual time: nothing here waits, for the time is passed in."""

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.punctuality import ENTERED_MAX, FIRST_S, FLOOR_S, WINDOW, K, Late, Punctuality
from protocols.committee import Committee
from protocols.header import Slot

STEP_S = 100.0
"""From one slot to the next: longer than any delay here."""


def punctuality(n=5, f=1):
    return Punctuality(0, Committee(n, f))


def play(one, slot, at, delays):
    """Enter a slot; each member's value comes after its delay, in order, and None never."""
    one.enter(slot, at)
    for delay, peer in sorted((delay, peer) for peer, delay in delays.items() if delay is not None):
        one.here(slot, {peer}, at + delay)


def trained(delays, slots=WINDOW, n=5, f=1):
    """After so many slots with these delays, and when the next one begins."""
    one = punctuality(n, f)
    for step in range(slots):
        play(one, Slot(step), step * STEP_S, delays)
    return one, slots * STEP_S


def test_the_deadline_is_the_median_and_so_many_deviations():
    one, _ = trained({1: 1.0, 2: 2.0, 3: 3.0, 4: 7.0})
    assert one.deadline(Slot(99)) == 2.5 + K * 1.0


def test_nothing_known_nothing_learned_and_no_deadline_is_shorter_than_the_floor():
    one = punctuality()
    assert (one.knows(Slot(0)), one.deadline(Slot(0)), one.late(1e9)) == (False, FIRST_S, ())
    play(one, Slot(0), 0.0, {1: 0.0, 2: 0.0})
    assert (one.knows(Slot(0)), one.deadline(Slot(0))) == (False, FIRST_S), "one of these two may lie"
    one.here(Slot(0), {3}, 0.0)
    assert (one.knows(Slot(0)), one.deadline(Slot(0))) == (True, FLOOR_S)


def test_it_follows_a_network_that_gets_slower_within_a_window():
    one, at = trained(dict.fromkeys(range(1, 5), 0.5))
    assert one.deadline(Slot(0)) == 0.5
    for step in range(WINDOW):
        play(one, Slot(WINDOW + step), at + step * STEP_S, dict.fromkeys(range(1, 5), 20.0))
    assert one.deadline(Slot(0)) == 20.0


def test_a_mixture_is_waited_for_no_longer_because_training_takes_long():
    one = punctuality()
    for step in range(WINDOW):
        play(one, Slot(step), step * STEP_S, dict.fromkeys(range(1, 5), 30.0))
        play(one, Slot(step, 0, 1), step * STEP_S + 40, dict.fromkeys(range(1, 5), 2.0))
        play(one, Slot(step, 1), step * STEP_S + 50, dict.fromkeys(range(1, 5), 4.0))
    assert [one.deadline(slot) for slot in (Slot(9), Slot(9, 0, 1), Slot(9, 0, 2), Slot(9, 1))] == [30.0, 2.0, 2.0, 4.0]
    assert (one.knows(Slot(9, 1, 1)), one.deadline(Slot(9, 1, 1))) == (False, FIRST_S)


def test_who_is_late_is_named_from_the_deadline_on_until_its_value_is_here():
    one, at = trained(dict.fromkeys(range(1, 5), 2.0))
    slot = Slot(WINDOW)
    play(one, slot, at, {1: 0.1, 2: 0.2, 3: 0.3})
    assert one.deadline(slot) == 2.0
    assert one.late(at + 2.0) == ()
    assert one.late(at + 2.5) == (Late(4, slot, 2.5, 2.0),)
    one.here(slot, {4}, at + 3.0)
    assert one.late(at + 99.0) == ()


def test_who_falls_silent_is_late_since_the_first_value_that_it_owes():
    one, at = trained(dict.fromkeys(range(1, 5), 1.0))
    for step in range(3 * ENTERED_MAX):
        play(one, Slot(WINDOW + step), at + step * STEP_S, {1: 1.0, 2: 1.0, 3: 1.0})
    now = at + 3 * ENTERED_MAX * STEP_S
    assert one.late(now) == (Late(4, Slot(WINDOW), now - at, 1.0),)
    assert len(one.recent(10**6)) <= ENTERED_MAX


def test_who_lags_owes_the_next_value_and_who_skips_some_owes_none_of_them():
    one, at = trained(dict.fromkeys(range(1, 5), 1.0))
    slots = [Slot(WINDOW + step) for step in range(5)]
    for step, slot in enumerate(slots):
        play(one, slot, at + step, {1: 0.1, 2: 0.1, 3: 0.1})
    one.here(slots[0], {4}, at + 5)
    assert one.late(at + 6) == (Late(4, slots[1], 5.0, 1.0),)
    one.here(slots[3], {4}, at + 6)
    assert one.late(at + 6) == (Late(4, slots[4], 2.0, 1.0),)
    one.here(slots[1], {4}, at + 7)
    assert one.late(at + 7) == (Late(4, slots[4], 3.0, 1.0),), "nor is one owed again because an older one came"
    one.here(slots[4], {4}, at + 8)
    assert one.late(at + 99) == ()


def test_of_recent_slots_only_those_are_told_that_something_is_awaited_of():
    one = punctuality()
    play(one, Slot(0), 0.0, dict.fromkeys(range(1, 5), 0.0))
    play(one, Slot(1), 1.0, {1: 0.0})
    play(one, Slot(2), 2.0, {})
    assert one.recent(1) == [Slot(2)]
    assert one.recent(9) == [Slot(2), Slot(1)]


def test_entering_a_slot_again_changes_nothing():
    one = punctuality()
    one.enter(Slot(0), 0.0)
    one.enter(Slot(0), 50.0)
    assert one.late(FIRST_S + 1) == tuple(Late(peer, Slot(0), FIRST_S + 1, FIRST_S) for peer in range(1, 5))


def test_a_value_counts_once_however_often_it_is_said_to_be_here():
    one, at = trained({1: 0.0, 2: 2.0, 3: 2.0, 4: 2.0})
    for _ in range(4 * WINDOW):
        one.here(Slot(0), {2, 3, 4}, at)
    assert one.deadline(Slot(0)) == 2.0


def test_who_is_alone_awaits_nobody():
    one = punctuality(1, 0)
    one.enter(Slot(0), 0.0)
    assert (one.late(1e9), one.recent(9), one.knows(Slot(0))) == ((), [], False)


@st.composite
def _games(draw):
    """(f, liars, slots): of each slot every honest delay, and what each liar does: any delay, or never."""
    f = draw(st.integers(1, 3))
    n = draw(st.integers(3 * f + 2, 3 * f + 5))
    liars = set(range(n - f, n))
    honest = st.floats(0.0, 5.0)
    lie = st.none() | st.sampled_from([0.0, STEP_S - 1]) | st.floats(0.0, STEP_S - 1)
    slot = st.fixed_dictionaries({peer: lie if peer in liars else honest for peer in range(1, n)})
    return n, f, liars, draw(st.lists(slot, min_size=1, max_size=2 * WINDOW))


@given(_games())
def test_whatever_f_liars_do_the_deadline_stays_by_the_honest_delays(game):
    n, f, liars, slots = game
    one, told = punctuality(n, f), []
    for step, delays in enumerate(slots):
        play(one, Slot(step), step * STEP_S, delays)
        told += [delay for peer, delay in delays.items() if peer not in liars]
        least, most = min(told), max(told)
        assert max(FLOOR_S, least) <= one.deadline(Slot(step)) <= max(FLOOR_S, most + K * (most - least)) + 1e-9
