from itertools import combinations, combinations_with_replacement, product
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pnode.aggregation import coordinate
from p2pnode.aggregation.coordinate import (
    mean,
    mean_around_median,
    mean_around_trimmed_mean,
    median,
    trimmed_mean,
    weighted_mean,
)

EPS = torch.finfo(torch.float32).eps

# Few distinct values make ties; the rest spans denormals to 1e30, where a careless sum of squares or of values breaks.
SPECIAL = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-39, 1e30, -1e30])
VALUES = st.one_of(SPECIAL, st.floats(-(2.0**100), 2.0**100, width=32))


@st.composite
def inputs(draw, n_max=33):
    """(n, d) float32 vectors and an f that leaves something to average."""
    n = draw(st.integers(1, n_max))
    vectors = draw(arrays(np.float32, (n, draw(st.integers(1, 4))), elements=VALUES))
    return torch.from_numpy(vectors), draw(st.integers(0, (n - 1) // 2))


def kept(vectors, first, stop):
    """The oracle's choice: the sorted values first, …, stop − 1 of each coordinate, in float64."""
    return vectors.double().sort(dim=0).values[first:stop]


def assert_mean(out, rows):
    """`out` is the mean of float64 `rows` to within the rounding of a running mean, and in their range exactly."""
    slack = len(rows) * (EPS * rows.abs().amax(0) + 1e-45)
    assert ((out.double() - rows.mean(0)).abs() <= slack).all()
    assert (out >= rows.amin(0)).all()
    assert (out <= rows.amax(0)).all()


@given(inputs())
def test_all_three_agree_with_sorting_in_float64(case):
    vectors, f = case
    n = len(vectors)
    assert_mean(mean(vectors), vectors.double())
    assert_mean(median(vectors), kept(vectors, (n - 1) // 2, n // 2 + 1))
    assert_mean(trimmed_mean(vectors, f), kept(vectors, f, n - f))


@given(inputs(n_max=12), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_matters_to_the_rounding_of_the_mean_only(case, random):
    vectors, f = case
    order = random.sample(range(len(vectors)), len(vectors))
    assert ((mean(vectors[order]) - mean(vectors)).abs() <= EPS * vectors.abs().amax(0) + 1e-45).all()
    for rule in (median, lambda v: trimmed_mean(v, f), lambda v: mean_around_trimmed_mean(v, f)):
        assert torch.equal(rule(vectors[order]), rule(vectors))


@given(inputs(), VALUES)
def test_equal_vectors_are_a_fixed_point_exactly(case, value):
    vectors, f = case
    vectors = torch.full_like(vectors, value)
    for out in (mean(vectors), median(vectors), trimmed_mean(vectors, f)):
        assert torch.equal(out, vectors[0])


@given(inputs(), st.data())
def test_liars_cannot_leave_the_honest_range(case, data):
    vectors, f = case
    liars = data.draw(st.permutations(range(len(vectors))))[:f]
    vectors[liars] = torch.from_numpy(data.draw(arrays(np.float32, (f, vectors.shape[1]), elements=VALUES)))
    honest = np.delete(vectors.numpy(), liars, axis=0)
    for out in (median(vectors), trimmed_mean(vectors, f)):
        assert (out.numpy() >= honest.min(0)).all()
        assert (out.numpy() <= honest.max(0)).all()


def test_every_choice_of_ranks_is_right_on_every_pattern_of_zeros_and_ones():
    for n in range(1, 11):
        patterns = torch.tensor(list(product([0.0, 1.0], repeat=n))).T
        ordered = patterns.sort(dim=0).values
        for first, stop in combinations(range(n + 1), 2):
            out = coordinate._mean_of_ranks(patterns, first, stop)
            assert torch.allclose(out, ordered[first:stop].mean(0), atol=n * EPS), (n, first, stop)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_blocks_join_without_a_seam(monkeypatch, extra):
    monkeypatch.setattr(coordinate, "BLOCK_PER_THREAD", 64)
    vectors = torch.randn(7, 2 * 64 * torch.get_num_threads() + extra)
    assert_mean(mean(vectors), vectors.double())
    assert torch.equal(median(vectors), vectors.median(dim=0).values)
    assert_mean(trimmed_mean(vectors, 2), kept(vectors, 2, 5))


def test_a_real_block_agrees_with_sorting():
    vectors = torch.randn(4, coordinate.BLOCK_PER_THREAD * torch.get_num_threads() + 5, dtype=torch.float64)
    assert_mean(trimmed_mean(vectors, 1), kept(vectors, 1, 3))


def test_means_are_accumulated_in_float32_at_least():
    """In bfloat16 a running mean of 0 and 32 ones would go astray by more than its last digit."""
    vectors = torch.ones(33, 2, dtype=torch.bfloat16)
    vectors[0] = 0
    exact = torch.full((2,), 32 / 33).bfloat16()
    assert torch.equal(mean(vectors), exact)
    assert torch.equal(trimmed_mean(vectors, 0), exact)
    precise = torch.tensor([[1.0], [1.0 + 2**-40]], dtype=torch.float64)
    assert median(precise).item() == 1.0 + 2**-41


@given(arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(1, 3)), elements=st.integers(-4, 4)), st.data())
def test_means_around_a_centre_take_the_nearest_and_of_two_the_lower(grid, data):
    vectors = torch.from_numpy(grid).float()
    n = len(vectors)
    keep, f = data.draw(st.integers(1, n)), data.draw(st.integers(0, (n - 1) // 2))
    for out, centre, count in (
        (mean_around_median(vectors, keep), np.median(grid, axis=0), keep),
        (mean_around_trimmed_mean(vectors, f), np.sort(grid, axis=0)[f : n - f].mean(0), n - f),
    ):
        for column, middle, result in zip(grid.T.tolist(), centre.tolist(), out.tolist(), strict=True):
            nearest = sorted(column, key=lambda x, middle=middle: (abs(x - middle), x))[:count]
            assert result == pytest.approx(sum(nearest) / count, abs=1e-6)


def test_a_weighted_mean_looks_only_at_rows_of_positive_weight():
    vectors = torch.tensor([[1.0, 2.0], [torch.nan, torch.inf], [4.0, 8.0]])
    assert weighted_mean(vectors, [1, 0, 2]).tolist() == [3.0, 6.0]


def test_the_trimmed_mean_is_resilient_for_every_choice_of_honest():
    """‖F(x) − mean_S‖ ≤ λ·diam(S) for every S of n−f rows, λ = f/(n−f)·min(2√(n−f), √d). Source: arXiv 2205.12173."""
    for n, f, d in ((4, 1, 1), (5, 2, 1), (4, 1, 2), (5, 2, 2)):
        bound = f / (n - f) * min(2 * sqrt(n - f), sqrt(d))
        points = list(product([0.0, 1.0, 3.0], repeat=d))[:6]
        for rows in combinations_with_replacement(points, n):
            vectors = torch.tensor(rows)
            out = trimmed_mean(vectors, f)
            diameters = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
            for honest in map(list, combinations(range(n), n - f)):
                off = (out - vectors[honest].mean(0)).norm()
                assert off <= bound * diameters[honest][:, honest].max() + 1e-5
