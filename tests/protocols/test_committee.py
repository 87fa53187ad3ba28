from fractions import Fraction
from itertools import combinations, combinations_with_replacement, product
from math import dist, inf
from random import Random

import pytest

from protocols import committee as theorems
from protocols.committee import MEMBERS_MAX, Bound, Committee, precision, sub_rounds
from protocols.errors import UsageError

COMMITTEES = [Committee(n, f) for n in range(1, 40) for f in range(n)]


@pytest.mark.parametrize(("n", "f"), [(0, 0), (1, 1), (4, 5), (4, -1), (MEMBERS_MAX + 1, 1)])
def test_an_impossible_committee_is_refused(n, f):
    with pytest.raises(UsageError, match=f"n={n}, f={f}"):
        Committee(n, f)


def test_members_are_named_by_their_index():
    assert Committee(3, 0).members == (0, 1, 2)


def test_any_two_echo_quorums_share_an_honest_member_and_no_smaller_ones_need_to():
    for committee in COMMITTEES:
        assert 2 * committee.echo_quorum - committee.n >= committee.f + 1
        assert 2 * (committee.echo_quorum - 1) - committee.n < committee.f + 1


def test_the_honest_alone_fill_an_echo_quorum_from_3f_plus_1_on():
    for committee in COMMITTEES:
        assert committee.gather_quorum == committee.n - committee.f
        assert committee.echo_broadcast_lives == (committee.n >= 3 * committee.f + 1)
        assert committee.echo_broadcast_lives == theorems.SIGNED_ECHO_BROADCAST.covers(committee)


def test_one_honest_member_is_among_so_many_and_need_not_be_among_fewer():
    for committee in COMMITTEES:
        assert committee.one_honest - committee.f >= 1
        assert committee.one_honest - 1 - committee.f < 1


def test_the_honest_part_of_a_ready_quorum_makes_everyone_ready_and_that_of_a_smaller_one_need_not():
    for committee in COMMITTEES:
        assert committee.ready_quorum - committee.f >= committee.one_honest
        assert committee.ready_quorum - 1 - committee.f < committee.one_honest


def test_from_3f_plus_1_on_the_honest_alone_fill_every_quorum_and_enough_echoers_and_witnesses_are_honest():
    for committee in COMMITTEES:
        quorums = max(committee.echo_quorum, committee.ready_quorum)
        lives = theorems.RELIABLE_BROADCAST.covers(committee)
        assert (committee.gather_quorum >= quorums) == lives == (committee.n >= 3 * committee.f + 1)
        if lives:
            assert committee.echo_quorum - committee.f >= committee.one_honest
            assert 2 * committee.gather_quorum - committee.n >= committee.one_honest


def test_quorums_of_small_committees():
    quorums = {
        (n, f): (c.echo_quorum, c.gather_quorum, c.one_honest, c.ready_quorum)
        for n, f in [(1, 0), (4, 0), (4, 1), (5, 1), (7, 2), (10, 3), (1024, 341)]
        for c in [Committee(n, f)]
    }
    assert quorums == {
        (1, 0): (1, 1, 1, 1),
        (4, 0): (3, 4, 1, 1),
        (4, 1): (3, 3, 2, 3),
        (5, 1): (4, 4, 2, 3),
        (7, 2): (5, 5, 3, 5),
        (10, 3): (7, 7, 4, 7),
        (1024, 341): (683, 683, 342, 683),
    }


TABLE = [
    (1, 4, "1", "1", "1/2"),
    (1, 5, "1", "1/2", "1/3"),
    (1, 6, "2/3", "1/3", "1/4"),
    (1, 7, "1/2", "1/4", "1/5"),
    (2, 7, "1", "1", "2/3"),
    (2, 8, "1", "1", "1/2"),
    (2, 9, "1", "2/3", "2/5"),
    (2, 10, "1", "1/2", "1/3"),
    (2, 11, "4/5", "2/5", "2/7"),
]


