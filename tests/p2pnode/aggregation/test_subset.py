import time
from itertools import combinations
from math import ceil, log2

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pnode.aggregation import aggregate, subset
from p2pnode.aggregation.coordinate import mean
from p2pnode.aggregation.distance import pairwise_squared_distances
from p2pnode.aggregation.points import Points
from p2pnode.aggregation.subset import tightest
from p2pnode.errors import ConfigError

EPS = torch.finfo(torch.float32).eps
VALUES = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e-45, 1e18, -1e18]), st.floats(-1e6, 1e6, width=32))
SCALES = [(1.0, 0.0), (2.0**60, 0.0), (2.0**-149, 0.0), (0.125, 1e6), (0.0625, -1e6)]


def minimum_diameter(vectors, f):
    return subset.minimum_diameter(Points(vectors), f).vector


def oracle(squared, f):
    """Of all subsets of q − f rows, which come in lexicographic order, the first of least diameter."""
    q = len(squared)
    return list(min(combinations(range(q), q - f), key=lambda rows: squared[np.ix_(rows, rows)].max()))


def exact_distances(vectors):
    wide = vectors.double().numpy().astype(np.longdouble)
    return ((wide[:, None] - wide[None]) ** 2).sum(-1)


def kept(vectors, f):
    return tightest(pairwise_squared_distances(vectors).numpy(), f)


