"""The same rules in ByzFL 0.0.11, where it is installed: equal, or different for a reason that is shown."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from p2pnode.aggregation import aggregate
from tests.p2pnode.aggregation.test_centred import excess

byzfl = pytest.importorskip("byzfl")

INPUTS = 100


def inputs(*, lies=True):
    """Rows, f, and own row: sizes that every rule takes, half of them with f far ones."""
    rng = np.random.default_rng(0)
    for turn in range(INPUTS):
        f = int(rng.integers(1, 4))
        q = 4 * f + 3 + int(rng.integers(0, 3))
        rows = rng.normal(size=(q, int(rng.integers(2, 7)))) + rng.normal()
        if lies and turn % 2:
            rows[:f] += 30 * rng.normal(size=(f, 1))
        yield rows, f, int(rng.integers(q))


def ours(name, rows, f, **given):
    return aggregate(name, torch.from_numpy(rows), f=f, **given).numpy()


@dataclass(frozen=True)
class Pair:
    """Ours and theirs, as functions of rows, f and own row."""

    ours: str | Callable
    theirs: Callable


EQUAL = {
    "Average": Pair("average", lambda rows, f, own: byzfl.Average()(rows)),
    "Median": Pair("median", lambda rows, f, own: byzfl.Median()(rows)),
    "TrMean": Pair("trmean", lambda rows, f, own: byzfl.TrMean(f)(rows)),
    "Meamed": Pair("meamed", lambda rows, f, own: byzfl.Meamed(f)(rows)),
    "MDA": Pair("mda", lambda rows, f, own: byzfl.MDA(f)(rows)),
    "MoNNA": Pair("monna", lambda rows, f, own: byzfl.MoNNA(f, own)(rows)),
    "CenteredClipping, from zero": Pair(
        lambda rows, f, own: ours("centeredclipping=1.5,3", rows, f, centre=torch.zeros(rows.shape[1]).double()),
        lambda rows, f, own: byzfl.CenteredClipping(L=3, tau=1.5)(rows),
    ),
    "Clipping, Average": Pair("clipping=1.5+average", lambda rows, f, own: byzfl.Clipping(1.5)(rows.copy()).mean(0)),
    "ARC, Average": Pair("arc+average", lambda rows, f, own: byzfl.ARC(f)(rows.copy()).mean(0)),
    "NNM, TrMean": Pair("nnm+trmean", lambda rows, f, own: byzfl.TrMean(f)(byzfl.NNM(f)(rows))),
    "ARC, NNM, Median": Pair(
        "arc+nnm+median", lambda rows, f, own: byzfl.Median()(byzfl.NNM(f)(byzfl.ARC(f)(rows.copy())))
    ),
    "Bucketing of 1, Median": Pair("bucketing=1+median", lambda rows, f, own: byzfl.Median()(byzfl.Bucketing(1)(rows))),
}


@pytest.mark.parametrize("name", EQUAL)
def test_it_is_equal(name):
    pair = EQUAL[name]
    for rows, f, own in inputs():
        mixture = pair.ours(rows, f, own) if callable(pair.ours) else ours(pair.ours, rows, f, own=own)
        assert np.allclose(mixture, pair.theirs(rows, f, own), rtol=1e-9, atol=1e-9)


def differences(name, theirs):
    """How many of the inputs they answer otherwise."""
    return sum(not np.allclose(ours(name, rows, f), theirs(rows, f), atol=1e-9) for rows, f, _ in inputs())


def by_score(rows, f, neighbours, count):
    apart = np.sort(((rows[:, None] - rows) ** 2).sum(2), axis=1)
    best = np.argsort(apart[:, 1 : 1 + neighbours].sum(1))[:count]
    return rows[best].mean(0)


@pytest.mark.parametrize(("theirs", "name", "count"), [("Krum", "krum", 1), ("MultiKrum", "multi-krum", None)])
def test_krum_has_one_neighbour_more_there_and_multi_krum_averages_two_more(theirs, name, count):
    """q−f−1 for q−f−2 neighbours; q−f for at most q−f−2 averaged. Otherwise it is the same."""
    other = getattr(byzfl, theirs)
    for rows, f, _ in inputs():
        honest = len(rows) - f
        assert np.allclose(other(f)(rows), by_score(rows, f, honest - 1, count or honest))
        assert np.allclose(ours(name, rows, f), by_score(rows, f, honest - 2, count or honest - 2))
    assert differences(name, lambda rows, f: other(f)(rows)) > INPUTS / 10


def test_the_geometric_median_there_stops_early():
    """Three steps from zero, with distances of at least 0.1; with more and less of that it comes to ours."""
    for turn, (rows, f, _) in enumerate(inputs()):
        out = ours("gm", rows, f)
        assert excess(rows, out) < 1e-6
        assert turn % 5 or np.allclose(byzfl.GeometricMedian(nu=1e-12, T=3000)(rows), out, atol=1e-5)
    assert differences("gm", lambda rows, f: byzfl.GeometricMedian()(rows)) == INPUTS
    rows = np.random.default_rng(0).normal(size=(9, 3)) + 1e3 * np.eye(9, 3)
    assert excess(rows, byzfl.GeometricMedian()(rows)) > 1e-3


def test_the_geometric_median_there_drops_infinity_but_not_nan():
    rows = np.random.default_rng(0).normal(size=(7, 3))
    rows[0, 0] = np.nan
    assert np.isnan(byzfl.GeometricMedian()(rows)).any()
    assert np.isfinite(ours("gm", rows, 1)).all()


def test_the_centre_of_clipping_there_is_zero_and_then_the_last_outcome():
    rows = np.full((5, 3), 1e3)
    rule = byzfl.CenteredClipping()
    first, second = rule(rows), rule(rows)
    assert not np.allclose(first, second)
    assert np.allclose(ours("centeredclipping", rows, 1), rows[0])


def test_the_filter_there_finds_no_top_eigenvector_and_nothing_where_nobody_lies():
    """One power iteration from a vector of chance: another answer each time. Exact eigenvectors give one answer."""
    rows = next(inputs())[0]
    assert byzfl.CAF(0)(rows) is None
    assert np.allclose(ours("caf", rows, 0), rows.mean(0))
    np.random.seed(0)
    assert len({tuple(byzfl.CAF(3)(rows).round(9)) for _ in range(20)}) > 1
    assert len({tuple(ours("caf", rows, 3)) for _ in range(20)}) == 1


def test_the_eigenvalue_rule_there_compares_estimates_of_one_power_iteration():
    """Where only one subset is without lies far out, both find it; else theirs takes any."""
    rng = np.random.default_rng(0)
    np.random.seed(0)
    for _ in range(20):
        rows = rng.normal(size=(9, 4))
        rows[:2] += 1e4 * np.eye(2, 4)
        assert np.allclose(byzfl.SMEA(2)(rows), ours("smea", rows, 2))
    rows = rng.normal(size=(9, 4))
    assert len({tuple(byzfl.SMEA(2)(rows).round(9)) for _ in range(20)}) > 1
    assert len({tuple(ours("smea", rows, 2)) for _ in range(20)}) == 1


def test_buckets_there_are_other_ones_of_the_same_sizes():
    """Dealt out by NumPy's global state there, by a seed that is given here."""
    rows = np.random.default_rng(0).normal(size=(8, 3))
    np.random.seed(0)
    theirs = {tuple(byzfl.Bucketing(2)(rows).mean(0).round(9)) for _ in range(5)}
    here = {tuple(ours("bucketing=2+average", rows, 0, seed=seed).round(9)) for seed in range(5)}
    assert theirs == here == {tuple(rows.mean(0).round(9))}
    assert len({tuple(ours("bucketing=2+median", rows, 0, seed=seed)) for seed in range(5)}) > 1
