import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pnode.aggregation import coordinate
from p2pnode.aggregation.distance import (
    pairwise_squared_distances,
    squared_distances,
    squared_norms,
)

EPS = torch.finfo(torch.float32).eps
VALUES = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e-45, 1e30, -1e30]), st.floats(-1e6, 1e6, width=32))


@st.composite
def inputs(draw):
    """(q, d) float32 vectors, f < q, and the index of one's own row."""
    q = draw(st.integers(1, 12))
    vectors = draw(arrays(np.float32, (q, draw(st.integers(1, 4))), elements=VALUES))
    return torch.from_numpy(vectors), draw(st.integers(0, q - 1)), draw(st.integers(0, q - 1))


def test_near_vectors_of_large_norm_keep_their_order():
    """‖v‖ = 1e6 and distances of some 1e-3: in float32 the expanded square would see nothing of them."""
    step = 2.0**-10
    own = torch.full((1_000_000,), 1e3)
    vectors = own.repeat(5, 1)
    for row, coordinates in ((0, 4), (1, 1), (2, 3), (4, 2)):
        vectors[row, :coordinates] += step
    assert squared_distances(vectors, own).tolist() == [coordinates * step**2 for coordinates in (4, 1, 3, 0, 2)]


def test_differences_of_a_thousandth_are_told_apart_in_float64():
    own = torch.full((1000,), 1e6, dtype=torch.float64)
    vectors = torch.stack([own + 3e-3, own + 1e-3, own, own - 2e-3])
    assert torch.allclose(squared_distances(vectors, own), torch.tensor([9e-3, 1e-3, 0, 4e-3], dtype=torch.float64))


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


@given(inputs())
def test_norms_are_distances_from_zero(case):
    vectors, _, _ = case
    assert torch.equal(squared_norms(vectors), squared_distances(vectors, torch.zeros_like(vectors[0])))


def test_each_mixed_row_is_a_weighted_mean_and_equal_rows_stay():
    vectors = torch.tensor([[1.0, 0.1], [3.0, 0.1], [8.0, 0.1]])
    mixed = coordinate.mix_rows(vectors, np.array([[1 / 2, 1 / 2, 0], [0, 0, 1], [1 / 7, 0, 6 / 7]]))
    assert mixed.tolist() == [[2.0, vectors[0, 1]], [8.0, vectors[0, 1]], [7.0, vectors[0, 1]]]
