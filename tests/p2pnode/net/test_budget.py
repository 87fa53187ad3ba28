"""What a peer may say: more than any correct one does, and no more than time pays for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.codec import Want, encode
from p2pnode.joint import LENGTHS
from p2pnode.net.budget import KNOCKS_PER_S, KNOCKS_SAVED, Allowance, Bucket, Budget, Knocks, allowance
from p2pnode.node import RETAINED_STEPS_MAX
from p2pnode.recipe import RECIPES, choose
from p2pnode.simulation.network import Network
from p2pnode.simulation.sweep import Sweep
from protocols.committee import MEMBERS_MAX, Committee
from protocols.effects import Certificate, DigestEcho, Echo, Evidence, Proposal, Report
from protocols.faults import Equivocation
from protocols.header import LENGTH_MAX, STEP_MAX, Header, SignedHeader, Slot
from tests.ideal import digest, signed

charges = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 30)), max_size=80)


@settings(max_examples=150, deadline=None)
@given(rate=st.floats(0.5, 100), said=charges)
def test_who_waits_as_told_says_no_more_than_the_rate_and_a_second_saved_up(rate, said):
    bucket, now, total, last = Bucket(rate), 0.0, 0.0, 0.0
    for apart, amount in said:
        now += apart
        wait = bucket.charge(amount, now)
        total += amount
        last = max(last, amount)
        assert total <= rate * (now + 1) + last + 1e-6 * (1 + total)
        now += wait


def test_who_stays_below_never_waits_and_a_second_is_saved_up_but_not_two():
    bucket = Bucket(10.0)
    assert [bucket.charge(1.0, number / 10) for number in range(1000)] == [0.0] * 1000
    assert bucket.charge(10.0, 1000.0) == 0.0
    assert bucket.charge(5.0, 1000.0) == 0.5
    assert bucket.charge(5.0, 999.0) == 1.0, "a clock that goes back pays nothing"


def test_messages_bytes_and_vectors_are_owed_for_apart():
    budget = Budget(Allowance(2.0, 100.0, 1.0))
    assert budget.message(50, 0.0) == 0.0
    assert budget.message(150, 0.0) == 1.0
    assert budget.waste(0.0) == 0.0
    assert budget.waste(0.0) == 1.0
    assert budget.message(0, 10.0) == 0.0


LARGEST = SignedHeader(
    Header(b"\xff" * 32, MEMBERS_MAX - 1, Slot(STEP_MAX, 255, 65535), 255, LENGTH_MAX, b"\xff" * 32), b"\xff" * 64
)


def test_no_message_takes_more_bytes_than_it_is_reckoned_with():
    for n in (4, 1024):
        everyone = tuple((member, b"\xff" * 64) for member in range(n))
        assert 4 + len(encode(DigestEcho(LARGEST))) <= 192
        assert 4 + len(encode(Evidence(Equivocation(LARGEST, LARGEST)))) <= 364
        assert 4 + len(encode(Certificate(LARGEST, everyone))) <= 192 + 70 * n
        jointly = tuple((member, bytes(max(LENGTHS))) for member, _ in everyone)
        assert 4 + len(encode(Certificate(LARGEST, jointly))) <= 192 + 327 * n
        echo_, want = Echo(LARGEST.header.slot, n - 1, bytes(max(LENGTHS))), Want(LARGEST.header.slot, bytes(32), 2**42)
        assert 12 + sum(len(encode(word)) for word in (echo_, DigestEcho(LARGEST), want)) <= 3 * 196
        assert 4 + len(encode(Report(LARGEST.header.slot, tuple(range(n))))) <= 192 + 3 * n


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "dsgd"])
@pytest.mark.parametrize("n", [20, 100])
def test_the_whole_memory_of_a_peer_is_heard_at_once_after_an_outage(recipe, n):
    """All that a correct peer can say of as many steps as any retains, and the evidence against all."""
    committee = Committee(n, 2)
    plan, steps = choose(recipe, committee), 1000
    budget = Budget(allowance(plan, committee, steps))
    one = signed(0, digest("a"))
    jointly = bytes(max(LENGTHS))
    whole = len(encode(Certificate(one, tuple((member, jointly) for member in range(1, committee.echo_quorum)))))
    said, echoed, shown = (len(encode(word)) for word in (Proposal(one), Echo(Slot(0), 0, jointly), DigestEcho(one)))
    for _ in range(RETAINED_STEPS_MAX * plan.slots(steps)):
        slot = [said, whole, *[echoed, shown] * n, *[3 * n] * 2]
        assert max(budget.message(4 + nbytes, 0.0) for nbytes in slot) == 0.0
        assert budget.waste(0.0) == 0.0
    assert max(budget.message(364, 0.0) for _ in range(n)) == 0.0


@pytest.mark.parametrize("recipe", ["trimmed", "jungle-rb", "monna"])
def test_no_correct_peer_of_a_simulated_network_says_more_of_a_step_than_is_reckoned(recipe):
    """However links are lost and come up again; twice that much, if its link is replaced while it speaks."""
    n, steps, heard = 7, 3, {}

    def watch(delivery):
        if delivery.source != delivery.to:
            pair = (delivery.source, delivery.to)
            heard[pair] = heard.get(pair, 0) + 1

    for schedule in ("random", "isolate-one", "crash"):
        scenario = Sweep(n, 0, 1, recipe, ((),), (schedule,), steps).scenario(0)
        heard.clear()
        Network(scenario, 0, watch).run()
        allowed = allowance(scenario.recipe, scenario.committee, steps)
        a_step = allowed.messages / (RETAINED_STEPS_MAX + 2)
        assert max(heard.values()) <= 2 * steps * a_step


def test_an_address_that_knocks_all_the_time_is_admitted_at_its_rate_and_others_as_ever():
    knocks = Knocks(5)
    flood = sum(knocks.admits("10.0.0.1", number / 100) for number in range(10_000))
    assert KNOCKS_PER_S * 99 <= flood <= KNOCKS_PER_S * 100 + KNOCKS_SAVED + 8 * 5
    assert [knocks.admits("10.0.0.2", 100.0) for _ in range(5)] == [True] * 5


def test_what_one_may_choose_freely_makes_no_new_address():
    knocks = Knocks(0)
    assert sum(knocks.admits(f"2001:db8::{number:x}", 0.0) for number in range(1000)) == KNOCKS_SAVED
    assert knocks.admits("2001:db8:0:1::1", 0.0)
    assert knocks.admits("fe80::1%eth0", 0.0)
    assert sum(knocks.admits("::ffff:10.0.0.1", 0.0) for _ in range(1000)) == KNOCKS_SAVED
    assert knocks.admits("::ffff:10.0.0.2", 0.0)


def test_addresses_that_knocked_long_ago_are_forgotten():
    knocks = Knocks(0)
    for number in range(100_000):
        knocks.admits(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(knocks) == 1024
