"""Mixtures of rows: their distances follow from those of the rows, or are measured where rounding would hide them."""

import numpy as np
import pytest
import torch

from p2pnode.aggregation import distance
from p2pnode.aggregation.points import ROUNDING_MAX, Points


def mixed(q, d, rng, *, convex=True):
    weights = rng.uniform(0, 1, (4, q)) * rng.integers(0, 2, (4, q)) + np.eye(4, q)
    weights /= weights.sum(axis=1, keepdims=True) * (1 if convex else rng.uniform(1, 3, (4, 1)))
    return Points(torch.from_numpy(rng.normal(size=(q, d)))).combined(weights)


def exact(points):
    wide = points.weights @ points.rows.double().numpy()
    return ((wide[:, None] - wide) ** 2).sum(-1)


@pytest.fixture
def passes(monkeypatch):
    """How often all pairs are measured, and of how many rows."""
    seen = []

    def measured(vectors):
        seen.append(len(vectors))
        return original(vectors)

    original = distance.pairwise_squared_distances
    monkeypatch.setattr(distance, "pairwise_squared_distances", measured)
    return seen


@pytest.mark.parametrize("convex", [True, False])
def test_distances_of_mixtures_follow_from_those_of_the_rows(passes, convex):
    rng = np.random.default_rng(0)
    for _ in range(10):
        points = mixed(6, 400, rng, convex=convex)
        assert np.allclose(points.squared, exact(points), rtol=1e-12)
    assert set(passes) == {6}


def test_they_are_measured_where_there_are_few_coordinates(passes):
    points = mixed(6, 3, np.random.default_rng(0))
    assert np.allclose(points.squared, exact(points), rtol=1e-12)
    assert passes == [4]


def test_mixtures_of_mixtures_ask_the_rows_once(passes):
    rng = np.random.default_rng(1)
    points = mixed(6, 400, rng)
    for _ in range(3):
        _ = points.squared
        points = points.combined(rng.dirichlet(np.ones(len(points)), 5))
    assert np.allclose(points.squared, exact(points), rtol=1e-10)
    assert passes == [6]


def test_points_mixed_alike_are_at_distance_0_and_none_is_negative():
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.ones(6), 3)[[0, 1, 0, 2, 1]]
    squared = Points(torch.from_numpy(rng.normal(size=(6, 400)) + 1e3)).combined(weights).squared
    assert squared[0, 2] == squared[1, 4] == 0
    assert (squared >= 0).all()
    assert np.array_equal(squared, squared.T)


def test_a_row_far_out_with_one_weight_in_both_hides_nothing(passes):
    rng = np.random.default_rng(3)
    rows = torch.from_numpy(rng.normal(size=(5, 400)))
    near = Points(rows.clone()).combined(np.eye(5)[:2] / 2 + np.eye(5)[4] / 2).squared
    rows[4] = 1e15
    assert np.allclose(Points(rows).combined(np.eye(5)[:2] / 2 + np.eye(5)[4] / 2).squared, near, rtol=1e-12)
    assert passes == [5, 5]


def test_a_lie_far_out_clipped_to_nearly_nothing_is_measured_anew(passes):
    """Its squared distances, 1e60, would leave nothing of those of 1 in float64."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(5, 400))
    rows[4] *= 1e30
    points = Points(torch.from_numpy(rows)).combined(np.diag([1, 1, 1, 1, 1e-30]))
    assert np.allclose(points.squared, exact(points), rtol=ROUNDING_MAX)
    assert passes == [5, 5]


def test_means_weigh_points_and_name_rows():
    rows = torch.tensor([[0.0, 4.0], [2.0, 0.0], [8.0, 8.0]])
    points = Points(rows).combined(np.array([[0.5, 0.5, 0], [0, 0, 0.5]]))
    assert points.vectors.tolist() == [[1, 2], [4, 4]]
    assert points.mean_of([0]).kept == (0, 1)
    mixture = points.mean(np.array([1.0, 3.0]))
    assert mixture.vector.tolist() == [(1 + 12) / 4, (2 + 12) / 4]
    assert mixture.kept == (0, 1, 2)
    assert points.each(rows[0]).kept == (0, 1, 2)


def test_points_clipped_to_nothing_are_nothing():
    mixture = Points(torch.ones(2, 3)).combined(np.zeros((2, 2))).mean_of([0, 1])
    assert (mixture.vector.tolist(), mixture.kept) == ([0, 0, 0], ())
