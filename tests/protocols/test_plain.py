import pytest

from protocols.effects import Accuse, Broadcast, Deliver, DigestEcho, Expect, Proposal, Send, Sighting, Stream
from protocols.faults import Fault
from protocols.header import BFLOAT16, SignedHeader, Slot
from protocols.plain import Plain
from tests.ideal import JUNK, certificate, changed, digest, echo, party, proof, ready, signed

A, B = digest("a"), digest("b")
ONE, OTHER = signed(0, A), signed(0, B)


def plain(me=1, **options):
    return Plain(party(me, **options), Slot(0), 0)


def test_an_origin_streams_then_proposes_then_delivers():
    origin = plain(0)
    assert origin.start(A) == [Stream(ONE.header), Broadcast(Proposal(ONE)), Deliver(ONE.header)]
    assert origin.done


def test_what_was_signed_before_a_crash_is_never_contradicted():
    before = plain(0)
    before.start(A)
    after = Plain(before.party, Slot(0), 0)
    assert after.start(B) == []
    assert after.resume(1) == []
    assert not after.done


def test_an_origin_that_lost_its_vector_takes_part_as_a_member():
    before = plain(0)
    before.start(A)
    after = Plain(before.party, Slot(0), 0)
    after.start(B)
    assert after.handle(2, Sighting(ONE)) == [Expect(ONE.header)]
    assert after.arrived(A) == [Deliver(ONE.header)]


def test_validity_the_header_is_delivered_when_its_bytes_are_here():
    member = plain()
    assert member.handle(0, Proposal(ONE)) == [Expect(ONE.header)]
    assert not member.done
    assert member.arrived(B) == []
    assert member.arrived(A) == [Deliver(ONE.header)]
    assert member.done


def test_integrity_nothing_follows_once_it_is_done():
    member = plain()
    member.handle(0, Proposal(ONE))
    member.arrived(A)
    for message in (Proposal(ONE), Proposal(OTHER), Sighting(OTHER), echo(2, ONE), certificate(ONE, [0, 1, 2])):
        assert member.handle(0, message) == []
    assert member.arrived(A) == member.unusable(A) == member.close() == member.resume(0) == []


def test_bytes_before_their_header_are_not_delivered():
    assert plain().arrived(A) == plain().unusable(A) == []


def test_a_header_may_come_from_anyone_who_saw_it():
    assert plain().handle(2, Sighting(ONE)) == [Expect(ONE.header)]


def test_whoever_sees_two_headers_holds_the_proof_and_says_so_once():
    member = plain()
    member.handle(0, Proposal(ONE))
    evidence = proof(ONE, OTHER)
    assert member.handle(2, Sighting(OTHER)) == [Accuse(0, Fault.EQUIVOCATED, evidence)]
    assert member.handle(0, Proposal(signed(0, digest("c")))) == []


def test_nobody_proposes_for_another():
    assert plain().handle(2, Proposal(ONE)) == [Accuse(2, Fault.IMPERSONATED)]


@pytest.mark.parametrize(
    "bad",
    [
        SignedHeader(ONE.header, JUNK),
        changed(ONE, length=2),
        changed(ONE, dtype=BFLOAT16),
        changed(ONE, dtype=0),
        signed(0, A, Slot(1)),
        signed(2, A),
    ],
    ids=[
        "unsigned",
        "not of the model's length",
        "of another dtype",
        "of none",
        "of another slot",
        "of another origin",
    ],
)
def test_who_shows_a_bad_header_is_accused_once(bad):
    member = plain()
    assert member.handle(2, Sighting(bad)) == [Accuse(2, Fault.MALFORMED)]
    assert member.handle(2, Sighting(bad)) == []


@pytest.mark.parametrize("stray", [echo(2, ONE), certificate(ONE, [0, 1, 2]), DigestEcho(ONE), ready(ONE)])
def test_nobody_echoes_certifies_or_is_ready_for_a_plain_broadcast(stray):
    assert plain().handle(2, stray) == [Accuse(2, Fault.OUT_OF_TURN)]


def test_a_vector_that_is_not_finite_is_its_origins_fault():
    member = plain()
    member.handle(0, Proposal(ONE))
    assert member.unusable(B) == []
    assert member.unusable(A) == [Accuse(0, Fault.MALFORMED)]
    assert member.unusable(A) == []


def test_an_origin_is_not_stopped_by_its_own_words_from_before_a_crash():
    origin = plain(0)
    assert origin.handle(2, Sighting(ONE)) == []
    assert origin.start(A) == [Stream(ONE.header), Broadcast(Proposal(ONE)), Deliver(ONE.header)]


def test_who_lost_the_link_gets_vector_and_proposal_again():
    origin = plain(0)
    assert origin.resume(2) == []
    origin.start(A)
    assert origin.resume(2) == [Stream(ONE.header, 2), Send(2, Proposal(ONE))]
