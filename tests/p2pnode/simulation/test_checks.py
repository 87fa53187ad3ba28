"""Every check names its breach, and lets the nearest correct thing pass."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from p2pnode.node import DEFERRED_MAX
from p2pnode.simulation.checks import Checks, Violation, diameter
from protocols.effects import Accuse, Certificate, DigestEcho, Gathered, Proposal, Ready
from protocols.faults import Equivocation, Fault
from protocols.header import PeerId, Slot
from tests.ideal import JUNK, NETWORK, certificate, digest, echo, proof, signed, verify
from tests.scenarios import scenario

A, B = digest("a"), digest("b")
SLOT, NEXT = Slot(0), Slot(1)
LIAR = PeerId(3)


def checks(recipe="jungle-rb", **chosen):
    """n=4 and f=1 unless chosen otherwise; the last of them lies."""
    return Checks(scenario(recipe, ("silent",), **chosen), NETWORK, verify)


@contextmanager
def breaks(guarantee):
    """What is done in it must break this guarantee, and no other."""
    with pytest.raises(Violation, match=f"^{guarantee}: ") as caught:
        yield
    assert caught.value.guarantee == guarantee


def gathered(values, slot=SLOT):
    """member → digest"""
    return Gathered(slot, tuple((PeerId(member), named) for member, named in sorted(values.items())))


def of(*members, slot=SLOT):
    """Each with a value of its own."""
    return gathered({member: digest(member) for member in members}, slot)


def row(*numbers):
    return np.array(numbers, np.float32)


# What one says, one never says otherwise.


@pytest.mark.parametrize(
    ("word", "other", "elsewhere"),
    [
        (Proposal(signed(0, A)), Proposal(signed(0, B)), Proposal(signed(0, B, NEXT))),
        (DigestEcho(signed(1, A)), DigestEcho(signed(1, B)), DigestEcho(signed(2, B))),
        (echo(0, signed(1, A)), echo(0, signed(1, B)), echo(0, signed(1, B, NEXT))),
        (Ready(SLOT, PeerId(1), A), Ready(SLOT, PeerId(1), B), Ready(SLOT, PeerId(2), B)),
    ],
)
def test_a_word_that_contradicts_ones_own_is_inconsistent_over_any_crash(word, other, elsewhere):
    watching = checks()
    watching.has(PeerId(0), A)
    watching.has(PeerId(0), B)
    watching.said(PeerId(0), word)
    watching.said(PeerId(0), word)
    watching.said(PeerId(0), elsewhere)
    watching.restarted()
    with breaks("consistency"):
        watching.said(PeerId(0), other)


def test_another_members_proposal_that_is_passed_on_is_nobodys_contradiction():
    watching = checks()
    watching.said(PeerId(0), Proposal(signed(3, A)))
    watching.said(PeerId(0), Proposal(signed(3, B)))


def test_two_members_may_say_different_things():
    watching = checks()
    watching.said(PeerId(0), Ready(SLOT, LIAR, A))
    watching.said(PeerId(1), Ready(SLOT, LIAR, B))


# Whoever vouches for bytes holds them.


def test_an_echo_of_bytes_that_one_does_not_hold_breaks_availability():
    watching = checks()
    watching.has(PeerId(1), A)
    watching.said(PeerId(1), DigestEcho(signed(3, A)))
    with breaks("availability"):
        watching.said(PeerId(0), DigestEcho(signed(3, A)))


def test_a_certificate_names_only_honest_members_that_had_the_bytes():
    watching, value = checks("signed-echo"), signed(3, A)
    for member in (0, 1):
        watching.has(PeerId(member), A)
    watching.said(PeerId(0), certificate(value, (0, 1, 3)))  # a liar need hold nothing
    with breaks("availability"):
        watching.said(PeerId(0), certificate(value, (0, 1, 2)))


def test_what_an_honest_member_did_not_sign_says_nothing_of_it():
    watching, value = checks("signed-echo"), signed(3, A)
    watching.said(PeerId(0), Certificate(value, ((PeerId(0), JUNK), (PeerId(1), JUNK), (PeerId(2), JUNK))))


# Accusations.


def test_an_honest_member_is_never_accused():
    watching = checks()
    watching.accused(PeerId(0), Accuse(LIAR, Fault.MALFORMED))
    with breaks("innocence"):
        watching.accused(PeerId(0), Accuse(PeerId(1), Fault.MALFORMED))


def test_evidence_must_convince_a_third_party():
    watching = checks()
    watching.accused(PeerId(0), Accuse(LIAR, Fault.EQUIVOCATED, proof(signed(3, A), signed(3, B))))
    for nothing in (
        Equivocation(signed(3, A), signed(3, A)),
        proof(signed(3, A), signed(3, B, NEXT)),
        proof(signed(3, A), signed(2, B)),
    ):
        with breaks("evidence"):
            watching.accused(PeerId(0), Accuse(LIAR, Fault.EQUIVOCATED, nothing))


def test_who_is_convicted_anywhere_is_convicted_everywhere_once_nothing_is_under_way():
    watching, accusation = checks(), Accuse(LIAR, Fault.EQUIVOCATED, proof(signed(3, A), signed(3, B)))
    watching.told()
    for member in (0, 1):
        watching.accused(PeerId(member), accusation)
    watching.accused(PeerId(2), Accuse(LIAR, Fault.EQUIVOCATED))
    with breaks("evidence"):
        watching.told()
    watching.accused(PeerId(2), accusation)
    watching.told()


# What is mixed.


def test_fewer_values_than_a_quorum_are_not_mixed():
    watching = checks()
    watching.mixes(PeerId(0), of(0, 1, 2))
    with breaks("quorum"):
        watching.mixes(PeerId(1), of(0, 1))


def test_two_values_of_one_origin_are_not_mixed_where_broadcast_is_consistent():
    watching = checks("trimmed", nodes=5)
    watching.mixes(PeerId(0), gathered({0: A, 1: A, 2: A, 4: A}))
    watching.mixes(PeerId(1), gathered({0: A, 1: A, 2: A, 4: A}))
    watching.mixes(PeerId(0), of(0, 1, 2, 4, slot=NEXT))
    with breaks("consistency"):
        watching.mixes(PeerId(2), gathered({0: A, 1: A, 2: A, 4: B}))


def test_plain_broadcast_promises_no_consistency_of_a_liars_values():
    watching = checks("jungle-mda", nodes=7)
    watching.mixes(PeerId(0), gathered(dict.fromkeys(range(7), A)))
    watching.mixes(PeerId(1), gathered(dict.fromkeys(range(6), A) | {6: B}))


@pytest.mark.parametrize("recipe", ["jungle-rb", "jungle-mda"])
def test_an_honest_members_value_is_what_it_said(recipe):
    watching = checks(recipe, nodes=7)
    for slot in (SLOT, NEXT):
        watching.said(PeerId(1), Proposal(signed(1, A, slot)))
    watching.mixes(PeerId(0), gathered(dict.fromkeys(range(7), A)))
    with breaks("validity"):
        watching.mixes(PeerId(0), gathered(dict.fromkeys(range(7), A) | {1: B}, NEXT))


def test_any_two_members_share_a_quorum_of_witnessed_values():
    watching = checks()
    watching.mixes(PeerId(0), of(0, 1, 2))
    watching.mixes(PeerId(1), of(0, 1, 2, 3))
    watching.mixes(PeerId(2), of(1, 2, 3, slot=NEXT))
    with breaks("witness"):
        watching.mixes(PeerId(2), of(1, 2, 3))


def test_who_restarted_may_have_forgotten_its_witnesses():
    watching = checks()
    watching.restarted()
    watching.mixes(PeerId(0), of(0, 1, 2))
    watching.mixes(PeerId(2), of(1, 2, 3))


def test_without_a_total_broadcast_nobody_is_promised_witnesses():
    watching = checks("trimmed", nodes=5)
    watching.mixes(PeerId(0), of(0, 1, 2, 3))
    watching.mixes(PeerId(1), of(1, 2, 3, 4))


# What comes out of it.


def mixes_to(watching, me, rows, outcome, slot=SLOT):
    """member → row"""
    watching.mixed(PeerId(me), of(*rows, slot=slot), [rows[member] for member in sorted(rows)], outcome)


def other_rules():
    return [("trimmed", {"nodes": 5}), ("monna", {"nodes": 6, "rule": "median"})]


@pytest.mark.parametrize(("recipe", "chosen"), other_rules())
def test_trimmed_mean_and_median_stay_in_the_range_of_the_honest_rows(recipe, chosen):
    liar = chosen["nodes"] - 1
    rows = {0: row(0, 5), 1: row(1, 6), 2: row(2, 7), liar: row(9, 9)}
    mixes_to(checks(recipe, **chosen), 0, rows, row(2, 5))
    for outside in (row(2.1, 6), row(-0.1, 6), row(1, 7.1), row(1, 4.9)):
        with breaks("validity"):
            mixes_to(checks(recipe, **chosen), 0, rows, outside)


def test_rounding_is_no_breach():
    rows = {0: row(1), 1: row(1), 2: row(1), 4: row(0)}
    mixes_to(checks("trimmed", nodes=5), 0, rows, row(np.nextafter(np.float32(1), np.float32(2))))


def test_a_mean_may_go_anywhere():
    beyond = checks("dsgd", f=1, beyond_the_bound=True)
    mixes_to(beyond, 0, {0: row(0), 1: row(1), 2: row(1), 3: row(1e6)}, row(2.5e5))


def test_more_liars_than_f_may_move_it_anywhere():
    rows, outcome = {0: row(0), 1: row(1), 2: row(0), 4: row(9)}, row(9)
    mixes_to(checks("trimmed", nodes=5, byzantine=2, beyond_the_bound=True), 0, rows, outcome)
    with breaks("validity"):
        mixes_to(checks("trimmed", nodes=5), 0, rows, outcome)


def test_nearest_neighbour_averaging_goes_no_further_than_the_furthest_honest_row():
    rows = {0: row(0, 0), 1: row(3, 4), 2: row(1, 0), 5: row(100, 0)}
    mixes_to(checks("monna", nodes=6), 0, rows, row(5, 0))  # outside the range of coordinate 0, and within reach
    with breaks("validity"):
        mixes_to(checks("monna", nodes=6), 0, rows, row(5.1, 0))
    with breaks("validity"):
        mixes_to(checks("monna", nodes=6), 2, rows, row(5.6, 0))  # 4.47 from its own to the furthest


def test_who_lost_its_own_row_mixes_by_the_median_and_so_stays_in_range():
    rows = {1: row(0), 2: row(1), 3: row(1), 5: row(9)}
    mixes_to(checks("monna", nodes=6), 0, rows, row(1))
    with breaks("validity"):
        mixes_to(checks("monna", nodes=6), 0, rows, row(1.5))


def test_minimum_diameter_averaging_stays_within_the_honest_diameter_of_an_honest_row():
    rows = {0: row(0, 0), 1: row(3, 4), 2: row(1, 0), 6: row(100, 0)}
    mixes_to(checks("jungle-mda", nodes=7), 0, rows, row(6, 0))  # 5 from the row (1, 0)
    with breaks("validity"):
        mixes_to(checks("jungle-mda", nodes=7), 0, rows, row(6.1, 0))


# Agreement.


def agree(watching, before, after, slot=SLOT):
    """All honest members propose and mix; the liar says nothing."""
    for member, vector in enumerate(before):
        watching.proposed(PeerId(member), slot, vector)
    rows = dict(enumerate(before))
    for member, vector in enumerate(after):
        mixes_to(watching, member, rows, vector, slot)


def test_trimmed_mean_halves_the_honest_spread_of_each_coordinate_at_n4_f1_over_reliable():
    before = [row(0, 0), row(1, 10), row(1, 10)]
    agree(checks(), before, [row(0, 0), row(0.5, 5), row(0, 5)])
    for after in ([row(0, 0), row(0.51, 0), row(0, 0)], [row(0, 0), row(0, 5.1), row(0, 0)]):
        with breaks("agreement"):
            agree(checks(), before, after)


def test_nearest_neighbour_averaging_leaves_three_quarters_of_the_diameter_at_n6_f1():
    before = [row(0, 0), row(3, 4), *[row(0, 0)] * 3]
    agree(checks("monna", nodes=6), before, [row(0, 0), row(0, 3.75), *[row(0, 0)] * 3])
    with breaks("agreement"):
        agree(checks("monna", nodes=6), before, [row(0, 0), row(0, 3.8), *[row(0, 0)] * 3])


def test_a_diameter_is_judged_though_all_are_near_the_first():
    before = [row(0, 0), row(0, 4), *[row(0, 0)] * 3]
    agree(checks("monna", nodes=6), before, [row(0, 2), row(0, 0.5), row(0, 3.5), *[row(0, 2)] * 2])
    with breaks("agreement"):
        agree(checks("monna", nodes=6), before, [row(0, 2), row(0, 0.4), row(0, 3.5), *[row(0, 2)] * 2])


def test_a_diameter_is_of_all_coordinates_and_exact_far_from_zero():
    vectors = np.random.default_rng(0).normal(size=(5, 40_000)).astype(np.float32)
    for some in (vectors, 1000 + vectors, vectors[:1]):
        pairs = [float(np.linalg.norm(a.astype(np.float64) - b)) for a in some for b in some]
        assert diameter(some) == pytest.approx(max(pairs), rel=1e-12)


def test_vectors_of_slots_that_are_judged_are_kept_no_longer():
    for watching in (checks(), checks("dsgd", f=0, byzantine=0)):
        for slot in (SLOT, NEXT):
            agree(watching, [row(0), row(1), row(1)], [row(0.5), row(0.5), row(0.5)], slot)
        assert not watching._inputs
        assert not watching._outputs


def test_agreement_is_judged_once_the_last_honest_member_has_mixed():
    watching, before = checks(), [row(0), row(1), row(1)]
    agree(watching, before, [row(0), row(1)])
    with breaks("agreement"):
        mixes_to(watching, 2, dict(enumerate(before)), row(0))


def test_who_restarted_may_have_mixed_something_else():
    watching = checks()
    watching.restarted()
    agree(watching, [row(0), row(1), row(1)], [row(0), row(1), row(1)])


def test_where_no_theorem_promises_it_nobody_need_agree():
    median = checks("trimmed", rule="median", nodes=6)
    agree(median, [row(0), row(1), *[row(1)] * 3], [row(0), row(1), *[row(1)] * 3])


# A broadcast alone.


@pytest.mark.parametrize("kind", ["signed-echo", "reliable"])
def test_two_members_never_deliver_different_digests(kind):
    watching = checks(kind)
    watching.delivered(PeerId(0), A)
    watching.delivered(PeerId(1), A)
    with breaks("consistency"):
        watching.delivered(PeerId(2), B)


def test_by_plain_broadcast_they_may():
    watching = checks("plain")
    watching.delivered(PeerId(0), A)
    watching.delivered(PeerId(1), B)


@pytest.mark.parametrize("kind", ["plain", "signed-echo", "reliable"])
def test_what_is_delivered_is_what_an_honest_origin_said(kind):
    watching = checks(kind)
    watching.said(PeerId(0), Proposal(signed(0, A)))
    watching.delivered(PeerId(1), A)
    with breaks("validity"):
        watching.delivered(PeerId(1), B)


HONEST = {PeerId(0), PeerId(1), PeerId(2)}


def test_every_honest_member_finishes():
    checks().ended(HONEST, None)
    with breaks("liveness"):
        checks().ended(HONEST - {2}, None)


@pytest.mark.parametrize("kind", ["plain", "signed-echo", "reliable"])
def test_an_honest_origins_broadcast_reaches_everyone(kind):
    checks(kind).ended(HONEST, PeerId(0))
    with breaks("liveness"):
        checks(kind).ended(HONEST - {1}, PeerId(0))


def test_a_liars_reliable_broadcast_reaches_all_or_none():
    checks().ended(HONEST, LIAR)
    checks("reliable").ended(set(), LIAR)
    with breaks("totality"):
        checks("reliable").ended({PeerId(0)}, LIAR)


def test_who_restarted_may_have_forgotten_what_it_delivered():
    watching = checks("reliable")
    watching.restarted()
    watching.ended({PeerId(0)}, LIAR)


@pytest.mark.parametrize("kind", ["plain", "signed-echo"])
def test_a_liars_other_broadcasts_may_reach_some(kind):
    checks(kind).ended({PeerId(0)}, LIAR)


# Memory.


def keeping(agreements=0, deferred=0, vectors=0):
    node = SimpleNamespace(footprint=(agreements, deferred), retained=3)
    return SimpleNamespace(member=PeerId(0), node=node, vectors=range(vectors))


def test_memory_is_bounded_by_n_and_the_steps_retained():
    watching = checks("jungle-rb", sub_rounds=1)
    most = {"agreements": 5 * 2, "deferred": DEFERRED_MAX, "vectors": 3 * 4 * 5 * 2}
    watching.bounded(keeping(**most))
    for what in most:
        with breaks("memory"):
            watching.bounded(keeping(**most | {what: most[what] + 1}))