@pytest.mark.parametrize(("f", "n", "equivocating", "consistent", "shared"), TABLE)
def test_the_contraction_is_the_worst_that_an_adversary_of_schedule_and_values_can_do(
    f, n, equivocating, consistent, shared
):
    committee = Committee(n, f)
    assert worst_spread_where_n_minus_f_are_shared(n, f) == Fraction(shared)
    assert committee.trimmed_mean_contraction(consistent=True, total=True) == Fraction(shared)
    assert worst_spread(n, f, consistent=False) == Fraction(equivocating)
    assert worst_spread(n, f, consistent=True) == Fraction(consistent)
    # An output is never outside of the honest values, so a formula above 1 means that nothing is gained.
    assert min(1, committee.trimmed_mean_contraction(consistent=False)) == Fraction(equivocating)
    assert min(1, committee.trimmed_mean_contraction(consistent=True)) == Fraction(consistent)


@pytest.mark.parametrize(("f", "n", "r"), [(1, 6, 1), (1, 7, 2), (1, 8, 2), (1, 9, 3), (2, 9, 2), (0, 5, 1), (0, 6, 2)])
def test_the_contraction_where_r_are_not_waited_for_is_the_worst_there_is(f, n, r):
    assert worst_spread_where_r_are_absent(n, f, r) == Committee(n, f).trimmed_mean_contraction(
        consistent=True, absent=r
    )


def test_of_other_quorums_nothing_is_known_where_liars_equivocate():
    assert Committee(9, 1).trimmed_mean_contraction(consistent=False, absent=2) is None
    assert Committee(9, 1).trimmed_mean_contraction(consistent=True, absent=7) is None
    assert Committee(9, 1).trimmed_mean_contraction(consistent=True, absent=0) == 0, "all mix the same"


def test_nothing_is_averaged_up_to_3f():
    assert Committee(3, 1).trimmed_mean_contraction(consistent=True) is None
    assert Committee(4, 1).trimmed_mean_contraction(consistent=True) == 1
    assert Committee(2, 1).trimmed_mean_contraction(consistent=True, total=True) is None
    assert Committee(3, 1).trimmed_mean_contraction(consistent=True, total=True) == 1


def test_contractions_by_distance_have_the_closed_forms_of_their_sources():
    for committee in COMMITTEES:
        n, f = committee.n, committee.f
        if n <= 2 * f:
            assert committee.minimum_diameter_contraction is None
            assert committee.nearest_neighbour_contraction(consistent=True) is None
            assert committee.nearest_neighbour_contraction(consistent=False) is None
            continue
        jungle = Fraction(n - 6 * f, n + 2 * f)
        assert committee.minimum_diameter_contraction == 1 - 2 * jungle / (1 + jungle)
        assert committee.nearest_neighbour_contraction(consistent=True) * (n - 2 * f) == 3 * f
        assert committee.nearest_neighbour_contraction(consistent=False) * (n - 2 * f) == 5 * f
    assert Committee(7, 1).minimum_diameter_contraction == Fraction(4, 5)
    assert Committee(13, 2).minimum_diameter_contraction == Fraction(8, 9)
    assert Committee(6, 1).nearest_neighbour_contraction(consistent=True) == Fraction(3, 4)
    assert Committee(11, 1).nearest_neighbour_contraction(consistent=False) == Fraction(5, 9)


CONTRACTING = [
    (theorems.TRIMMED_MEAN_OVER_PLAIN, 5, lambda c: c.trimmed_mean_contraction(consistent=False)),
    (theorems.TRIMMED_MEAN_OVER_SIGNED_ECHO, 4, lambda c: c.trimmed_mean_contraction(consistent=True)),
    (theorems.TRIMMED_MEAN_OVER_RELIABLE, 3, lambda c: c.trimmed_mean_contraction(consistent=True, total=True)),
    (theorems.MINIMUM_DIAMETER, 6, lambda c: c.minimum_diameter_contraction),
    (theorems.NEAREST_NEIGHBOUR, 5, lambda c: c.nearest_neighbour_contraction(consistent=True)),
]


