from fractions import Fraction
from itertools import combinations_with_replacement, product
from math import inf

import pytest

from protocols.committee import MEMBERS_MAX, Committee, sub_rounds
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


TABLE = [
    (1, 4, "1", "1"),
    (1, 5, "1", "1/2"),
    (1, 6, "2/3", "1/3"),
    (1, 7, "1/2", "1/4"),
    (2, 7, "1", "1"),
    (2, 8, "1", "1"),
    (2, 9, "1", "2/3"),
    (2, 10, "1", "1/2"),
    (2, 11, "4/5", "2/5"),
]


@pytest.mark.parametrize(("f", "n", "equivocating", "consistent"), TABLE)
def test_the_contraction_is_the_worst_that_an_adversary_of_schedule_and_values_can_do(f, n, equivocating, consistent):
    committee = Committee(n, f)
    assert worst_spread(n, f, consistent=False) == Fraction(equivocating)
    assert worst_spread(n, f, consistent=True) == Fraction(consistent)
    # An output is never outside of the honest values, so a formula above 1 means that nothing is gained.
    assert min(1, committee.trimmed_mean_contraction(consistent=False)) == Fraction(equivocating)
    assert min(1, committee.trimmed_mean_contraction(consistent=True)) == Fraction(consistent)


def test_nothing_is_averaged_up_to_3f():
    assert Committee(3, 1).trimmed_mean_contraction(consistent=True) is None
    assert Committee(4, 1).trimmed_mean_contraction(consistent=True) == 1


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
