"""What one honest member can prove, all can; and what proves nothing is its sender's fault."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.conviction import Convictions
from protocols.effects import Accuse, Broadcast, Evidence, Send
from protocols.faults import Equivocation, Fault
from protocols.header import SignedHeader, Slot
from tests.ideal import JUNK, digest, party, proof, signed

N = 5
LIAR, OTHER = 3, 4


def against(member, which=0):
    """One of many proofs that hold."""
    return proof(signed(member, digest("a", which)), signed(member, digest("b", which)))


def convictions(me=0, held=None, verified=None):
    us = party(me, N)

    def counting(member, statement, signature):
        verified.append(member)
        return us.verify(member, statement, signature)

    return Convictions(us if verified is None else replace(us, verify=counting), held)


NOTHING = [
    Equivocation(signed(LIAR, digest("a")), signed(LIAR, digest("a"))),
    Equivocation(against(LIAR).second, against(LIAR).first),
    proof(signed(LIAR, digest("a")), signed(LIAR, digest("b"), Slot(1))),
    proof(signed(LIAR, digest("a")), signed(OTHER, digest("b"))),
    proof(signed(LIAR, digest("a")), SignedHeader(signed(LIAR, digest("b")).header, JUNK)),
    proof(*(SignedHeader(signed(9, digest(value)).header, JUNK) for value in "ab")),
]


def test_what_one_found_is_told_to_all_once_and_to_who_comes_later():
    one = convictions()
    assert one.resume(1) == []
    assert one.found(against(LIAR)) == [Broadcast(Evidence(against(LIAR)))]
    assert one.found(against(LIAR)) == one.found(against(LIAR, 1)) == []
    assert one.found(against(OTHER)) == [Broadcast(Evidence(against(OTHER)))]
    for _ in range(2):
        assert one.resume(2) == [Send(2, Evidence(against(LIAR))), Send(2, Evidence(against(OTHER)))]


def test_what_one_is_shown_convicts_and_is_passed_on_once():
    one, word = convictions(), Evidence(against(LIAR))
    assert one.handle(1, word) == [
        Accuse(LIAR, Fault.EQUIVOCATED, against(LIAR)),
        Broadcast(word),
    ]
    assert one.handle(1, word) == one.handle(2, word) == one.handle(2, Evidence(against(LIAR, 1))) == []
    assert one.found(against(LIAR, 2)) == []
    assert one.held == {LIAR: against(LIAR)}


def test_what_one_held_before_a_restart_is_told_again_and_news_to_nobody_here():
    one = convictions(held={LIAR: against(LIAR)})
    assert one.handle(1, Evidence(against(LIAR))) == []
    assert one.resume(1) == [Send(1, Evidence(against(LIAR)))]


@pytest.mark.parametrize("nothing", NOTHING, ids=range(len(NOTHING)))
def test_a_proof_that_proves_nothing_is_its_senders_fault_and_goes_nowhere(nothing):
    one = convictions()
    assert one.handle(1, Evidence(nothing)) == [Accuse(1, Fault.MALFORMED)]
    assert one.held == {}
    assert one.resume(2) == []
    assert one.handle(2, Evidence(against(LIAR))) != [], "others are heard as before"


def test_who_showed_what_proves_nothing_is_not_listened_to_again_and_costs_no_more():
    verified = []
    one = convictions(verified=verified)
    one.handle(1, Evidence(NOTHING[4]))
    cost = len(verified)
    assert cost <= 2
    for which in range(100):
        assert one.handle(1, Evidence(against(OTHER, which))) == []
        assert one.handle(1, Evidence(NOTHING[4])) == []
    assert len(verified) == cost
    assert one.handle(2, Evidence(against(OTHER))) != []
    verified.clear()
    assert one.handle(2, Evidence(against(OTHER, 1))) == []
    assert verified == [], "of the convicted nothing more is looked at"


proofs = [against(member, which) for member in range(N) for which in range(3)]
words = st.sampled_from([*NOTHING, *proofs]).map(Evidence)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, N - 1), words), max_size=60))
def test_whatever_is_said_a_proof_a_member_is_held_and_each_of_them_holds(said):
    one, told = convictions(), []
    for sender, word in said:
        effects = one.handle(sender, word)
        told += [effect.message for effect in effects if isinstance(effect, Broadcast)]
        assert one.handle(sender, word) == []
    us = party(0, N)
    assert len(one.held) <= N
    assert all(kept.accused == member and kept.holds(us.network, us.verify) for member, kept in one.held.items())
    assert sorted(word.proof.accused for word in told) == sorted(one.held)