@pytest.mark.parametrize(("bound", "per_liar", "contraction"), CONTRACTING)
@pytest.mark.parametrize("f", [1, 2, 3, 4])
def test_honest_values_come_together_from_the_theorems_bound_on_and_not_below(bound, per_liar, contraction, f):
    assert bound.least(f) == per_liar * f + 1
    for n in range(f + 1, 15 * f):
        left = contraction(Committee(n, f))
        assert (left is not None and left < 1) == bound.covers(Committee(n, f)) == (n >= per_liar * f + 1)


@pytest.mark.parametrize("f", [1, 2, 3, 4])
def test_what_monna_asks_for_without_consistency_is_more_than_coming_together_needs(f):
    least = theorems.NEAREST_NEIGHBOUR_OVER_PLAIN.least(f)
    assert least == 11 * f
    assert Committee(least, f).nearest_neighbour_contraction(consistent=False) < 1


THEOREMS = {name: bound for name, bound in vars(theorems).items() if isinstance(bound, Bound)}


def test_every_theorem_has_its_bound_and_its_source():
    assert {name: str(bound) for name, bound in THEOREMS.items()} == {
        "NO_LIAR": "f = 0",
        "PLAIN_BROADCAST": "n ≥ f+1",
        "SIGNED_ECHO_BROADCAST": "n ≥ 3f+1",
        "RELIABLE_BROADCAST": "n ≥ 3f+1",
        "MEDIAN": "n ≥ 3f+3",
        "TRIMMED_MEAN_OVER_PLAIN": "n ≥ 5f+1",
        "TRIMMED_MEAN_OVER_SIGNED_ECHO": "n ≥ 4f+1",
        "TRIMMED_MEAN_OVER_RELIABLE": "n ≥ 3f+1",
        "MINIMUM_DIAMETER": "n ≥ 6f+1",
        "NEAREST_NEIGHBOUR_OVER_PLAIN": "n ≥ 11f",
        "NEAREST_NEIGHBOUR": "n ≥ 5f+1",
    }
    assert all(bound.source for bound in THEOREMS.values())


@pytest.mark.parametrize("bound", THEOREMS.values(), ids=THEOREMS)
def test_a_bound_covers_what_it_tolerates_and_nobody_needs_a_liar(bound):
    assert bound.least(0) == 1
    for n in range(1, 40):
        covered = [f for f in range(n) if bound.covers(Committee(n, f))]
        assert covered == list(range(bound.tolerated(n) + 1))
        assert covered == [f for f in range(n) if bound.least(f) is not None and bound.least(f) <= n]


def test_no_number_of_members_makes_up_for_one_liar_where_none_is_tolerated():
    assert theorems.NO_LIAR.least(1) is None
    assert theorems.NO_LIAR.tolerated(MEMBERS_MAX) == 0
    assert not theorems.NO_LIAR.covers(Committee(MEMBERS_MAX, 1))


def test_the_distortion_is_the_root_of_the_honest_less_one_rounded_up():
    for committee in COMMITTEES:
        honest = committee.n - committee.f
        assert committee.distortion == next(root for root in range(1, 100) if root**2 >= honest - 1)


@pytest.mark.parametrize("honest", [2, 3, 4, 7])
def test_a_box_around_the_honest_is_no_wider_than_the_distortion_times_their_diameter(honest):
    random = Random(honest)
    for dimensions in (1, 2, 5, 30):
        for scale in (0, 1, 5):
            points = [[random.gauss(0, 2 ** -(scale * i)) for i in range(dimensions)] for _ in range(honest)]
            diameter = max(dist(one, other) for one, other in combinations(points, 2))
            box = dist([min(column) for column in zip(*points, strict=True)], list(map(max, zip(*points, strict=True))))
            assert box <= Committee(honest, 0).distortion * diameter * (1 + 1e-9)


