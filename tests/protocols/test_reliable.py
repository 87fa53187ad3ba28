import pytest

from protocols.effects import (
    Accuse,
    Broadcast,
    Deliver,
    DigestEcho,
    Expect,
    Fetch,
    Proposal,
    Ready,
    Send,
    Sighting,
    Stream,
)
from protocols.faults import Fault
from protocols.header import BFLOAT16, Claim, SignedHeader, Slot
from protocols.reliable import Reliable
from tests.ideal import JUNK, certificate, changed, digest, echo, party, proof, ready, report, signed

A, B = digest("a"), digest("b")
ONE, OTHER = signed(0, A), signed(0, B)
PROPOSED = [Stream(ONE.header), Broadcast(Proposal(ONE)), Broadcast(DigestEcho(ONE))]
I_ECHO, I_AM_READY = Broadcast(DigestEcho(ONE)), Broadcast(ready(ONE))


def at(me, broadcast=None, **options):
    """An instance at this member; of n=7, f=2 where nothing else is asked for: quorums of 5 echoes and 5 readies."""
    return Reliable(broadcast.party if broadcast else party(me, **{"n": 7, "f": 2, **options}), Slot(0), 0)


def hear(broadcast, members, message):
    """What the words of these members lead to, all of them together."""
    return [effect for sender in members for effect in broadcast.handle(sender, message)]


def holding(me=6):
    """A member that has echoed: it saw the header, and holds the bytes."""
    broadcast = at(me)
    broadcast.handle(0, Proposal(ONE))
    assert broadcast.arrived(A) == [I_ECHO]
    return broadcast


def test_validity_of_an_honest_origin_every_honest_member_delivers_although_f_are_silent():
    origin, members = at(0), [at(me) for me in range(1, 5)]
    assert origin.start(A) == PROPOSED
    everyone = [origin, *members]
    for member in members:
        assert member.handle(0, Proposal(ONE)) == [Expect(ONE.header)]
        assert member.arrived(A) == [I_ECHO]
    echoed = [[to.handle(by, DigestEcho(ONE)) for by in range(5) if by != me] for me, to in enumerate(everyone)]
    assert echoed == [[[], [], [], [I_AM_READY]]] * 5
    said = [[to.handle(by, ready(ONE)) for by in range(5) if by != me] for me, to in enumerate(everyone)]
    assert said == [[[], [], [], [Deliver(ONE.header)]]] * 5
    assert all(broadcast.done for broadcast in everyone)


def test_the_only_member_delivers_alone():
    only = at(0, n=1, f=0)
    assert only.start(A) == [*PROPOSED, I_AM_READY, Deliver(ONE.header)]
    assert only.done


def test_integrity_nobody_delivers_twice_where_one_echo_completes_everything():
    broadcast = at(1, n=2, f=0)
    broadcast.handle(0, Proposal(ONE))
    broadcast.handle(0, DigestEcho(ONE))
    assert broadcast.arrived(A) == [I_ECHO, I_AM_READY, Deliver(ONE.header)]


def test_availability_a_member_echoes_when_it_holds_the_bytes_and_once():
    broadcast = at(6)
    assert broadcast.arrived(A) == []
    assert broadcast.handle(0, Proposal(ONE)) == [Expect(ONE.header)]
    assert broadcast.handle(0, Proposal(ONE)) == broadcast.arrived(B) == []
    assert broadcast.arrived(A) == [I_ECHO]
    assert broadcast.arrived(A) == broadcast.handle(0, Proposal(ONE)) == []


def test_a_header_that_an_echo_shows_is_as_good_as_the_origins_word():
    broadcast = at(6)
    assert broadcast.handle(3, DigestEcho(ONE)) == [Expect(ONE.header)]
    assert broadcast.arrived(A) == [I_ECHO]


def test_consistency_a_member_echoes_the_first_header_only_and_none_once_it_knows_of_two():
    broadcast = at(6)
    broadcast.handle(0, Proposal(ONE))
    assert broadcast.handle(3, DigestEcho(OTHER)) == [Accuse(0, Fault.EQUIVOCATED, proof(ONE, OTHER))]
    assert broadcast.handle(4, DigestEcho(signed(0, digest("c")))) == []
    assert broadcast.arrived(B) == broadcast.arrived(A) == []


def test_a_second_header_is_a_proof_after_the_echo_too():
    broadcast = holding()
    assert broadcast.handle(0, Proposal(OTHER)) == [Accuse(0, Fault.EQUIVOCATED, proof(ONE, OTHER))]
    assert broadcast.handle(1, Sighting(OTHER)) == broadcast.arrived(B) == []


