"""Geometric median, centred and self-centred clipping."""

from itertools import product

import numpy as np
import pytest
import torch

from p2pnode.aggregation import aggregate, centred, mix
from p2pnode.aggregation.points import Points


def excess(rows, out):
    """How far out is from the geometric median: the pull of the points there, less what those at it can hold."""
    away = rows - out
    lengths = np.linalg.norm(away, axis=1)
    here = lengths <= 1e-12 * (1 + np.abs(rows).max())
    pull = np.linalg.norm((away[~here] / lengths[~here, None]).sum(0))
    return max(0.0, pull - here.sum())


def median(rows):
    return aggregate("gm", torch.from_numpy(np.asarray(rows, float)), f=0).numpy()


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e6, 1e30])
def test_at_the_geometric_median_the_points_pull_equally(scale):
    """Whatever the scale: published code takes 3 or 8 steps from zero."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        rows = rng.normal(size=(int(rng.integers(3, 12)), 3)) * scale + scale
        out = median(rows)
        assert excess(rows / scale, out / scale) < 1e-6


@pytest.mark.parametrize("duplicates", [2, 3])
def test_it_may_be_one_of_the_points_and_is_then_exactly_that(duplicates):
    rng = np.random.default_rng(duplicates)
    found = 0
    for _ in range(40):
        rows = rng.normal(size=(7, 2))
        rows[:duplicates] = rows[0]
        out = median(rows)
        assert excess(rows, out) < 1e-6
        found += (out == rows[0]).all()
    assert found > 5


def test_it_is_no_point_however_near_unless_the_others_pull_too_little():
    """A point at the mean of others is met on the way from every start but is not always the median."""
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, -0.2]])
    assert excess(rows, median(rows)) < 1e-6
    rows = np.array([[0.0, 0.0], [4.0, 0.1], [4.0, -0.1], [4.2, 0.0], [-1.0, 0.0]])
    assert excess(rows, median(rows)) < 1e-6


def test_on_a_line_it_is_the_median_or_the_first_of_two():
    for row in product(range(3), repeat=5):
        assert median(np.array(row)[:, None]) == pytest.approx(np.median(row), abs=1e-9)
    assert median([[1.0], [2.0], [3.0], [9.0]]).tolist() == [2.0]


@pytest.mark.parametrize("lie", [1e9, 1e15, 1e30])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("d", [3, 300])
def test_a_lie_far_out_pulls_no_more_than_its_direction(lie, dtype, d):
    """Its squared distance hides those of 1 in float64, so it is drawn in first, and measured anew."""
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(8, d))
    direction = np.zeros((1, d))
    direction[0, [0, 2]] = 0.6, 0.8
    near, far = (
        aggregate("gm", torch.from_numpy(np.concatenate([honest, direction * out])).to(dtype), f=1).double().numpy()
        for out in (1e7, lie)
    )
    assert np.allclose(near, far, atol=1e-6)
    assert excess(np.concatenate([honest, direction * 1e7]), far) < 1e-5


def test_weiszfeld_ends_though_it_does_not_converge(monkeypatch):
    monkeypatch.setattr(centred, "STEPS_MAX", 3)
    rows = np.random.default_rng(0).normal(size=(9, 3))
    assert excess(rows, median(rows)) < 1


def test_rows_that_are_nan_do_not_reach_it():
    """Published code drops infinities but not NaN."""
    rows = torch.randn(7, 3)
    spoiled = torch.cat([rows, torch.full((1, 3), torch.nan)])
    assert torch.equal(aggregate("gm", spoiled, f=1), aggregate("gm", rows, f=0))


# Clipping.


def test_clipping_starts_at_the_centre_or_at_the_median_never_at_zero():
    rows = torch.full((5, 3), 1e4)
    assert torch.equal(aggregate("centred-clipping=1", rows, f=1), rows[0])
    out = aggregate("centred-clipping=1", rows, f=1, centre=torch.zeros(3))
    assert out.norm().item() == pytest.approx(1)


def test_it_remembers_nothing_between_calls():
    """A published one starts where its last call ended."""
    rows = torch.randn(5, 3)
    assert torch.equal(aggregate("cc=0.1", rows, f=1), aggregate("cc=0.1", rows, f=1))


def test_liars_move_the_centre_by_f_tau_over_q_a_step():
    rows = torch.zeros(9, 2)
    for steps in (1, 2, 5):
        for lie in (10.0, 1e30):
            rows[:2, 0] = lie
            out = aggregate(f"centred-clipping=3,{steps}", rows, f=2, centre=torch.zeros(2))
            assert 0 < out[0] <= steps * 2 * 3 / 9 + 1e-6


def test_a_wide_radius_gives_the_mean_and_a_narrow_one_a_step_of_its_length():
    rows = torch.randn(6, 3, dtype=torch.float64)
    assert torch.allclose(aggregate("cc=1e9", rows, f=1), rows.mean(0))
    assert torch.allclose(aggregate("scc=1e9", rows, f=1, own=0), rows.mean(0))
    out = aggregate("cc=1e-6", rows, f=1, centre=rows.mean(0) + 5)
    assert (out - rows.mean(0) - 5).norm() <= 1e-6


def test_one_s_own_is_moved_by_liars_no_farther_than_the_farthest_honest_would():
    rng = np.random.default_rng(0)
    for f in (1, 2, 3):
        honest = rng.normal(size=(8, 3))
        for lie in (1.0, 1e3, 1e30):
            rows = np.concatenate([honest, np.full((f, 3), lie)])
            out = aggregate("scc", torch.from_numpy(rows), f=f, own=0).numpy()
            reach = np.linalg.norm(honest - honest[0], axis=1).max()
            without = (honest - honest[0]).sum(0) / len(rows)
            assert np.linalg.norm(out - honest[0]) <= reach
            clipped = aggregate("scc", torch.from_numpy(np.concatenate([honest, honest[:1].repeat(f, 0)])), f=0, own=0)
            assert np.allclose(clipped.numpy(), honest[0] + without)


def test_the_adaptive_radius_is_the_second_largest_distance_for_one_liar():
    rows = torch.tensor([[0.0], [1.0], [3.0], [100.0]], dtype=torch.float64)
    assert aggregate("scc", rows, f=1, own=0).item() == pytest.approx((1 + 3 + 3) / 4)
    assert aggregate("scc", rows, f=0, own=0).item() == pytest.approx(104 / 4)


def test_a_common_radius_keeps_the_mean_of_the_honest():
    rows = torch.randn(6, 3, dtype=torch.float64)
    moved = torch.stack([aggregate("scc=0.7", rows, f=1, own=row) for row in range(6)])
    assert torch.allclose(moved.mean(0), rows.mean(0))
    assert not torch.allclose(moved, rows)


def test_equals_clipped_to_nothing_have_no_part():
    rows = torch.tensor([[1.0], [1.0], [1.0], [1.0], [50.0]])
    assert mix("scc", rows, f=1, own=0)._replace(dropped=()) == (torch.tensor([1.0]), (0, 1, 2, 3), ())


def test_drawing_in_keeps_what_is_near():
    points = Points(torch.tensor([[0.0], [1.0], [2.0], [1e20]], dtype=torch.float64))
    drawn = centred._drawn_in(points, 1, 1e3)
    assert drawn.vectors[:3].tolist() == [[0], [1], [2]]
    assert drawn.vectors[3].item() == pytest.approx(1001)
    assert np.allclose(drawn.squared[3, :3], [1001**2, 1e6, 999**2])
