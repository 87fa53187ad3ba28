"""Krum's family, each published slip by name."""

import numpy as np
import pytest
import torch

from p2pnode.aggregation import aggregate, mix
from p2pnode.aggregation.krum import scores
from p2pnode.aggregation.points import Points


def column(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def test_the_score_is_of_the_nearest_others_one_fewer_than_all_honest_others():
    """q−f−2 of them; published code takes q−f−1."""
    rows = column(0, 1, 3, 7, 15, 100)
    far = [85**2 + 93**2 + 97**2]
    assert scores(Points(rows).squared, 1).tolist() == [1 + 9 + 49, 1 + 4 + 36, 4 + 9 + 16, 101, 64 + 144 + 196, *far]


def test_the_number_of_neighbours_decides():
    """With one more, as in published code, other rows would win."""
    rng = np.random.default_rng(0)
    differ = 0
    for _ in range(50):
        rows = rng.normal(size=(7, 2))
        apart = np.sort(((rows[:, None] - rows) ** 2).sum(2), axis=1)
        ours, theirs = (int(np.argmin(apart[:, 1 : 1 + count].sum(1))) for count in (3, 4))
        assert mix("krum", torch.from_numpy(rows), f=2).kept == (ours,)
        differ += ours != theirs
    assert differ > 5


def test_equal_rows_are_others_though_at_distance_0():
    """A sort that drops the first 0 does the same; one that drops all zeros does not."""
    assert scores(Points(column(5, 5, 5, 9, 30)).squared, 1).tolist() == [0, 0, 0, 32, 441 + 625]


def test_distances_are_squared_once():
    """Row 0 has the least sum of distances, row 1 of squares, row 2 of fourth powers: constructed so below."""
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(300):
        rows = rng.normal(size=(7, 2))
        apart = np.linalg.norm(rows[:, None] - rows, axis=2)
        by_power = [int(np.argmin(np.sort(apart**power, axis=1)[:, 1:5].sum(1))) for power in (1, 2, 4)]
        assert mix("krum", torch.from_numpy(rows), f=1).kept == (by_power[1],)
        found.add((by_power[0] == by_power[1], by_power[1] == by_power[2]))
    assert {(False, True), (True, False)} <= found


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_multi_krum_gives_a_mean_not_a_sum(m):
    rows = torch.ones(7, 3, dtype=torch.float64)
    assert aggregate(f"multi-krum={m}", rows, f=1).tolist() == [1, 1, 1]


def test_one_vector_of_multi_krum_is_krum_and_all_by_default_are_two_fewer_than_honest():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = torch.from_numpy(rng.normal(size=(9, 3)))
        assert mix("multi-krum=1", rows, f=2).kept == mix("krum", rows, f=2).kept
        assert len(mix("multi-krum", rows, f=2).kept) == 5


def test_ties_go_to_the_lower_row():
    assert mix("krum", column(1, 1, 1, 1, 9), f=1).kept == (0,)
    assert mix("multi-krum=2", column(9, 1, 1, 1, 1), f=1).kept == (1, 2)


def test_bulyan_scores_anew_after_each_removal():
    """By the first scores alone it would choose other rows: published code never updates them."""
    rng = np.random.default_rng(0)
    differ = 0
    for _ in range(50):
        rows = torch.from_numpy(rng.normal(size=(11, 2)))
        kept = mix("bulyan", rows, f=2).kept
        once = np.argsort(scores(Points(rows).squared, 2), kind="stable")[:7]
        differ += kept != tuple(sorted(once.tolist()))
    assert differ > 10


@pytest.mark.parametrize("f", [1, 2])
@pytest.mark.parametrize("lie", [0.5, 3.0, 1e6])
def test_bulyan_averages_no_value_farther_from_the_median_than_an_honest_one(f, lie):
    """So no coordinate leaves the range of the honest by more than that range."""
    rng = np.random.default_rng(f)
    for _ in range(20):
        honest = rng.normal(size=(3 * f + 3, 4))
        rows = np.concatenate([honest, np.full((f, 4), lie)])[rng.permutation(4 * f + 3)]
        out = aggregate("bulyan", torch.from_numpy(rows), f=f).numpy()
        spread = honest.max(0) - honest.min(0)
        assert (out >= honest.min(0) - spread).all()
        assert (out <= honest.max(0) + spread).all()


def test_multi_bulyan_takes_fewer_each_time_so_that_the_last_mean_is_not_of_lies():
    assert 0 <= aggregate("multi-bulyan", column(*range(10), 1e9), f=1).item() <= 9