def test_consistency_what_was_echoed_before_a_crash_is_never_contradicted():
    after = at(6, holding())
    assert after.handle(0, Proposal(OTHER)) == [Expect(OTHER.header)]
    assert after.arrived(B) == []
    assert after.resume(1) == []


def test_what_was_echoed_before_a_crash_is_echoed_again():
    after = at(6, holding())
    after.handle(0, Proposal(ONE))
    assert after.arrived(A) == [I_ECHO]


def test_consistency_an_origin_contradicts_itself_neither_by_proposal_nor_by_echo():
    before = at(0)
    before.start(A)
    assert at(0, before).start(B) == []
    del before.party.signer.signed[ONE.header.proposal().place]
    assert at(0, before).start(B) == [Stream(OTHER.header), Broadcast(Proposal(OTHER))]


def test_ready_on_a_quorum_of_echoes_ones_own_among_them_and_once():
    broadcast = holding()
    assert hear(broadcast, [1, 2, 3], DigestEcho(ONE)) == []
    assert broadcast.handle(4, DigestEcho(ONE)) == [I_AM_READY]
    assert hear(broadcast, [0, 5], DigestEcho(ONE)) == hear(broadcast, [1, 2, 3], ready(ONE)) == []


def test_consistency_echoes_of_two_headers_do_not_add_up():
    broadcast = holding()
    hear(broadcast, [1, 2, 3], DigestEcho(ONE))
    assert hear(broadcast, [4, 5], DigestEcho(OTHER)) == [Accuse(0, Fault.EQUIVOCATED, proof(ONE, OTHER))]


def test_totality_ready_on_f_plus_1_readies_without_an_echo_and_not_on_f():
    broadcast = at(6)
    assert hear(broadcast, [1, 2], ready(ONE)) == []
    assert broadcast.handle(3, ready(ONE)) == [I_AM_READY]


def test_totality_ready_on_f_plus_1_readies_although_one_echoed_another_header():
    broadcast = holding()
    assert hear(broadcast, [1, 2, 3], ready(OTHER)) == [Broadcast(ready(OTHER))]


def test_delivery_on_2f_plus_1_readies_ones_own_among_them_and_not_on_2f():
    broadcast = holding()
    assert hear(broadcast, [1, 2, 3], ready(ONE)) == [I_AM_READY]
    assert not broadcast.done
    assert broadcast.handle(4, ready(ONE)) == [Deliver(ONE.header)]
    assert broadcast.done


def test_consistency_readies_of_two_digests_do_not_add_up():
    broadcast = holding()
    assert hear(broadcast, [1, 2, 3], ready(ONE)) == [I_AM_READY]
    assert hear(broadcast, [4, 5], ready(OTHER)) == []
    assert not broadcast.done


def test_only_the_first_echo_of_a_member_counts():
    broadcast = holding()
    assert hear(broadcast, [1, 1, 1, 1], DigestEcho(ONE)) == []
    broadcast.handle(1, DigestEcho(OTHER))
    assert hear(broadcast, [2, 3, 4, 5], DigestEcho(OTHER)) == []
    assert broadcast.handle(0, DigestEcho(OTHER)) == [Broadcast(ready(OTHER))]


def test_only_the_first_ready_of_a_member_counts():
    broadcast = holding()
    assert hear(broadcast, [1, 1, 1, 1, 1], ready(ONE)) == []
    assert hear(broadcast, [1, 2, 3], ready(OTHER)) == []
    assert broadcast.handle(4, ready(OTHER)) == [Broadcast(ready(OTHER))]


def test_availability_missing_bytes_are_fetched_from_echoers_first_then_from_all_others_but_never_from_oneself():
    broadcast = at(2)
    hear(broadcast, [5, 3], DigestEcho(ONE))
    hear(broadcast, [6], DigestEcho(OTHER))
    assert hear(broadcast, [1, 4, 5], ready(ONE)) == [I_AM_READY]
    assert broadcast.handle(6, ready(ONE)) == [Fetch(ONE.header, (5, 3, 0, 1, 4, 6))]
    assert hear(broadcast, [0, 3], ready(ONE)) == []
    assert not broadcast.done
    assert broadcast.arrived(A) == [Deliver(ONE.header)]