def test_the_precision_of_a_step_is_the_logarithm_of_its_number_rounded_up_and_at_least_one():
    for step in [*range(5000), 2**62 - 1, 2**62, 2**63 - 1]:
        assert precision(step) == next(number for number in range(1, 65) if 2**number >= step + 1)
    assert [precision(step) for step in range(9)] == [1, 1, 2, 2, 3, 3, 3, 3, 4]


def test_sub_rounds_are_the_fewest_that_bring_the_wanted_spread():
    for committee, consistent, wanted in product(COMMITTEES, (True, False), (Fraction(1, 2), Fraction(1, 100))):
        contraction = committee.trimmed_mean_contraction(consistent=consistent)
        if contraction is not None and contraction < Fraction(19, 20):
            rounds = sub_rounds(contraction, wanted)
            assert contraction**rounds <= wanted
            assert rounds == 1 or contraction ** (rounds - 1) > wanted


@pytest.mark.parametrize(("contraction", "wanted"), [(1, 0.5), (-1, 0.5), (0.5, 0), (0.5, 1)])
def test_no_number_of_sub_rounds_does_the_impossible(contraction, wanted):
    with pytest.raises(UsageError, match="contraction < 1"):
        sub_rounds(Fraction(contraction), Fraction(wanted))


def worst_spread(n, f, *, consistent):
    """Largest spread of two honest outputs, where the n−f honest values are 0 or 1, by enumeration."""
    worst = Fraction(0)
    lies = list(combinations_with_replacement((-inf, 0, 1, inf), f))
    for ones in range(1, n - f):
        everywhere = [outputs(n, f, ones, told) for told in lies]
        if not consistent:
            everywhere = [[(own, low, high) for each in everywhere for own, low, high in each]]
        for each in everywhere:
            for (one, low, _), (other, _, high) in product(each, each):
                if one != other or (ones if one else n - f - ones) > 1:  # not the same member
                    worst = max(worst, high - low)
    return worst


def worst_spread_where_n_minus_f_are_shared(n, f):
    """The same, where any two honest members hold the same value of each member, and n−f of them in common."""
    worst = Fraction(0)
    absent = [frozenset(missing) for size in range(f + 1) for missing in combinations(range(n), size)]
    pairs = [(one, other) for one, other in product(absent, absent) if len(one | other) <= f]
    for ones in range(1, n - f):
        for told in combinations_with_replacement((-inf, 0, 1, inf), f):
            values = [*[1] * ones, *[0] * (n - f - ones), *told]
            means = {missing: trimmed_mean(f, [values[i] for i in range(n) if i not in missing]) for missing in absent}
            worst = max(worst, *(means[one] - means[other] for one, other in pairs))
    return worst


def worst_spread_where_r_are_absent(n, f, r):
    """The same, where each member holds any n−r values or more, the same of each member."""
    worst = Fraction(0)
    for ones in range(1, n - f):
        for told in combinations_with_replacement((-inf, 0, 1, inf), f):
            values = [*[1] * ones, *[0] * (n - f - ones), *told]
            means = [
                trimmed_mean(f, [values[i] for i in range(n) if i not in missing])
                for size in range(r + 1)
                for missing in combinations(range(n), size)
            ]
            worst = max(worst, max(means) - min(means))
    return worst


def trimmed_mean(f, values):
    kept = sorted(values)[f : len(values) - f]
    return Fraction(sum(kept), len(kept))


def outputs(n, f, ones, told):
    """(own value, least, greatest trimmed mean) of an honest member, over all schedules, when liars tell it this."""
    out = []
    for own in (0, 1):
        zeros_there, ones_there = n - f - ones - (not own), ones - own
        means = []
        for mask in product((False, True), repeat=f):
            heard = [lie for lie, comes in zip(told, mask, strict=True) if comes]
            for count in range(n - f - len(heard)):
                rest = n - f - 1 - len(heard) - count
                if count <= ones_there and rest <= zeros_there:
                    kept = sorted([own, *heard, *[1] * count, *[0] * rest])[f : n - 2 * f]
                    means.append(Fraction(sum(kept), len(kept)))
        if means:
            out.append((own, min(means), max(means)))
    return out
