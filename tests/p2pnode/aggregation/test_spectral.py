"""CAF and SMEA; published slips by name."""

import numpy as np
import pytest
import torch

from p2pnode.aggregation import aggregate, mix
from tests.p2pnode.aggregation.oracle import covariance, top


def test_without_liars_the_filter_gives_the_mean_not_nothing():
    rows = torch.randn(6, 3, dtype=torch.float64)
    for name in ("caf", "smea"):
        assert torch.allclose(aggregate(name, rows, f=0), rows.mean(0))


def test_the_filter_gives_the_same_each_time_for_eigenvectors_are_exact():
    """Published code takes one power iteration from a vector of chance."""
    rows = torch.randn(9, 5, dtype=torch.float64)
    assert len({tuple(aggregate("caf", rows, f=2).tolist()) for _ in range(5)}) == 1


@pytest.mark.parametrize("far", [10.0, 1e6, 1e30])
def test_the_filter_takes_away_lies_in_any_direction(far):
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(9, 5))
    lies = np.eye(3, 5) * far * np.array([[1], [-2], [3]])
    mixture = mix("caf", torch.from_numpy(np.concatenate([lies, honest])), f=3)
    assert min(mixture.kept) >= 3
    assert np.linalg.norm(mixture.vector.numpy() - honest.mean(0)) < 3


def test_a_lie_taken_away_no_longer_sets_the_measure():
    """The largest projection is sought among those still weighed. Else a lie that is gone, but farther out along the
    next direction too than the next lie, would let that keep its weight, pass after pass."""
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(9, 3))
    rows = np.concatenate([honest, [[1e6, 1e4, 0]], [[0, 1e3, 0]]])
    mixture = mix("caf", torch.from_numpy(rows), f=2)
    assert {9, 10}.isdisjoint(mixture.kept)
    assert np.linalg.norm(mixture.vector.numpy() - honest.mean(0)) < 3


def test_equal_rows_end_the_filter():
    assert aggregate("caf", torch.ones(7, 3), f=3).tolist() == [1, 1, 1]
    rows = torch.ones(7, 3)
    rows[:2] = torch.tensor([[5.0], [-9.0]])
    assert aggregate("caf", rows, f=2).tolist() == [1, 1, 1]


def test_the_best_pass_counts_not_the_last():
    """What is taken away along one direction makes those of another weigh more."""
    rows = np.array([[0.94, 0], [1.03, 0], [-1.06, 0], [-1.02, 0], [0, 1.38], [0, -1.24]])
    mixture = mix("caf", torch.from_numpy(rows), f=2)
    assert mixture.kept == tuple(range(6))
    assert np.allclose(mixture.vector, rows.mean(0))


def test_no_subset_has_less_variance_in_its_widest_direction():
    rng = np.random.default_rng(0)
    for _ in range(10):
        rows = rng.normal(size=(9, 4))
        kept = list(mix("smea", torch.from_numpy(rows), f=3).kept)
        chosen = top(covariance(rows[kept], [1.0] * 6)[1])[0]
        for _ in range(40):
            some = rng.permutation(9)[:6]
            assert chosen <= top(covariance(rows[some], [1.0] * 6)[1])[0] * (1 + 1e-9)


def test_more_subsets_than_are_taken_at_a_time_are_all_tried():
    """C(16, 5) = 4368; the last in order is the best, or the first."""
    rows = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    rows[:5] += 100 * torch.eye(5, 3) + 100
    assert mix("smea", rows, f=5).kept == tuple(range(5, 16))
    assert mix("smea", rows.flip(0), f=5).kept == tuple(range(11))