def disjoint(q, size):
    """q rows at distance 1, but those within as many groups of `size` as there is room for at distance 2."""
    group = np.arange(q) // size
    squared = np.where((group[:, None] == group[None]) & (group < q // size), 2.0, 1.0)
    np.fill_diagonal(squared, 0)
    return squared


@st.composite
def grids(draw):
    """(q, d) float32 vectors whose distances float64 holds exactly, full of ties, and f < q."""
    shape = st.tuples(st.integers(1, 9), st.integers(1, 3))
    grid = draw(arrays(np.int8, shape, elements=st.integers(-3, 3)))
    scale, offset = draw(st.sampled_from(SCALES))
    vectors = torch.from_numpy(grid).double() * scale + offset
    assert torch.equal(vectors.float().double(), vectors)
    return vectors.float(), draw(st.integers(0, len(grid) - 1))


@st.composite
def graphs(draw):
    """Any symmetric (q, q) of few different numbers, a metric or not, and f < q."""
    q = draw(st.integers(1, 9))
    upper = np.triu(draw(arrays(np.int8, (q, q), elements=st.integers(0, draw(st.integers(1, 6))))), 1)
    return (upper + upper.T).astype(np.float64), draw(st.integers(0, q - 1))


@given(grids())
def test_it_averages_the_first_subset_of_least_diameter(case):
    vectors, f = case
    rows = oracle(exact_distances(vectors), f)
    assert kept(vectors, f) == rows
    assert torch.equal(minimum_diameter(vectors, f), mean(vectors[rows]))


@given(graphs())
def test_the_search_agrees_with_enumeration(case):
    squared, f = case
    assert tightest(squared, f) == oracle(squared, f)


@pytest.mark.parametrize("f", [4, 6, 8])
def test_the_search_agrees_with_enumeration_where_it_must_branch(f):
    rng = np.random.default_rng(f)
    for values in (3, 8, 1000):
        upper = np.triu(rng.integers(1, values + 1, (15, 15)), 1).astype(np.float64)
        assert tightest(upper + upper.T, f) == oracle(upper + upper.T, f)
    for size in (3, 4, 5):
        order = rng.permutation(15)
        squared = disjoint(15, size)[order][:, order]
        assert tightest(squared, f) == oracle(squared, f)


def test_the_row_in_most_conflicts_may_have_to_stay():
    """Row 1 is the first of those in three conflicts, and not among the only three rows that touch all eight."""
    far = [(0, 2), (1, 2), (0, 3), (1, 3), (3, 4), (1, 5), (2, 5), (4, 5)]
    squared = np.ones((6, 6)) - np.eye(6)
    for one, other in far:
        squared[one, other] = squared[other, one] = 2
    assert tightest(squared, 3) == oracle(squared, 3) == [0, 1, 4]


def test_rows_with_one_conflict_need_no_branching(monkeypatch):
    """Fifteen chains of four rows lose two each, and f = 29: a branch in each chain would make 2^15."""
    squared = np.ones((150, 150)) - np.eye(150)
    for row in range(60):
        if row % 4:
            squared[row, row - 1] = squared[row - 1, row] = 2
    monkeypatch.setattr(subset, "WORK_MAX", 2 * 150 * 30)
    assert len(tightest(squared, 29)) == 121


@given(arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=VALUES), st.data())
def test_no_subset_is_tighter(rows, data):
    vectors, f = torch.from_numpy(rows), data.draw(st.integers(0, len(rows) - 1))
    exact = exact_distances(vectors)
    least = exact[np.ix_(oracle(exact, f), oracle(exact, f))].max()
    chosen = kept(vectors, f)
    assert len(set(chosen)) == len(rows) - f
    assert exact[np.ix_(chosen, chosen)].max() <= least * (1 + 1e-12)


@pytest.mark.parametrize(
    ("values", "f", "mixture"),
    [
        ([0, 10, 1, 9], 2, 0.5),  # rows 0, 2 before 1, 3
        ([0, 5, 6, 1], 2, 0.5),  # rows 0, 3 before 1, 2
        ([9, 5, 6, 1, 2], 3, 5.5),  # rows 1, 2 before 3, 4
        ([0, 3, 3, 0, 7, 3, 0], 4, 0.0),  # rows 0, 3, 6 before 1, 2, 5
        ([2, 0, 1, 2, 4], 2, 5 / 3),  # rows 0, 1, 2 and 0, 1, 3 alike, and 0, 2, 3 tighter
        ([4, 0, 2, 2, 2], 3, 2.0),  # rows 2, 3, of three that are alike
        ([0, 1, 2, 3], 1, 1.0),
        ([0, 1, 2, 3], 3, 0.0),  # one row has diameter 0
    ],
)
def test_of_equal_diameters_the_first_rows_are_taken(values, f, mixture):
    vectors = torch.tensor(values, dtype=torch.float32).unsqueeze(1)
    assert minimum_diameter(vectors, f).tolist() == pytest.approx([mixture], abs=1e-6)


@given(grids())
def test_without_liars_it_is_the_mean(case):
    vectors, _ = case
    assert torch.equal(minimum_diameter(vectors, 0), mean(vectors))


@given(st.integers(0, 4), st.data())
def test_liars_cannot_move_it_out_of_the_honest_diameter_from_an_honest_vector_kept(f, data):
    q = data.draw(st.integers(2 * f + 1, 2 * f + 4))
    vectors = torch.from_numpy(data.draw(arrays(np.float32, (q, data.draw(st.integers(1, 4))), elements=VALUES)))
    liars = data.draw(st.permutations(range(q)))[:f]
    honest = [row for row in range(q) if row not in liars]
    exact = exact_distances(vectors)
    widest = exact[np.ix_(honest, honest)].max()
    chosen = kept(vectors, f)
    assert exact[np.ix_(chosen, chosen)].max() <= widest * (1 + 1e-12)
    trusted = [row for row in chosen if row in honest]
    assert trusted
    out = minimum_diameter(vectors, f).double()
    for row in trusted:
        rounding = q * EPS * vectors[row].double().norm() + 1e-40
        assert (out - vectors[row].double()).norm() <= widest**0.5 * (1 + q * EPS) + rounding


@pytest.mark.parametrize("lie", [1e3, 1e18, -1e30])
def test_lies_far_out_are_left_out(lie):
    honest = torch.randn(11, 40)
    vectors = torch.cat([honest[:4], torch.full((2, 40), lie), honest[4:], torch.full((1, 40), 2 * lie)])
    assert kept(vectors, 3) == [0, 1, 2, 3, *range(6, 13)]
    assert torch.equal(minimum_diameter(vectors, 3), mean(honest))


@given(grids(), st.integers(-1000, 1000))
def test_it_moves_with_its_inputs(case, steps):
    vectors, f = case
    shift = steps * vectors.abs().max()  # multiples of it keep every difference exact
    moved = vectors.double() + shift.double()
    assert kept(moved, f) == kept(vectors, f)
    out = minimum_diameter(vectors.double(), f)
    rounding = 1e-14 * float(vectors.double().abs().max() + shift.double().abs())
    assert torch.allclose(minimum_diameter(moved, f), out + shift.double(), rtol=0, atol=rounding)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_rows_matters_to_ties_only(seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(13, generator=generator)
    vectors = torch.randn(13, 30, generator=generator)
    squared = pairwise_squared_distances(vectors)
    rows, others = kept(vectors, 4), order[kept(vectors[order], 4)]
    assert squared[rows][:, rows].max() == squared[others][:, others].max()
    vectors[::3] += 20 * vectors[::3].sign()
    far = set(range(0, 13, 3))
    assert set(kept(vectors, 5)) == set(order[kept(vectors[order], 5)].tolist()) == set(range(13)) - far
    assert torch.allclose(minimum_diameter(vectors[order], 5), minimum_diameter(vectors, 5), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_distances_are_compared_wider_than_the_vectors(dtype):
    """In half precision these differences overflow, and their squares lose the step."""
    top = 60_000.0
    vectors = torch.tensor([[top, 0.0], [-top, 1.0], [top, 1.0], [top, 1.125]], dtype=dtype)
    assert kept(vectors, 1) == [0, 2, 3]
    assert kept(vectors, 2) == [2, 3]
    out = minimum_diameter(vectors, 2)
    assert (out.dtype, out.tolist()) == (dtype, mean(vectors[2:]).tolist())


def test_near_vectors_of_large_norm_are_told_apart():
    base = torch.full((1000,), 1e6)
    vectors = torch.stack([base + 0.25, base + 1, base, base + 0.125, base - 0.5])
    assert kept(vectors, 2) == [0, 2, 3]
    wide = torch.full((1000,), 1e9, dtype=torch.float64)
    vectors = torch.stack([wide + 2e-3, wide - 3e-3, wide, wide + 1e-3])
    assert torch.allclose(minimum_diameter(vectors, 1), wide + 1e-3, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("f", [3, 7, 11, 15])
def test_the_work_stays_within_its_bound(monkeypatch, size, f):
    """Groups of far ones, each of which must lose all but one, are hard where f suffices for almost all of them."""
    q = 5 * f + 1
    rng = np.random.default_rng(f)
    upper = np.triu(rng.random((q, q)), 1)
    hard = disjoint(q, size)
    hard[(f // (size - 1) + 1) * size :, :] = hard[:, (f // (size - 1) + 1) * size :] = 1
    np.fill_diagonal(hard, 0)
    for squared in (hard, hard + (upper + upper.T) / 2, upper + upper.T):
        bound = q * 1.47**f * (2.3 * ceil(log2(len(np.unique(squared)))) + 4.8)
        monkeypatch.setattr(subset, "WORK_MAX", bound)
        assert len(tightest(squared, f)) == q - f


@pytest.mark.parametrize(("f", "q"), [(16, 81), (8, 1024)])
def test_the_work_allowed_suffices_for_any_distances_up_to_the_f_that_it_says(f, q):
    assert q * 1.47**f * (2.3 * ceil(log2(q * (q - 1) / 2 + 1)) + 4.8) <= subset.WORK_MAX


def test_a_search_that_takes_too_long_is_refused_in_time_with_the_remedy():
    """Twenty groups of three far ones lose 40 rows, and f = 39."""
    vectors = torch.eye(100)
    vectors[:60, :60] -= 0.2 * torch.block_diag(*[torch.ones(3, 3) - torch.eye(3)] * 20)
    start = time.process_time()
    with pytest.raises(
        ConfigError, match=r"best 61 of 100 .* more than 1500000 .* Remedy: .* f below 39, .* trimmed-me"
    ):
        aggregate("minimum-diameter", vectors, f=39)
    assert time.process_time() - start < 6
