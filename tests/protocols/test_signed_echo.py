from dataclasses import replace

import pytest

from protocols.effects import (
    Accuse,
    Broadcast,
    Certificate,
    Deliver,
    DigestEcho,
    Expect,
    Fetch,
    Proposal,
    Send,
    Sighting,
    Stream,
)
from protocols.faults import Fault
from protocols.header import BFLOAT16, SignedHeader, Slot
from protocols.signed_echo import SignedEcho
from tests.ideal import JUNK, certificate, changed, digest, echo, party, proof, ready, signed, verify

A, B = digest("a"), digest("b")
ONE, OTHER = signed(0, A), signed(0, B)
PROPOSED = [Stream(ONE.header), Broadcast(Proposal(ONE))]
VOUCHED = certificate(ONE, [0, 1, 2])


def at(me, broadcast=None, **options):
    return SignedEcho(broadcast.party if broadcast else party(me, **options), Slot(0), 0)


def member(*inputs):
    """Member 3 after these inputs."""
    broadcast = at(3)
    for sender, message in inputs:
        broadcast.handle(sender, message)
    return broadcast


def test_validity_an_origin_certifies_on_a_quorum_of_echoes():
    origin = at(0)
    assert origin.start(A) == PROPOSED
    assert origin.handle(1, echo(1, ONE)) == []
    assert origin.handle(1, echo(1, ONE)) == []
    assert not origin.done
    assert origin.handle(2, echo(2, ONE)) == [Broadcast(VOUCHED), Deliver(ONE.header)]
    assert origin.done
    assert origin.handle(3, echo(3, ONE)) == []


def test_the_only_member_certifies_alone():
    assert at(0, n=1, f=0).start(A) == [*PROPOSED, Broadcast(certificate(ONE, [0])), Deliver(ONE.header)]


def test_availability_a_member_echoes_when_it_holds_the_bytes():
    broadcast = at(3)
    assert broadcast.arrived(A) == []
    assert broadcast.handle(0, Proposal(ONE)) == [Expect(ONE.header)]
    assert broadcast.handle(0, Proposal(ONE)) == []
    assert broadcast.arrived(B) == []
    assert broadcast.arrived(A) == [Send(0, echo(3, ONE))]
    assert broadcast.arrived(A) == []
    assert not broadcast.done


def test_validity_a_certified_header_is_delivered():
    broadcast = member((0, Proposal(ONE)))
    broadcast.arrived(A)
    assert broadcast.handle(0, VOUCHED) == [Deliver(ONE.header)]
    assert broadcast.done


def test_availability_the_bytes_of_a_certified_header_are_fetched_from_who_vouches():
    broadcast = at(2)
    assert broadcast.handle(3, VOUCHED) == [Expect(ONE.header), Fetch(ONE.header, (1, 0))]
    assert broadcast.handle(0, VOUCHED) == []
    assert broadcast.arrived(A) == [Deliver(ONE.header)]


def test_integrity_nothing_follows_once_it_is_done():
    broadcast = member((0, Proposal(ONE)), (0, VOUCHED))
    broadcast.arrived(A)
    for message in (Proposal(OTHER), Sighting(OTHER), certificate(OTHER, [0, 1, 2]), echo(1, ONE), VOUCHED):
        assert broadcast.handle(0, message) == []
    assert broadcast.arrived(B) == broadcast.unusable(A) == broadcast.close() == []


def test_integrity_ones_own_echo_needs_no_check_and_nothing_else_passes_for_it():
    asked = []

    def watch(member, statement, signature):
        asked.append(member)
        return verify(member, statement, signature)

    def echoed():
        broadcast = SignedEcho(replace(party(3), verify=watch), Slot(0), 0)
        broadcast.handle(0, Proposal(ONE))
        broadcast.arrived(A)
        asked.clear()
        return broadcast

    assert echoed().handle(0, certificate(ONE, [0, 1, 3])) == [Deliver(ONE.header)]
    assert asked == [1]
    mine = echo(3, ONE).signature
    for signed_, signature in ((ONE, JUNK), (OTHER, mine)):
        echoes = (*certificate(signed_, [0, 1]).echoes, (3, signature))
        assert echoed().handle(0, Certificate(signed_, echoes)) == [Accuse(0, Fault.MALFORMED)]
    echoes = ((1, mine), *certificate(ONE, [2, 3]).echoes)
    assert echoed().handle(0, Certificate(ONE, echoes)) == [Accuse(0, Fault.MALFORMED)]


def test_a_certificate_names_every_signature_that_it_holds_by():
    assert all(verify(*each) for each in VOUCHED.signed_by())
    assert [member for member, _, _ in VOUCHED.signed_by()] == [0, 1, 2]