def test_availability_the_bytes_of_a_header_that_one_never_saw_are_fetched_and_delivered():
    broadcast = at(6)
    assert hear(broadcast, range(5), ready(ONE)) == [I_AM_READY, Fetch(ONE.header, (0, 1, 2, 3, 4, 5))]
    assert broadcast.arrived(B) == []
    assert broadcast.arrived(A) == [Deliver(ONE.header)]


def test_who_gets_the_bytes_late_still_echoes_them_for_others():
    broadcast = at(6)
    broadcast.handle(0, Proposal(ONE))
    hear(broadcast, range(5), ready(ONE))
    assert broadcast.arrived(A) == [I_ECHO, Deliver(ONE.header)]


def test_bytes_of_a_first_header_are_not_delivered_under_another_digest():
    broadcast = holding()
    assert hear(broadcast, range(5), ready(OTHER)) == [Broadcast(ready(OTHER)), Fetch(OTHER.header, (0, 1, 2, 3, 4, 5))]
    assert broadcast.arrived(A) == []
    assert broadcast.arrived(B) == [Deliver(OTHER.header)]


def test_bytes_of_another_digest_are_no_reason_to_echo_the_first_header_neither_before_nor_after_delivery():
    broadcast = at(6)
    broadcast.handle(0, Proposal(OTHER))
    hear(broadcast, range(5), ready(ONE))
    assert broadcast.arrived(A) == [Deliver(ONE.header)]
    assert broadcast.arrived(B) == []


def test_nothing_follows_once_it_is_done():
    broadcast = holding()
    hear(broadcast, [1, 2, 3, 4], ready(ONE))
    assert broadcast.done
    for message in (Proposal(OTHER), Sighting(OTHER), DigestEcho(ONE), DigestEcho(OTHER), ready(ONE), echo(1, ONE)):
        assert hear(broadcast, range(6), message) == []
    assert broadcast.arrived(A) == broadcast.arrived(B) == broadcast.unusable(A) == broadcast.close() == []


def test_an_unfinished_one_is_closed_without_a_word():
    assert holding().close() == []


