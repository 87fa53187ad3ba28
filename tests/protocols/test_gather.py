from itertools import combinations
from random import Random

import pytest

from protocols.effects import (
    Accuse,
    Broadcast,
    Deliver,
    DigestEcho,
    Expect,
    Gathered,
    Proposal,
    Report,
    Send,
    Sighting,
    Stream,
)
from protocols.errors import UsageError
from protocols.faults import Fault
from protocols.gather import Gather
from protocols.header import Slot
from protocols.plain import Plain
from protocols.reliable import Reliable
from protocols.signed_echo import SignedEcho
from tests.ideal import certificate, digest, echo, party, ready, report, signed

MEMBERS = range(4)
D = [digest(member) for member in MEMBERS]
S = [signed(member, D[member]) for member in MEMBERS]


WORDS = {
    Plain: Sighting,
    SignedEcho: lambda of: certificate(of, [1, 2, 3]),
    Reliable: ready,
}


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


@pytest.mark.parametrize("quorum", [2, 3, 4])
def test_as_many_values_are_waited_for_as_are_asked_for(quorum):
    gathering = Gather(party(), Slot(0), Plain, quorum)
    gathering.start(D[0])
    out = [tell(gathering, member) for member in (1, 2, 3)]
    assert [bool(effects) for effects in out] == [heard == quorum for heard in (2, 3, 4)]


def test_a_report_of_fewer_values_than_are_waited_for_is_refused():
    gathering = Gather(party(), Slot(0), Reliable, 4)
    gathering.start(D[0])
    assert gathering.handle(1, Report(Slot(0), (0, 1, 2))) == [Accuse(1, Fault.MALFORMED)]
    assert gathering.handle(2, Report(Slot(0), (0, 1, 2, 3))) == []


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


@pytest.mark.parametrize("first", [Gather.start, Gather.restate])
@pytest.mark.parametrize("second", [Gather.start, Gather.restate])
def test_it_starts_once_by_start_or_by_restate(first, second):
    gathering = gather()
    first(gathering, D[0])
    with pytest.raises(UsageError, match="was started before"):
        second(gathering, D[0])


def test_what_is_restated_is_proposed_and_others_are_answered_but_nothing_is_output():
    gathering = gather(SignedEcho)
    assert tell(gathering, 1) == [Send(1, echo(0, S[1]))]
    assert gathering.restate(D[0]) == [Stream(S[0].header), Broadcast(Proposal(S[0]))]
    for member in (1, 2, 3):
        gathering.handle(member, certificate(S[member], [1, 2, 3]))
    assert gathering.arrived(D[2]) == gathering.arrived(D[3]) == []
    assert gathering.resume(1)[:2] == [Stream(S[0].header, 1), Send(1, Proposal(S[0]))]
    assert not gathering.done
    gathering.handle(1, certificate(S[0], [0, 1, 2]))
    assert gathering.done


@pytest.mark.parametrize("kind", [Plain, SignedEcho, Reliable])
def test_a_value_that_is_refused_does_not_count_and_what_was_proposed_counts_when_it_comes_back(kind):
    before = gather(kind)
    before.start(digest("before"))
    after = Gather(before.party, Slot(0), kind)
    assert after.start(D[0]) == []
    assert after.missing == (0, 1, 2, 3)
    own = signed(0, digest("before"))
    for member in (1, 2, 3):
        after.handle(member, WORDS[kind](own))
    after.arrived(own.header.digest)
    assert after.missing == (1, 2, 3)


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


def hear(gathering, *members):
    """These members' values come by reliable broadcast."""
    out = []
    for origin in members:
        gathering.arrived(D[origin])
        for member in MEMBERS:
            if member != gathering.party.me:
                out += gathering.handle(member, ready(S[origin]))
        out += gathering.arrived(D[origin])
    return [effect for effect in out if isinstance(getattr(effect, "message", effect), Deliver | Report)]


def gathered(*members):
    return Deliver(Gathered(Slot(0), tuple((member, D[member]) for member in members)))


def witnessed(*reports):
    """Member 0 with the values of 0, 1 and 2, and these members' reports."""
    gathering = gather(Reliable)
    gathering.start(D[0])
    assert hear(gathering, 1) == []
    assert hear(gathering, 2) == [Broadcast(report(0, 1, 2))]
    for member, message in reports:
        assert gathering.handle(member, message) == []
    return gathering


def test_it_reports_on_n_minus_f_values_and_outputs_on_n_minus_f_witnesses_itself_among_them():
    gathering = witnessed()
    assert not gathering.gathered
    assert gathering.missing == (1, 2, 3)
    assert gathering.handle(2, report(0, 1, 2)) == []
    assert gathering.missing == (1, 3)
    assert gathering.handle(1, report(0, 1, 2)) == [gathered(0, 1, 2)]
    assert gathering.gathered
    assert gathering.missing == (3,)


def test_enough_values_are_no_output_while_witnesses_are_missing():
    gathering = witnessed((1, report(0, 1, 2)))
    assert hear(gathering, 3) == []
    assert gathering.handle(3, report(0, 2, 3)) == [gathered(0, 1, 2, 3)]


