import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pnode.aggregation import coordinate
from p2pnode.aggregation.distance import (
    finite_rows,
    mix_rows,
    nearest_neighbour,
    pairwise_squared_distances,
    squared_distances,
    squared_norms,
)
from p2pnode.errors import ConfigError

EPS = torch.finfo(torch.float32).eps
VALUES = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e-45, 1e30, -1e30]), st.floats(-1e6, 1e6, width=32))


@st.composite
def inputs(draw):
    """(q, d) float32 vectors, f < q, and the index of one's own row."""
    q = draw(st.integers(1, 12))
    vectors = draw(arrays(np.float32, (q, draw(st.integers(1, 4))), elements=VALUES))
    return torch.from_numpy(vectors), draw(st.integers(0, q - 1)), draw(st.integers(0, q - 1))


def chosen(vectors, f, own):
    """The oracle's rows: nearest first, own before its equals, then by index."""
    rows = vectors.double().tolist()
    key = {row: sum((a - b) ** 2 for a, b in zip(rows[row], rows[own], strict=True)) for row in range(len(rows))}
    return sorted(key, key=lambda row: (key[row], row != own, row))[: len(rows) - f]


@given(
    arrays(np.int8, st.tuples(st.integers(1, 10), st.integers(1, 3)), elements=st.integers(-3, 3)),
    st.data(),
)
def test_it_averages_the_nearest_with_ties_by_row(grid, data):
    vectors = torch.from_numpy(grid).float()
    own, f = (data.draw(st.integers(0, len(vectors) - 1)) for _ in range(2))
    expected = vectors[chosen(vectors, f, own)].double().mean(0)
    assert torch.allclose(nearest_neighbour(vectors, f, vectors[own]).double(), expected, atol=1e-5)


@given(inputs(), st.data())
def test_liars_cannot_move_it_farther_than_the_farthest_honest_vector(case, data):
    vectors, f, own = case
    others = [row for row in range(len(vectors)) if row != own]
    liars = data.draw(st.permutations(others))[:f]
    honest = [row for row in range(len(vectors)) if row not in liars]
    moved = (nearest_neighbour(vectors, f, vectors[own]).double() - vectors[own].double()).norm()
    farthest = (vectors[honest].double() - vectors[own].double()).norm(dim=1).max()
    rounding = len(vectors) * (EPS * (vectors[own].double().norm() + farthest) + 1e-44)
    assert moved <= farthest + rounding


@given(inputs())
def test_equal_vectors_are_a_fixed_point_exactly(case):
    vectors, f, own = case
    vectors = vectors[own].repeat(len(vectors), 1)
    assert torch.equal(nearest_neighbour(vectors, f, vectors[own]), vectors[own])


@given(inputs())
def test_alone_is_what_remains_when_all_others_may_lie(case):
    vectors, _, own = case
    assert torch.equal(nearest_neighbour(vectors, len(vectors) - 1, vectors[own]), vectors[own])


def test_near_vectors_of_large_norm_keep_their_order():
    """‖v‖ = 1e6 and distances of some 1e-3: in float32 the expanded square would see nothing of them."""
    step = 2.0**-10
    own = torch.full((1_000_000,), 1e3)
    vectors = own.repeat(5, 1)
    for row, coordinates in ((0, 4), (1, 1), (2, 3), (4, 2)):
        vectors[row, :coordinates] += step
    assert squared_distances(vectors, own).tolist() == [coordinates * step**2 for coordinates in (4, 1, 3, 0, 2)]
    moved = nearest_neighbour(vectors, 2, own)[:4] - own[:4]
    assert torch.allclose(moved, torch.tensor([2 / 3, 1 / 3, 0, 0]) * step, rtol=0, atol=step / 8)