BAD = {
    "unsigned": SignedHeader(ONE.header, JUNK),
    "signed by another": SignedHeader(ONE.header, signed(1, A).signature),
    "not of the model's length": changed(ONE, length=2),
    "of another dtype": changed(ONE, dtype=BFLOAT16),
    "of another network": changed(ONE, network=b"m" * 32),
    "of another slot": signed(0, A, Slot(1)),
    "of another origin": signed(1, A),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("word", [Sighting, DigestEcho])
def test_who_shows_a_bad_header_is_accused_once_and_nothing_is_expected(word, bad):
    broadcast = at(6)
    assert broadcast.handle(2, word(bad)) == [Accuse(2, Fault.MALFORMED)]
    assert broadcast.handle(2, word(bad)) == broadcast.arrived(A) == []
    assert broadcast.handle(0, Proposal(ONE)) == [Expect(ONE.header)]


@pytest.mark.parametrize("misfit", [signed(0, A, Slot(1)), signed(1, A)], ids=["of another slot", "of another origin"])
def test_an_echo_of_another_broadcast_is_no_vote_here(misfit):
    broadcast = holding()
    hear(broadcast, [1, 2, 3, 4], DigestEcho(misfit))
    assert hear(broadcast, [1, 2, 3], DigestEcho(ONE)) == []
    assert broadcast.handle(4, DigestEcho(ONE)) == [I_AM_READY]


def test_nobody_proposes_for_another():
    assert at(6).handle(1, Proposal(ONE)) == [Accuse(1, Fault.IMPERSONATED)]


@pytest.mark.parametrize("stray", [echo(2, ONE), certificate(ONE, range(5)), report(0, 1, 2, 3, 4)])
def test_words_of_other_protocols_are_out_of_turn(stray):
    for broadcast in (at(6), holding()):
        assert broadcast.handle(2, stray) == [Accuse(2, Fault.OUT_OF_TURN)]
        assert broadcast.handle(2, stray) == []


def test_a_vector_that_is_not_finite_is_its_origins_fault():
    broadcast = at(6)
    assert broadcast.unusable(A) == []
    broadcast.handle(0, Proposal(ONE))
    assert broadcast.unusable(B) == []
    assert broadcast.unusable(A) == [Accuse(0, Fault.MALFORMED)]
    assert broadcast.unusable(A) == []


def test_an_origin_says_again_what_a_lost_link_may_have_swallowed():
    origin = at(0)
    assert origin.resume(1) == []
    origin.start(A)
    proposal = [Stream(ONE.header, 1), Send(1, Proposal(ONE)), Send(1, DigestEcho(ONE))]
    assert origin.resume(1) == proposal
    hear(origin, [1, 2, 3, 4], DigestEcho(ONE))
    assert origin.resume(1) == [*proposal, Send(1, ready(ONE))]
    hear(origin, [1, 2, 3, 4], ready(ONE))
    assert origin.done
    assert origin.resume(1) == [*proposal, Send(1, ready(ONE))]


def test_a_member_says_its_echo_and_its_ready_again():
    broadcast = at(6)
    broadcast.handle(0, Proposal(ONE))
    assert broadcast.resume(1) == []
    broadcast.arrived(A)
    assert broadcast.resume(1) == [Send(1, DigestEcho(ONE))]
    hear(broadcast, [1, 2, 3], ready(ONE))
    assert broadcast.resume(1) == [Send(1, DigestEcho(ONE)), Send(1, ready(ONE))]


def test_missing_bytes_are_asked_for_again_of_whoever_is_back():
    broadcast = at(6)
    hear(broadcast, range(5), ready(ONE))
    assert broadcast.resume(5) == [Send(5, ready(ONE)), Fetch(ONE.header, (5,))]
    broadcast.arrived(A)
    assert broadcast.resume(5) == [Send(5, ready(ONE))]


def test_totality_who_was_ready_before_a_crash_says_so_on_the_first_word_and_counts():
    before = at(6)
    hear(before, [1, 2, 3], ready(ONE))
    after = at(6, before)
    assert after.handle(5, DigestEcho(OTHER)) == [I_AM_READY, Expect(OTHER.header)]
    assert hear(after, [1, 2, 3], ready(ONE)) == []
    assert after.handle(4, ready(ONE)) == [Fetch(ONE.header, (0, 1, 2, 3, 4, 5))]


def test_consistency_who_was_ready_before_a_crash_is_never_ready_for_another_digest():
    before = at(6)
    hear(before, [1, 2, 3], ready(ONE))
    for words in (DigestEcho(OTHER), ready(OTHER)):
        said = hear(at(6, before), range(6), words)
        assert [effect for effect in said if isinstance(getattr(effect, "message", None), Ready)] == [I_AM_READY]


def test_who_may_not_be_ready_any_more_still_delivers_what_others_are_ready_for():
    broadcast = at(6)
    broadcast.party.signer.promise = lambda claim: False
    assert hear(broadcast, [1, 2, 3, 4], ready(ONE)) == []
    assert broadcast.handle(5, ready(ONE)) == [Fetch(ONE.header, (0, 1, 2, 3, 4, 5))]


def test_readiness_is_promised_for_the_step_origin_and_slot():
    promised = []
    broadcast = Reliable(party(6, n=7, f=2), Slot(3, 1, 2), 0)
    broadcast.party.signer.promise = lambda claim: not promised.append(claim)
    hear(broadcast, [1, 2, 3], ready(signed(0, A, Slot(3, 1, 2))))
    assert promised == [Claim(3, "ready 0 3 1 2", A)]


def test_an_origin_that_restarts_delivers_what_others_were_ready_for_before_it_started():
    origin = at(0)
    assert hear(origin, [1, 2, 3], ready(ONE)) == [I_AM_READY]
    assert origin.handle(4, ready(ONE)) == [Fetch(ONE.header, (1, 2, 3, 4, 5, 6))]
    assert origin.start(A) == [*PROPOSED, Deliver(ONE.header)]
    assert origin.done


def test_an_origin_is_not_stopped_by_its_own_words_from_before_a_crash():
    origin = at(0)
    assert origin.handle(1, DigestEcho(ONE)) == origin.handle(2, Sighting(ONE)) == []
    assert origin.start(A) == PROPOSED
    assert hear(origin, [2, 3], DigestEcho(ONE)) == []
    assert origin.handle(4, DigestEcho(ONE)) == [I_AM_READY]


def test_an_origin_that_lost_its_vector_learns_from_others_what_it_proposed():
    before = at(0)
    before.start(A)
    after = at(0, before)
    assert after.start(B) == []
    assert after.handle(1, DigestEcho(ONE)) == [Expect(ONE.header)]
    assert after.arrived(A) == [I_ECHO]
    assert hear(after, [2, 3, 4], DigestEcho(ONE)) == [I_AM_READY]
    assert hear(after, [1, 2, 3, 4], ready(ONE)) == [Deliver(ONE.header)]