def test_who_reports_what_is_not_delivered_here_is_a_witness_when_it_is():
    gathering = witnessed((1, report(0, 1, 3)), (2, report(0, 1, 2)))
    assert gathering.missing == (1, 3)
    assert hear(gathering, 3) == [gathered(0, 1, 2, 3)]
    assert gathering.missing == (3,)


def test_witnesses_that_reported_before_the_start_count():
    gathering = gather(Reliable)
    for member in (1, 2):
        assert gathering.handle(member, report(0, 1, 2)) == []
    assert hear(gathering, 1, 2) == []
    assert gathering.start(D[0])[-2:] == [Broadcast(report(0, 1, 2)), gathered(0, 1, 2)]


def test_the_only_member_is_its_own_witness():
    gathering = gather(Reliable, n=1, f=0)
    assert gathering.start(D[0])[-2:] == [Broadcast(report(0)), gathered(0)]
    assert gathering.done


def test_a_member_is_one_witness_however_often_it_reports():
    gathering = witnessed((1, report(0, 1, 2)), (1, report(0, 1, 2)), (1, report(0, 1, 2, 3)), (1, report(0, 2, 3)))
    assert gathering.missing == (2, 3)
    assert not gathering.gathered


def test_a_later_report_replaces_one_that_makes_no_witness_yet():
    """Who forgot its report in a crash reports again what it delivered then."""
    gathering = witnessed((1, report(0, 1, 3)), (2, report(0, 1, 2)))
    assert gathering.handle(1, report(0, 1, 2)) == [gathered(0, 1, 2)]


def test_it_outputs_once_however_much_is_delivered_and_reported_later():
    gathering = witnessed((1, report(0, 1, 2)))
    assert gathering.handle(2, report(0, 1, 2)) == [gathered(0, 1, 2)]
    assert hear(gathering, 3) == gathering.handle(3, report(0, 1, 3)) == []


@pytest.mark.parametrize(
    "bad",
    [
        report(),
        report(0, 1),
        report(0, 1, 1),
        report(1, 0, 2),
        report(0, 1, 4),
        report(-1, 0, 1),
        report(0, 1, 2, 3, 4),
    ],
    ids=["empty", "short", "repeated", "unordered", "a stranger", "less than none", "too many"],
)
def test_a_malformed_report_is_accused_once_and_changes_nothing(bad):
    gathering = witnessed((1, report(0, 1, 2)))
    assert gathering.handle(2, bad) == [Accuse(2, Fault.MALFORMED)]
    assert gathering.handle(2, bad) == []
    assert gathering.missing == (2, 3)
    assert gathering.handle(2, report(0, 1, 2)) == [gathered(0, 1, 2)]


@pytest.mark.parametrize("kind", [Plain, SignedEcho])
def test_nobody_reports_over_a_broadcast_without_totality(kind):
    gathering = gather(kind)
    gathering.start(D[0])
    assert gathering.handle(2, report(0, 1, 2)) == [Accuse(2, Fault.OUT_OF_TURN)]
    assert gathering.handle(2, report(0, 1, 2)) == []
    assert gathering.missing == (1, 2, 3)


def test_a_report_is_said_again_over_a_new_link_and_not_before_there_is_one():
    gathering = gather(Reliable)
    gathering.start(D[0])
    assert not any(isinstance(effect.message, Report) for effect in gathering.resume(3) if isinstance(effect, Send))
    assert witnessed().resume(3)[-1] == Send(3, report(0, 1, 2))
    assert witnessed((1, report(0, 1, 2)), (3, report(0, 1, 3))).resume(3)[-1] == Send(3, report(0, 1, 2))


def test_who_restates_is_a_witness_for_others_and_outputs_nothing():
    gathering = gather(Reliable)
    assert gathering.restate(D[0]) == [Stream(S[0].header), Broadcast(Proposal(S[0])), Broadcast(DigestEcho(S[0]))]
    assert hear(gathering, 1, 2) == [Broadcast(report(0, 1, 2))]
    assert gathering.handle(1, report(0, 1, 2)) == gathering.handle(2, report(0, 1, 2)) == []
    assert hear(gathering, 0, 3) == []
    assert gathering.done
    assert gathering.handle(3, report(0, 1, 3)) == []
    assert gathering.resume(3)[-1] == Send(3, report(0, 1, 2))


def test_over_reliable_broadcast_any_two_members_share_n_minus_f_values_in_any_order_of_words():
    for seed in range(60):
        outputs = run(Random(seed))
        assert len(outputs) == 4
        for one, other in combinations(outputs, 2):
            assert len(set(one.values) & set(other.values)) >= 3


def run(random):
    """What four members output whose words come one by one in any order."""
    gatherings = [gather(Reliable, me=me) for me in MEMBERS]
    under_way, outputs = [], []

    def perform(me, effects):
        for effect in effects:
            match effect:
                case Broadcast(message):
                    under_way.extend((me, to, message) for to in MEMBERS if to != me)
                case Deliver(value):
                    outputs.append(value)

    for me, gathering in enumerate(gatherings):
        perform(me, gathering.start(D[me]))
    while under_way:
        sender, to, message = under_way.pop(random.randrange(len(under_way)))
        perform(to, gatherings[to].handle(sender, message))
        for value in D:
            perform(to, gatherings[to].arrived(value))
    return outputs
