"""The constants, against all sets of honest rows that may be, on a grid, by chance and by what is worst for a rule."""

from itertools import combinations, product
from math import inf, sqrt

import numpy as np
import pytest
import torch

from p2pnode.aggregation import RULES, aggregate, find
from p2pnode.aggregation.resilience import DERIVED
from tests.p2pnode.aggregation.oracle import covariance, top

WITH_LAMBDA = [name for name, rule in RULES.items() if rule.resilience and name != "mean"]
WITH_KAPPA = [name for name, rule in RULES.items() if rule.kappa and name != "mean"] + ["nnm+krum", "nnm+median"]
RESILIENT = sorted({*WITH_LAMBDA, *WITH_KAPPA})
SIZES = [(3, 1), (4, 1), (5, 1), (5, 2), (6, 2), (7, 2), (9, 3)]


def fits(name, sizes=SIZES):
    return [(n, f) for n, f in sizes if find(name).inputs_min(f) <= n]


def ratios(name, rows, f):
    """The greatest λ and κ that any n−f of the rows as the honest ones ask for."""
    out = aggregate(name, torch.from_numpy(rows), f=f).numpy()
    honest = np.array(list(combinations(range(len(rows)), len(rows) - f)))
    some, mean = rows[honest], rows[honest].mean(1)
    off = np.maximum(0, np.linalg.norm(out - mean, axis=1) - 1e-9 * (1 + np.abs(rows).max()))
    apart = np.linalg.norm(rows[:, None] - rows, axis=2)
    diameter = apart[honest[:, :, None], honest[:, None, :]].max((1, 2))
    variance = ((some - mean[:, None]) ** 2).sum(2).mean(1)
    wrong = off > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([(off[wrong] / diameter[wrong]).max(initial=0), (off**2 / variance)[wrong].max(initial=0)])


def hard_inputs(n, f, rng):
    """Rows among which the honest may be any: two camps, a camp and single lies, near and far ones, chance."""
    yield np.array([[0.0]] * (n - f) + [[1.0]] * f)
    for d in (1, 3):
        direction = np.ones(d) / sqrt(d)
        for lie in (0.5, 1.0, 2.0, 1e3):
            yield np.concatenate([rng.choice([-1.0, 1.0], (n - f, d)), np.tile(lie * direction, (f, 1))])
            yield np.concatenate([rng.normal(size=(n - f, d)), np.tile(lie * direction, (f, 1))])
        yield rng.choice([0.0, 1.0], (n, d))
        yield np.eye(n, d) if d < n else np.eye(n)
        rows = rng.normal(size=(n, d))
        yield rows
        # As far out as the rule still takes: beside the outermost of the others.
        outermost = rows[np.argmax(np.linalg.norm(rows, axis=1))]
        yield np.concatenate([rows[: n - f], np.tile(outermost, (f, 1))])
        yield np.concatenate([rows[: n - f], np.tile(rows[: n - f].mean(0) + 1.5 * rows.std(0), (f, 1))])


def claimed(name, n, f, d):
    rule = find(name)
    return [
        constant(*size) if constant else inf for constant, size in ((rule.resilience, (n, f, d)), (rule.kappa, (n, f)))
    ]


@pytest.mark.parametrize("name", RESILIENT)
def test_no_set_of_honest_rows_asks_for_more_than_the_constant(name):
    rng = np.random.default_rng(0)
    for n, f in fits(name):
        for rows in hard_inputs(n, f, rng):
            measured = ratios(name, rows, f)
            assert (measured <= np.array(claimed(name, n, f, rows.shape[1])) * (1 + 1e-6)).all(), (n, f, rows, measured)


@pytest.mark.parametrize("name", RESILIENT)
def test_nor_on_any_point_of_a_grid(name):
    for n, f in fits(name, [(3, 1), (4, 1), (5, 1), (5, 2)]):
        values = range(4 if n < 5 else 3)
        for row in product(values, repeat=n):
            if list(row) == sorted(row):
                measured = ratios(name, np.array(row, float)[:, None], f)
                assert (measured <= np.array(claimed(name, n, f, 1)) * (1 + 1e-6)).all(), (n, f, row, measured)


@pytest.mark.parametrize("name", RESILIENT)
def test_no_rule_does_better_than_the_floor_and_one_input_shows_it(name):
    """n−f zeros and f ones. If the zeros are honest, only 0 is right; if the ones are, it is f/(n−f) off."""
    for n, f in fits(name):
        rows = np.array([[0.0]] * (n - f) + [[1.0]] * f)
        assert aggregate(name, torch.from_numpy(rows), f=f).tolist() == [0.0]
        measured = ratios(name, rows, f)
        assert measured == pytest.approx([f / (n - f), f / (n - 2 * f)], rel=1e-6)
        assert all(np.array(claimed(name, n, f, 1)) >= measured * (1 - 1e-6))


def test_the_eigenvalue_rule_is_bounded_by_the_widest_direction_alone():
    """A stronger κ, of the largest eigenvalue of the honest covariance for its trace."""
    rng = np.random.default_rng(0)
    kappa = RULES["smallest-maximum-eigenvalue"].kappa
    for n, f in SIZES:
        for rows in hard_inputs(n, f, rng):
            out = aggregate("smea", torch.from_numpy(rows), f=f).numpy()
            for honest in combinations(range(n), n - f):
                centre, matrix = covariance(rows[list(honest)], [1.0] * (n - f))
                off = max(0.0, np.linalg.norm(out - centre) - 1e-9 * (1 + np.abs(rows).max()))
                assert off**2 <= kappa(n, f) * top(matrix)[0] * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("name", ["gradient-elimination", "centred-clipping=0.1", "mean", "arc+mean"])
def test_rules_without_a_constant_are_none_however_large(name):
    """Norms, or a fixed length, know nothing of how far apart the honest are."""
    rule = find(name)
    assert not rule.resilience or rule.resilience(5, 1, 1) == inf
    assert not rule.kappa or rule.kappa(5, 1) == inf
    worst = np.zeros(2)
    for offset in (1e3, 1e6):
        rows = np.array([[0.0], [0.0], [0.0], [0.0], [1.0]]) * 1e-3 + offset
        rows[4] = -offset / 2 if name != "mean" else offset**2
        worst = np.maximum(worst, ratios(name, rows, 1))
    assert worst[0] > 1e6


def test_constants_say_where_they_are_from_and_only_what_is_argued_is_called_derived():
    for name, rule in RULES.items():
        for constant in (rule.resilience, rule.kappa):
            if constant:
                assert (constant.source == DERIVED) == (name in ("mean", "krum", "multi-krum"))
                assert constant.source == DERIVED or constant.source.startswith("recalled from ")


def test_without_liars_only_the_error_of_not_being_a_mean_is_left():
    for name in RESILIENT:
        for n in (1, 2, 3, 6):
            assert all(value >= 0 for value in claimed(name, n, 0, 3))
    for name in ("trimmed-mean", "minimum-diameter", "mean-around-median", "mean"):
        assert RULES[name].resilience(6, 0, 3) == 0
    for name in ("trimmed-mean", "smallest-maximum-eigenvalue", "nnm+krum", "mean"):
        assert find(name).kappa(6, 0) == 0


def test_mixing_first_makes_the_constant_small_where_few_lie():
    assert find("nnm+krum").kappa(100, 1) < find("krum").kappa(100, 1) / 4
    assert find("arc+nnm+krum").kappa is None
    assert find("nnm+krum").resilience is None
