from dataclasses import replace
from itertools import pairwise

import pytest

from protocols.header import Slot
from tests.ideal import digest, header

HEADER = header(2, digest("a"), Slot(3, 1, 4))
OTHERS = [
    replace(HEADER, network=b"m" * 32),
    replace(HEADER, origin=3),
    replace(HEADER, slot=Slot(4, 1, 4)),
    replace(HEADER, slot=Slot(3, 0, 4)),
    replace(HEADER, slot=Slot(3, 1, 3)),
    replace(HEADER, dtype=2),
    replace(HEADER, length=2),
    replace(HEADER, digest=digest("b")),
]


def test_slots_are_ordered_as_the_conversation_runs():
    ordered = [Slot(0), Slot(0, 0, 1), Slot(0, 1), Slot(1), Slot(1, 0, 1), Slot(10)]
    assert all(one < other for one, other in pairwise(ordered))


@pytest.mark.parametrize("other", OTHERS)
def test_every_field_is_signed(other):
    assert other.proposal().statement != HEADER.proposal().statement
    assert other.echo().statement != HEADER.echo().statement


def test_statements_have_one_length_so_that_none_is_the_beginning_of_another():
    assert len({len(other.proposal().statement) for other in OTHERS}) == 1


def test_a_proposal_is_never_an_echo():
    statements = [claim.statement for other in [HEADER, *OTHERS] for claim in (other.proposal(), other.echo())]
    assert len(set(statements)) == len(statements)


def test_one_proposal_may_be_signed_a_slot_and_one_echo_a_slot_and_origin():
    other_vector, other_origin = replace(HEADER, digest=digest("b")), replace(HEADER, origin=3)
    assert HEADER.proposal().place == other_vector.proposal().place
    assert HEADER.echo().place == other_vector.echo().place != other_origin.echo().place
    places = {claim.place for slot in (Slot(1, 2, 3), Slot(12, 3), Slot(1, 23)) for claim in _claims(slot)}
    assert len(places) == 6


def test_every_slot_has_a_place_of_its_own():
    slots = [Slot(1, 2, 3), Slot(12, 3), Slot(1, 23), Slot(1, 2), Slot(12, 0, 3)]
    assert len({slot.place for slot in slots}) == len(slots)
    assert Slot(7, 1, 2).place == "7 1 2"


def test_a_claim_names_its_step():
    assert [claim.step for claim in _claims(Slot(7, 1, 2))] == [7, 7]


def _claims(slot):
    other = replace(HEADER, slot=slot)
    return other.proposal(), other.echo()
