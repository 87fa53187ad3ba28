"""What stands before a rule."""

import numpy as np
import pytest
import torch

from p2pnode.aggregation import find, mix
from p2pnode.aggregation.points import Points
from p2pnode.aggregation.pre import adaptive_robust_clip, bucketing, clip, nearest_neighbour_mixing


def points(q=9, d=3, seed=0):
    return Points(torch.from_numpy(np.random.default_rng(seed).normal(size=(q, d))))


def test_mixing_keeps_each_one_s_own_first_and_ties_go_to_the_lower_row():
    mixed = nearest_neighbour_mixing(Points(torch.zeros(4, 2)), 2)
    assert (mixed.weights > 0).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]


def test_without_liars_mixing_gives_each_the_mean_and_clipping_leaves_all():
    given = points()
    assert np.allclose(nearest_neighbour_mixing(given, 0).vectors, given.rows.mean(0))
    assert torch.equal(adaptive_robust_clip(given, 0).vectors, given.rows)


@pytest.mark.parametrize(("q", "s"), [(9, 1), (9, 2), (9, 3), (9, 4), (9, 20), (1, 2)])
def test_each_row_is_in_one_bucket_and_only_the_last_is_short(q, s):
    weights = bucketing(points(q), s, 0).weights
    sizes = (weights > 0).sum(axis=1).tolist()
    assert ((weights > 0).sum(axis=0) == 1).all()
    assert sizes == [s] * (q // s) + [q % s] * (q % s > 0)
    assert np.allclose(weights.sum(axis=1), 1)


def test_buckets_are_dealt_out_by_the_seed_alone():
    deals = [tuple(map(tuple, bucketing(points(seed=seed), 2, seed % 7).weights)) for seed in range(14)]
    assert deals[:7] == deals[7:]
    assert len(set(deals)) == 7
    assert bucketing(points(), 2, 0).weights.argmax(1).tolist() != list(range(0, 9, 2))


def test_the_seed_reaches_the_buckets():
    rows = points().rows
    assert len({tuple(mix("bucketing+median", rows, f=1, seed=seed).vector.tolist()) for seed in range(9)}) > 3
    assert torch.equal(mix("bucketing=2+median", rows, f=1).vector, mix("bucketing+median", rows, f=1, seed=0).vector)


def test_f_liars_spoil_no_more_than_f_buckets():
    rows = torch.zeros(13, 1)
    rows[[3, 8]] = 1e9
    for seed in range(20):
        assert mix("bucketing=2+median", rows, f=2, seed=seed).vector.tolist() == [0]


def test_clipping_shortens_the_long_and_leaves_the_rest_to_the_bit():
    rows = torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.0, 0.0], [0.0, -1e30], [0.1, 0.2]])
    clipped = clip(Points(rows), 2.0).vectors
    assert torch.allclose(clipped[[0, 3]], torch.tensor([[1.2, 1.6], [0.0, -2.0]]))
    assert torch.equal(clipped[[1, 2, 4]], rows[[1, 2, 4]])


@pytest.mark.parametrize(("q", "f", "clipped"), [(10, 1, 1), (10, 2, 3), (10, 4, 4), (5, 2, 2), (7, 3, 3), (6, 3, 3)])
def test_arc_clips_the_longest_to_the_next(q, f, clipped):
    """⌊2f(q−f)/q⌋ of them."""
    lengths = np.random.default_rng(q).permutation(np.arange(1.0, q + 1))
    out = adaptive_robust_clip(Points(torch.from_numpy(np.stack([lengths, 0 * lengths], axis=1))), f)
    assert np.allclose(np.sort(out.vectors[:, 0]), np.minimum(np.arange(1, q + 1), q - clipped))


def test_arc_over_vectors_of_length_0_gives_those():
    rows = torch.tensor([[0.0], [0.0], [0.0], [5.0]])
    assert adaptive_robust_clip(Points(rows), 1).vectors.tolist() == [[0], [0], [0], [0]]


def test_a_pipeline_runs_from_left_to_right():
    rows = torch.tensor([[100.0], [1.0], [2.0], [1.5], [1.2]])
    one = mix("clip=1+nnm+mean", rows, f=1).vector
    other = mix("nnm+clip=1+mean", rows, f=1).vector
    assert one.item() == pytest.approx(1)
    assert other.item() == pytest.approx(1)
    spread = torch.tensor([[-100.0], [1.0], [2.0], [-1.5], [1.2]])
    assert mix("clip=1+nnm+mean", spread, f=1).vector != mix("nnm+clip=1+mean", spread, f=1).vector


def test_after_mixing_the_rows_kept_are_those_that_were_mixed():
    rows = torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4], [0.5], [1e6]])
    assert mix("nnm+krum", rows, f=1).kept == (0, 1, 2, 3, 4, 5)
    assert find("nnm+krum").before[0].name == "nnm"