def test_differences_of_a_thousandth_are_told_apart_in_float64():
    own = torch.full((1000,), 1e6, dtype=torch.float64)
    vectors = torch.stack([own + 3e-3, own + 1e-3, own, own - 2e-3])
    assert torch.allclose(nearest_neighbour(vectors, 1, own), own - 1e-3 / 3, rtol=0, atol=1e-9)


@given(inputs())
def test_distances_neither_overflow_nor_underflow(case):
    vectors, _, own = case
    exact = ((vectors.numpy().astype(np.longdouble) - vectors[own].numpy().astype(np.longdouble)) ** 2).sum(1)
    out = squared_distances(vectors, vectors[own]).numpy()
    assert np.allclose(out, exact.astype(np.float64), rtol=1e-12, atol=0)
    assert ((out == 0) == (vectors == vectors[own]).all(1).numpy()).all()


@given(inputs())
def test_pairs_are_as_far_apart_as_one_by_one(case):
    vectors, _, _ = case
    exact = torch.stack([squared_distances(vectors, row) for row in vectors])
    out = pairwise_squared_distances(vectors)
    assert torch.allclose(out, exact, rtol=1e-12, atol=0)
    assert torch.equal(out == 0, exact == 0)
    assert torch.equal(out, out.T)


def test_pairs_of_near_vectors_of_large_norm_keep_their_distance():
    step = 2.0**-10
    vectors = torch.full((3, 1_000_000), 1e3)
    vectors[1, :2] += step
    vectors[2, -3:] += step
    exact = torch.tensor([[0, 2, 3], [2, 0, 5], [3, 5, 0]], dtype=torch.float64) * step**2
    assert torch.equal(pairwise_squared_distances(vectors), exact)


def test_the_distance_of_a_pair_does_not_depend_on_where_it_stands():
    vectors = torch.randn(9, 150_001, generator=torch.Generator().manual_seed(0))
    vectors[6] = vectors[2]
    order = torch.randperm(9)
    squared = pairwise_squared_distances(vectors)
    assert torch.equal(squared[2], squared[6])
    assert torch.equal(pairwise_squared_distances(vectors[order]), squared[order][:, order])


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_blocks_join_without_a_seam(monkeypatch, extra):
    monkeypatch.setattr(coordinate, "BLOCK_PER_THREAD", 64)
    vectors = torch.randn(6, 2 * 64 * torch.get_num_threads() + extra)
    exact = (vectors.double() - vectors[3].double()).square().sum(1)
    assert torch.allclose(squared_distances(vectors, vectors[3]), exact, rtol=1e-12)
    assert torch.allclose(pairwise_squared_distances(vectors)[3], exact, rtol=1e-12)
    assert torch.allclose(nearest_neighbour(vectors, 2, vectors[3]), vectors[chosen(vectors, 2, 3)].mean(0), atol=1e-6)


def test_an_own_vector_that_is_none_of_the_rows_is_refused():
    with pytest.raises(ConfigError, match="none of the rows"):
        nearest_neighbour(torch.zeros(3, 2), 1, torch.tensor([0.0, 1e-45]))


@given(inputs())
def test_norms_are_distances_from_zero(case):
    vectors, _, _ = case
    assert torch.equal(squared_norms(vectors), squared_distances(vectors, torch.zeros_like(vectors[0])))


def test_only_rows_with_nan_or_infinity_are_not_finite():
    vectors = torch.full((4, 9), torch.finfo(torch.float32).max)
    vectors[1, 3], vectors[2, 8] = torch.nan, -torch.inf
    assert finite_rows(vectors) == [True, False, False, True]


def test_each_mixed_row_is_a_weighted_mean_and_equal_rows_stay():
    vectors = torch.tensor([[1.0, 0.1], [3.0, 0.1], [8.0, 0.1]])
    mixed = mix_rows(vectors, torch.tensor([[1, 1, 0], [0, 0, 7], [1, 0, 6]]))
    assert mixed.tolist() == [[2.0, vectors[0, 1]], [8.0, vectors[0, 1]], [7.0, vectors[0, 1]]]
