from itertools import product

import pytest

from protocols.agreement import Agreement
from protocols.effects import Accuse, Broadcast, Deliver, Gathered, Mix, Proposal, Send, Sighting, Stream
from protocols.errors import UsageError
from protocols.faults import Fault
from protocols.header import Slot
from protocols.plain import Plain
from protocols.reliable import Reliable
from protocols.signed_echo import SignedEcho
from tests.ideal import digest, echo, party, ready, report, signed

SLOTS = Slot(2, 1), Slot(2, 1, 1)
FIRST, SECOND = ([signed(member, digest(member, slot), slot) for member in range(4)] for slot in SLOTS)
OWN = FIRST[0].header.digest
MIXTURE = SECOND[0].header.digest


def agreement(kind=Plain, **options):
    return Agreement(party(0, **options), SLOTS[0], 2, kind)


def tell(agreeing, *ones):
    out = []
    for one in ones:
        agreeing.handle(one.header.origin, Proposal(one))
        out += agreeing.arrived(one.header.digest)
    return out


def gathered(ones):
    return Gathered(ones[0].header.slot, tuple((one.header.origin, one.header.digest) for one in ones))


def test_it_broadcasts_gathers_and_mixes_in_every_sub_round_and_outputs_the_last_mixture():
    agreeing = agreement()
    assert agreeing.slots == SLOTS
    assert agreeing.missing == ()
    assert agreeing.start(OWN) == [Stream(FIRST[0].header), Broadcast(Proposal(FIRST[0]))]
    assert agreeing.missing == (1, 2, 3)
    assert tell(agreeing, *FIRST[1:3]) == [Mix(gathered(FIRST[:3]), into=SLOTS[1])]
    assert agreeing.missing == ()
    assert agreeing.mixed(MIXTURE) == [Stream(SECOND[0].header), Broadcast(Proposal(SECOND[0]))]
    assert agreeing.missing == (1, 2, 3)
    assert tell(agreeing, *SECOND[1:3]) == [Mix(gathered(SECOND[:3]), into=None)]
    assert agreeing.mixed(digest("agreed")) == [Deliver(digest("agreed"))]
    assert agreeing.missing == ()


def test_a_faster_peers_next_sub_round_counts_when_this_one_gets_there():
    agreeing = agreement()
    agreeing.start(OWN)
    assert tell(agreeing, *SECOND[1:3]) == []
    tell(agreeing, *FIRST[1:3])
    assert Mix(gathered(SECOND[:3])) in agreeing.mixed(MIXTURE)


def test_it_is_done_when_nobody_needs_it_any_more():
    agreeing = agreement()
    agreeing.start(OWN)
    tell(agreeing, *FIRST[1:])
    agreeing.mixed(MIXTURE)
    tell(agreeing, *SECOND[1:3])
    agreeing.mixed(digest("agreed"))
    assert not agreeing.done
    tell(agreeing, SECOND[3])
    assert agreeing.done
    assert agreeing.handle(1, Proposal(signed(1, OWN, Slot(2, 1, 5)))) == []


START, RESTATE = lambda agreeing: agreeing.start(OWN), lambda agreeing: agreeing.restate((OWN, MIXTURE))


@pytest.mark.parametrize("first", [START, RESTATE])
@pytest.mark.parametrize("second", [START, RESTATE])
def test_it_starts_once_by_start_or_by_restate(first, second):
    agreeing = agreement()
    first(agreeing)
    with pytest.raises(UsageError, match=r"the agreement from .* was started before"):
        second(agreeing)


def test_what_was_said_before_a_crash_is_said_again_in_every_sub_round_and_nothing_is_mixed():
    agreeing = agreement()
    assert agreeing.restate((OWN, MIXTURE)) == [
        Stream(FIRST[0].header),
        Broadcast(Proposal(FIRST[0])),
        Stream(SECOND[0].header),
        Broadcast(Proposal(SECOND[0])),
    ]
    assert agreeing.missing == ()
    assert tell(agreeing, *FIRST[1:], *SECOND[1:3]) == []
    with pytest.raises(UsageError, match="no mixture was asked for"):
        agreeing.mixed(MIXTURE)
    assert not agreeing.done
    assert tell(agreeing, SECOND[3]) == []
    assert agreeing.done


def test_who_restates_answers_those_who_still_need_it():
    agreeing = agreement(SignedEcho)
    agreeing.restate((OWN, MIXTURE))
    for one in (FIRST[1], SECOND[2]):
        agreeing.handle(one.header.origin, Proposal(one))
        assert agreeing.arrived(one.header.digest) == [Send(one.header.origin, echo(0, one))]


def test_a_value_for_each_sub_round_is_restated_or_nothing():
    with pytest.raises(ValueError, match="shorter"):
        agreement().restate((OWN,))


def test_over_reliable_broadcast_it_mixes_what_witnesses_share():
    agreeing = agreement(Reliable)
    agreeing.start(OWN)
    for one, member in product(FIRST[1:3], (1, 2, 3)):
        agreeing.arrived(one.header.digest)
        agreeing.handle(member, ready(one))
        agreeing.arrived(one.header.digest)
    assert agreeing.missing == (1, 2, 3)
    assert agreeing.handle(1, report(0, 1, 2, slot=SLOTS[0])) == []
    assert agreeing.handle(2, report(0, 1, 2, slot=SLOTS[1])) == []
    assert agreeing.handle(2, report(0, 1, 2, slot=SLOTS[0])) == [Mix(gathered(FIRST[:3]), SLOTS[1])]


def test_a_mixture_that_was_not_asked_for_is_refused():
    agreeing = agreement()
    agreeing.start(OWN)
    with pytest.raises(UsageError, match="no mixture was asked for"):
        agreeing.mixed(MIXTURE)


@pytest.mark.parametrize("sub_round", [2, 3, 65535])
def test_there_are_no_more_sub_rounds_than_the_recipe_has(sub_round):
    slot = Slot(2, 1, sub_round)
    for stray in (Proposal(signed(1, OWN, slot)), report(0, 1, 2, slot=slot), ready(signed(1, OWN, slot))):
        assert agreement(Reliable).handle(1, stray) == [Accuse(1, Fault.OUT_OF_TURN)]


def test_a_vector_that_is_not_finite_is_its_origins_fault():
    agreeing = agreement()
    agreeing.handle(1, Proposal(FIRST[1]))
    assert agreeing.unusable(FIRST[1].header.digest) == [Accuse(1, Fault.MALFORMED)]


def test_a_lost_link_and_the_end_concern_every_sub_round():
    agreeing = agreement(SignedEcho)
    agreeing.start(OWN)
    agreeing.handle(1, Proposal(SECOND[1]))
    assert agreeing.resume(3) == [Stream(FIRST[0].header, 3), Send(3, Proposal(FIRST[0]))]
    assert agreeing.close() == [Broadcast(Sighting(SECOND[1]))]
