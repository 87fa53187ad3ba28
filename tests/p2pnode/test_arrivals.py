"""Vectors are told to the node together, each once, and none is held back for ever."""

from dataclasses import replace

import pytest

from p2pnode.arrivals import Arrivals
from p2pnode.recipe import choose
from protocols.committee import Committee
from protocols.header import FLOAT32, Header, Slot

FIRST = Slot(0)
COMMITTEE = Committee(7, 1)
"""Six vectors are enough, five of them others'."""


def arrivals(recipe="trimmed", committee=COMMITTEE, **changes):
    plan = choose(recipe, committee)
    exchanges = tuple(replace(exchange, **changes) for exchange in plan.exchanges)
    return Arrivals(replace(plan, exchanges=exchanges), committee)


def header(origin, slot=FIRST, digest=None):
    return Header(b"n" * 32, origin, slot, FLOAT32, 10, digest or bytes([origin, slot.step, slot.sub_round]) * 8)


def expecting(origins, slot=FIRST, **options):
    them, headers = arrivals(**options), [header(origin, slot) for origin in origins]
    for one in headers:
        them.expect(one)
    return them, [one.digest for one in headers]


def test_they_are_told_together_once_there_are_enough_and_later_ones_at_once():
    them, digests = expecting(range(1, 7))
    assert them.came(digests[0]) == ([], [Slot(0)])
    for digest in digests[1:4]:
        assert them.came(digest) == ([], [])
    assert them.came(digests[4]) == (digests[:5], [])
    assert them.came(digests[5]) == (digests[5:], [])


def test_what_is_certified_before_it_comes_is_told_at_once_and_counts():
    them, digests = expecting(range(1, 7))
    them.came(digests[0])
    them.hurry(digests[1])
    assert them.came(digests[1]) == (digests[1:2], [])
    assert [them.came(digest)[0] for digest in digests[2:5]] == [[], [], [digests[0], *digests[2:5]]]
    them.hurry(digests[1])
    them.forget(Slot(1))
    them.expect(header(1, digest=digests[1]))
    assert them.came(digests[1])[0] == []


def test_what_is_let_go_is_told_and_what_comes_then_is_held_anew():
    them, digests = expecting(range(1, 7))
    them.came(digests[0])
    assert them.release(Slot(0)) == digests[:1]
    assert them.release(Slot(0)) == []
    assert them.came(digests[1]) == ([], [Slot(0)])
    assert [them.came(digest)[0] for digest in digests[2:5]] == [[], [], digests[1:5]]


def test_slots_are_held_apart():
    them, first = expecting(range(1, 7))
    second = [header(origin, Slot(1)) for origin in range(1, 7)]
    for one in second:
        them.expect(one)
    assert them.came(first[0])[1] == [Slot(0)]
    assert them.came(second[0].digest)[1] == [Slot(1)]
    assert them.release(Slot(1)) == [second[0].digest]
    assert them.release(Slot(0)) == first[:1]


def test_members_who_send_the_same_vector_count_each():
    """After a few sub-rounds all honest members may."""
    them, same = arrivals(), b"s" * 32
    for origin in range(1, 6):
        them.expect(header(origin, digest=same))
    assert them.came(same) == ([same], [])
    them.expect(header(6, digest=same))  # the bytes are here
    assert them.came(same) == ([same], [])


def test_one_vector_in_two_slots_counts_in_both():
    them, same = arrivals(committee=Committee(3, 0)), b"s" * 32
    them.expect(header(1, Slot(0), same))
    them.expect(header(1, Slot(1), same))
    assert them.came(same) == ([], [Slot(0), Slot(1)])
    assert them.release(Slot(0)) == them.release(Slot(1)) == [same]


def test_what_nobody_expects_is_told_at_once():
    assert arrivals().came(b"d" * 32) == ([b"d" * 32], [])


@pytest.mark.parametrize("broadcast", ["plain", "reliable"])
def test_nothing_is_held_of_broadcasts_without_signed_echoes(broadcast):
    them, digests = expecting(range(1, 7), broadcast=broadcast)
    assert [them.came(digest) for digest in digests] == [([digest], []) for digest in digests]


@pytest.mark.parametrize(("members", "held"), [(256, True), (257, False)])
def test_nothing_is_held_where_nothing_is_signed_together(members, held):
    them, digests = expecting(range(1, 3), committee=Committee(members, 1))
    assert [them.came(digest)[0] for digest in digests] == ([[], []] if held else [[one] for one in digests])


def test_nobody_waits_for_stragglers_that_the_recipe_does_not_wait_for():
    them, digests = expecting(range(1, 7), absent=3)
    assert [them.came(digest)[0] for digest in digests[:3]] == [[], [], digests[:3]]


def test_of_slots_that_are_over_nothing_is_remembered():
    them, digests = expecting(range(1, 7), Slot(3))
    for digest in digests[:2]:
        them.came(digest)
    them.forget(Slot(3))
    assert set(them.known) == {Slot(3)}
    them.forget(Slot(3, 0, 1))
    assert set(them.known) == set()
    assert them.came(digests[2]) == (digests[2:3], [])