def test_consistency_a_member_echoes_the_first_header_only_and_none_once_it_knows_of_two():
    broadcast = member((0, Proposal(ONE)))
    assert broadcast.handle(0, Proposal(OTHER)) == [Accuse(0, Fault.EQUIVOCATED, proof(ONE, OTHER))]
    assert broadcast.handle(1, Sighting(signed(0, digest("c")))) == []
    assert broadcast.arrived(B) == broadcast.arrived(A) == []


def test_consistency_what_was_echoed_before_a_crash_is_never_contradicted():
    before = member((0, Proposal(ONE)))
    before.arrived(A)
    after = at(3, before)
    after.handle(0, Proposal(OTHER))
    assert after.arrived(B) == []
    assert after.resume(0) == []


def test_consistency_an_origin_never_contradicts_what_it_proposed_before_a_crash():
    before = at(0)
    before.start(A)
    assert at(0, before).start(B) == []


def test_a_certified_header_is_delivered_although_another_came_first():
    broadcast = member((0, Proposal(OTHER)))
    broadcast.arrived(B)
    assert broadcast.handle(0, VOUCHED) == [
        Accuse(0, Fault.EQUIVOCATED, proof(ONE, OTHER)),
        Fetch(ONE.header, (1, 2, 0)),
    ]
    assert broadcast.handle(1, certificate(OTHER, [0, 1, 2])) == []
    assert broadcast.arrived(A) == [Deliver(ONE.header)]


def test_bytes_of_a_first_header_are_not_delivered_under_another_ones_certificate():
    broadcast = member((0, Proposal(OTHER)), (0, VOUCHED))
    assert broadcast.arrived(B) == []
    assert not broadcast.done


@pytest.mark.parametrize(
    "bad",
    [
        certificate(ONE, []),
        certificate(ONE, [0, 1]),
        certificate(ONE, [0, 1, 1]),
        certificate(ONE, [0, 2, 1]),
        Certificate(ONE, ((0, echo(0, ONE).signature), *certificate(ONE, [1]).echoes)),
        certificate(ONE, [0, 1, 4]),
        certificate(ONE, [-1, 0, 1]),
        Certificate(ONE, (*certificate(ONE, [0, 1]).echoes, (2, JUNK))),
        Certificate(ONE, certificate(OTHER, [0, 1, 2]).echoes),
        certificate(SignedHeader(ONE.header, JUNK), [0, 1, 2]),
        certificate(changed(ONE, length=2), [0, 1, 2]),
        certificate(changed(ONE, dtype=BFLOAT16), [0, 1, 2]),
        certificate(signed(0, A, Slot(1)), [0, 1, 2]),
        certificate(signed(1, A), [0, 1, 2]),
    ],
    ids=[
        "empty",
        "short",
        "repeated",
        "unordered",
        "the origin counted twice",
        "a stranger",
        "less than none",
        "a forged echo",
        "echoes of another",
        "a forged header",
        "not of the model's length",
        "of another dtype",
        "of another slot",
        "of another origin",
    ],
)
def test_a_certificate_that_does_not_hold_is_accused_once_and_changes_nothing(bad):
    broadcast = at(3)
    assert broadcast.handle(2, bad) == [Accuse(2, Fault.MALFORMED)]
    assert broadcast.handle(2, bad) == []
    assert broadcast.handle(0, VOUCHED) == [Expect(ONE.header), Fetch(ONE.header, (1, 2, 0))]


def test_who_echoes_to_another_than_the_origin_is_accused():
    assert at(3).handle(2, echo(2, ONE)) == [Accuse(2, Fault.OUT_OF_TURN)]


def test_who_sends_a_forged_echo_is_accused_and_not_counted():
    origin = at(0)
    origin.start(A)
    assert origin.handle(1, echo(2, ONE)) == [Accuse(1, Fault.MALFORMED)]
    assert origin.handle(1, echo(1, OTHER)) == []
    origin.handle(2, echo(2, ONE))
    assert not origin.done


@pytest.mark.parametrize("stray", [DigestEcho(ONE), ready(ONE)], ids=["echo to all", "ready"])
def test_words_of_reliable_broadcast_are_out_of_turn(stray):
    origin = at(0)
    origin.start(A)
    for broadcast in (origin, at(3), member((0, Proposal(ONE)))):
        assert broadcast.handle(2, stray) == [Accuse(2, Fault.OUT_OF_TURN)]
        assert broadcast.handle(2, stray) == []


def test_nobody_proposes_for_another():
    assert at(3).handle(1, Proposal(ONE)) == [Accuse(1, Fault.IMPERSONATED)]


def test_a_vector_that_is_not_finite_is_its_origins_fault():
    broadcast = member((0, Proposal(ONE)))
    assert broadcast.unusable(A) == [Accuse(0, Fault.MALFORMED)]


def test_last_words_show_a_header_that_was_never_certified():
    broadcast = member((0, Proposal(ONE)))
    assert broadcast.close() == [Broadcast(Sighting(ONE))]
    assert at(3).close() == []
    assert member((0, VOUCHED)).close() == []
    origin = at(0)
    origin.start(A)
    assert origin.close() == []


