import pytest

from protocols.effects import Accuse, Broadcast, Deliver, Expect, Gathered, Proposal, Send, Sighting, Stream
from protocols.errors import UsageError
from protocols.faults import Fault
from protocols.gather import Gather
from protocols.header import Slot
from protocols.plain import Plain
from protocols.signed_echo import SignedEcho
from tests.ideal import certificate, digest, echo, party, signed

D = [digest(member) for member in range(4)]
S = [signed(member, D[member]) for member in range(4)]


def gather(kind=Plain, me=0, **options):
    return Gather(party(me, **options), Slot(0), kind)


def tell(gathering, member):
    """Member's vector comes by a plain broadcast."""
    gathering.handle(member, Proposal(S[member]))
    return gathering.arrived(D[member])


def test_validity_it_outputs_once_on_n_minus_f_values_ones_own_among_them():
    gathering = gather()
    assert gathering.start(D[0]) == [Stream(S[0].header), Broadcast(Proposal(S[0]))]
    assert gathering.missing == (1, 2, 3)
    assert gathering.handle(3, Proposal(S[3])) == [Expect(S[3].header)]
    assert gathering.arrived(D[3]) == []
    assert tell(gathering, 1) == [Deliver(Gathered(Slot(0), ((0, D[0]), (1, D[1]), (3, D[3]))))]
    assert gathering.missing == (2,)
    assert not gathering.done
    assert tell(gathering, 2) == []
    assert gathering.done


def test_values_that_came_before_the_start_count():
    gathering = gather()
    assert tell(gathering, 1) == tell(gathering, 2) == tell(gathering, 3) == []
    assert Deliver(Gathered(Slot(0), tuple(enumerate(D)))) in gathering.start(D[0])


def test_ones_own_value_counts_before_anyone_echoes_it():
    gathering = gather(SignedEcho, n=1, f=0)
    assert Deliver(Gathered(Slot(0), ((0, D[0]),))) in gathering.start(D[0])
    late = gather(SignedEcho)
    late.start(D[0])
    for member in (1, 2):
        late.handle(member, certificate(S[member], [1, 2, 3]))
        late.arrived(D[member])
    assert late.gathered
    assert not late.done


def test_equal_vectors_of_two_members_are_two_values():
    gathering = gather()
    gathering.start(D[0])
    for member in (1, 2):
        gathering.handle(member, Proposal(signed(member, D[1])))
    assert gathering.arrived(D[1]) == [Deliver(Gathered(Slot(0), ((0, D[0]), (1, D[1]), (2, D[1]))))]


def test_it_starts_once_by_start_or_by_join():
    for first in ("start", "join"):
        gathering = gather()
        gathering.start(D[0]) if first == "start" else gathering.join()
        with pytest.raises(UsageError, match="was started before"):
            gathering.start(D[0])
        with pytest.raises(UsageError, match="was started before"):
            gathering.join()


def test_who_joins_without_a_value_waits_for_all_that_f_silent_ones_leave():
    gathering = gather()
    assert gathering.join() == []
    assert tell(gathering, 3) == []
    assert tell(gathering, 2) == [Deliver(Gathered(Slot(0), ((2, D[2]), (3, D[3]))))]


def test_every_broadcast_of_the_slot_is_answered():
    gathering = gather(SignedEcho, me=1)
    for member in (0, 2, 3):
        gathering.handle(member, Proposal(S[member]))
        assert gathering.arrived(D[member]) == [Send(member, echo(1, S[member]))]


def test_nobody_speaks_of_a_stranger():
    assert gather().handle(2, Proposal(signed(7, D[0]))) == [Accuse(2, Fault.OUT_OF_TURN)]


def test_a_vector_that_is_not_finite_does_not_count():
    gathering = gather()
    gathering.start(D[0])
    gathering.handle(1, Proposal(S[1]))
    assert gathering.unusable(D[1]) == [Accuse(1, Fault.MALFORMED)]
    assert gathering.missing == (1, 2, 3)


def test_once_done_nothing_follows():
    gathering = gather(n=1, f=0)
    gathering.start(D[0])
    assert gathering.done
    assert gathering.handle(0, Proposal(signed(7, D[1]))) == gathering.arrived(D[1]) == gathering.unusable(D[0]) == []


def test_a_lost_link_and_the_end_concern_every_broadcast():
    gathering = gather(SignedEcho, me=1)
    gathering.start(D[1])
    for member in (0, 2):
        gathering.handle(member, Proposal(S[member]))
        gathering.arrived(D[member])
    assert gathering.resume(0) == [
        Send(0, echo(1, S[0])),
        Stream(S[1].header, 0),
        Send(0, Proposal(S[1])),
    ]
    assert gathering.close() == [Broadcast(Sighting(S[0])), Broadcast(Sighting(S[2]))]
