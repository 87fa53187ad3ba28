import pytest

from protocols.agreement import Agreement
from protocols.effects import Accuse, Broadcast, Deliver, Gathered, Mix, Proposal, Send, Sighting, Stream
from protocols.errors import UsageError
from protocols.faults import Fault
from protocols.header import Slot
from protocols.plain import Plain
from protocols.signed_echo import SignedEcho
from tests.ideal import digest, party, signed

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
    assert tell(agreeing, *FIRST[1:3]) == [Mix(gathered(FIRST[:3]))]
    assert agreeing.missing == ()
    assert agreeing.mixed(MIXTURE) == [Stream(SECOND[0].header), Broadcast(Proposal(SECOND[0]))]
    assert agreeing.missing == (1, 2, 3)
    assert tell(agreeing, *SECOND[1:3]) == [Mix(gathered(SECOND[:3]))]
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


def test_it_starts_once_by_start_or_by_join():
    for first in ("start", "join"):
        agreeing = agreement()
        agreeing.start(OWN) if first == "start" else agreeing.join()
        with pytest.raises(UsageError, match="was started before"):
            agreeing.start(OWN)
        with pytest.raises(UsageError, match="was started before"):
            agreeing.join()


def test_who_joins_late_mixes_the_values_of_others_and_goes_on_as_all_do():
    agreeing = agreement()
    assert agreeing.join() == []
    assert tell(agreeing, *FIRST[1:3]) == [Mix(gathered(FIRST[1:3]))]
    assert agreeing.mixed(MIXTURE) == [Stream(SECOND[0].header), Broadcast(Proposal(SECOND[0]))]


def test_a_mixture_that_was_not_asked_for_is_refused():
    agreeing = agreement()
    agreeing.start(OWN)
    with pytest.raises(UsageError, match="no mixture was asked for"):
        agreeing.mixed(MIXTURE)


@pytest.mark.parametrize("sub_round", [2, 3, 65535])
def test_there_are_no_more_sub_rounds_than_the_recipe_has(sub_round):
    stray = Proposal(signed(1, OWN, Slot(2, 1, sub_round)))
    assert agreement().handle(1, stray) == [Accuse(1, Fault.OUT_OF_TURN)]


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