def test_last_words_complete_the_proof():
    assert member((0, Proposal(OTHER))).handle(1, Sighting(ONE)) == [
        Accuse(0, Fault.EQUIVOCATED, proof(ONE, OTHER)),
    ]


def test_an_origin_says_again_what_a_lost_link_may_have_swallowed():
    origin = at(0)
    assert origin.resume(1) == []
    origin.start(A)
    assert origin.resume(1) == [Stream(ONE.header, 1), Send(1, Proposal(ONE))]
    origin.handle(1, echo(1, ONE))
    origin.handle(2, echo(2, ONE))
    assert origin.resume(1) == [Stream(ONE.header, 1), Send(1, VOUCHED)]


def test_a_member_says_again_what_the_origin_may_have_lost():
    broadcast = member((0, Proposal(ONE)))
    assert broadcast.resume(0) == []
    broadcast.arrived(A)
    assert broadcast.resume(0) == [Send(0, echo(3, ONE))]
    assert broadcast.resume(1) == []
    broadcast.handle(0, VOUCHED)
    assert broadcast.resume(0) == [Send(0, VOUCHED)]
    assert broadcast.resume(1) == []


def test_availability_bytes_that_are_certified_and_missing_are_asked_for_again():
    broadcast = member((0, VOUCHED))
    assert broadcast.resume(0) == [Send(0, VOUCHED), Fetch(ONE.header, (0,))]
    assert broadcast.resume(1) == [Fetch(ONE.header, (1,))]
    broadcast.arrived(A)
    assert broadcast.resume(0) == [Send(0, VOUCHED)]
    assert broadcast.resume(1) == []


def test_who_delivered_is_done_although_it_never_echoed():
    broadcast = member((3, VOUCHED))
    assert not broadcast.done
    broadcast.arrived(A)
    assert broadcast.done


def test_an_origin_that_restarts_counts_the_echoes_that_were_told_again_before_it_started():
    origin = at(0)
    assert origin.handle(1, echo(1, ONE)) == origin.handle(2, echo(2, ONE)) == origin.handle(3, echo(3, ONE)) == []
    assert origin.start(A) == [*PROPOSED, Broadcast(VOUCHED), Deliver(ONE.header)]


def test_an_origin_that_restarts_certifies_by_the_certificate_that_a_peer_kept():
    before_start, after_start = at(0), at(0)
    assert before_start.handle(3, VOUCHED) == []
    assert before_start.start(A) == [*PROPOSED, Broadcast(VOUCHED), Deliver(ONE.header)]
    after_start.start(A)
    assert after_start.handle(3, VOUCHED) == [Broadcast(VOUCHED), Deliver(ONE.header)]
    assert after_start.done


def test_an_origin_is_not_stopped_by_its_own_words_from_before_a_crash():
    origin = at(0)
    assert origin.handle(1, Sighting(ONE)) == []
    assert origin.start(A) == PROPOSED


def refused():
    """An origin that proposed one vector, lost it in a crash, and would now propose another."""
    before = at(0)
    before.start(A)
    return at(0, before)


def test_an_origin_that_lost_its_vector_takes_part_as_a_member():
    origin = refused()
    assert origin.start(B) == []
    assert origin.handle(3, VOUCHED) == [Expect(ONE.header), Broadcast(VOUCHED), Fetch(ONE.header, (1, 2))]
    assert origin.resume(1) == [Stream(ONE.header, 1), Send(1, VOUCHED), Fetch(ONE.header, (1,))]
    assert origin.arrived(A) == [Deliver(ONE.header)]


def test_an_origin_that_lost_its_vector_hears_the_words_that_came_before_it_started():
    origin = refused()
    assert origin.handle(1, echo(1, ONE)) == origin.handle(3, VOUCHED) == []
    assert origin.start(B) == [Expect(ONE.header), Broadcast(VOUCHED), Fetch(ONE.header, (1, 2))]


def test_an_origin_that_lost_its_vector_counts_the_echoes_of_it_and_fetches_it():
    origin = refused()
    origin.handle(1, Sighting(ONE))
    assert origin.start(B) == [Expect(ONE.header)]
    assert origin.handle(1, echo(1, ONE)) == []
    assert origin.handle(2, echo(2, ONE)) == [Broadcast(VOUCHED), Fetch(ONE.header, (1, 2))]
    assert origin.arrived(A) == [Deliver(ONE.header)]


def test_what_is_heard_before_the_start_is_one_word_of_each_member():
    origin = at(0)
    assert origin.handle(1, echo(1, ONE)) == origin.handle(1, Sighting(OTHER)) == origin.handle(2, echo(1, ONE)) == []
    assert origin.start(A) == [*PROPOSED, Accuse(2, Fault.MALFORMED)]
    assert origin.handle(3, echo(3, ONE)) == [Broadcast(certificate(ONE, [0, 1, 3])), Deliver(ONE.header)]
