"""Rules that clip or weigh the points around a centre: geometric median, centred clipping, self-centred clipping."""

from math import sqrt

import numpy as np
from torch import Tensor

from p2pnode.aggregation.coordinate import median
from p2pnode.aggregation.points import Array, Mixed, Points
from p2pnode.aggregation.pre import shortening

STEPS_MAX = 2_000
"""Most steps of Weiszfeld's algorithm. It falls as fast as a geometric series, but for medians so near to one of the
points that which of them is taken makes no difference to learning."""

TOLERANCE = 1e-12
"""A step shorter than this, against the distance of the half of the points nearest to it, is the last."""

REACH = 1e8
"""Points farther from the best of them than so many times the median distance are drawn in to it: their squared
distances in float64 hide where the others lie. The geometric median moves by a part in 1e8 of that distance at most."""


def geometric_median(points: Points) -> Mixed:
    """The point of least sum of distances from the points; if a whole line does, the first of them on it.

    Weiszfeld's algorithm on the weights. It starts at the point of least sum: if that is not the median, one step
    leaves it, and since the sum only falls no other point is ever met, where the weights would be infinite.

    Args:
        points: 2f+1 of them for f lies.

    Source: Weiszfeld; the step from a point, Vardi and Zhang, The multivariate L1-median, PNAS 97, 2000; in learning
        RFA, arXiv 1912.13445.
    """
    for _ in range(len(points)):  # once, but where a square overflowed
        distances = np.sqrt(points.squared)
        best = int(np.argmin(distances.sum(axis=1)))
        reach = REACH * float(np.median(distances[best]))
        if reach == 0 or distances[best].max() <= 2 * reach:
            break
        points = _drawn_in(points, best, reach)
    return points.mean(_weiszfeld(points.squared))


def _drawn_in(points: Points, best: int, reach: float) -> Points:
    """The points, those farther than that from one of them drawn in to it so far."""
    part = shortening(points.squared[best], reach)
    weights = np.diag(part)
    weights[:, best] += 1 - part
    drawn = points.combined(weights)
    # Distances that follow from the old ones would hide as much.
    drawn.squared = Points(drawn.vectors).squared
    return drawn


def _weiszfeld(squared: Array) -> Array:
    """(q,), the weights of the points in their geometric median, by their (q, q) squared distances."""
    distances = np.sqrt(squared)
    best = int(np.argmin(distances.sum(axis=1)))
    weights: Array = np.eye(len(squared))[best]
    away = distances[best] > 0
    pull = np.divide(1, distances[best], out=np.zeros(len(squared)), where=away)
    # All others pull at the point; it holds against them by the number of those that are there.
    toward = _normal(pull) if away.any() else weights
    force = float(pull.sum()) * _distance(toward - weights, squared)
    there = np.count_nonzero(~away)
    if force <= there * (1 + TOLERANCE):
        return weights
    weights = weights + (1 - there / force) * (toward - weights)
    for _ in range(STEPS_MAX):
        # ‖Σ wⱼ·xⱼ − xᵢ‖² = (Dw)ᵢ − ½ wᵀDw
        reach = squared @ weights
        lengths = np.sqrt(np.maximum(reach - weights @ reach / 2, np.finfo(np.float64).tiny))
        following = _normal(1 / lengths)
        step = _distance(following - weights, squared)
        weights = following
        if step <= TOLERANCE * float(np.median(lengths)):
            break
    return weights


def _normal(weights: Array) -> Array:
    normal: Array = weights / weights.sum()
    return normal


def _distance(difference: Array, squared: Array) -> float:
    """‖Σ uⱼ·xⱼ‖ for a difference u of two mixtures."""
    return sqrt(max(0.0, -float(difference @ squared @ difference) / 2))


def centred_clipping(points: Points, tau: float, steps: int, centre: Tensor | None) -> Mixed:
    """A centre moved, in each step, by the mean of the differences of the points from it, none of them longer than τ.

    So f lies move it by f·τ/q a step at most more than as many honest points would.

    Args:
        points: 2f+1 of them for f lies.
        tau: τ > 0.
        steps: how many, ≥ 1.
        centre: (d,), where to start: the mixture of the round before, or the model at which this one began. By default
            the coordinate-wise median of the points.

    Source: Learning from history, arXiv 2012.10333.
    """
    vectors = points.vectors
    at = median(vectors) if centre is None else centre
    for _ in range(steps):
        parts = shortening(points.squared_from(at), tau)
        target = points.mean(parts).vector
        # Of equal points the mean is exact; and a part of the way, of less than all of it, stays between its ends.
        at = at.lerp(target, float(parts.mean()))
    return points.each(at)


def self_centred_clipping(points: Points, f: int, own: int, tau: float | None = None) -> Mixed:
    """One's own point, moved by the mean of the differences of all q from it, none of them longer than τ.

    That is gossip on a complete graph with equal weights 1/q. So f lies move it by f·τ/q at most.

    Args:
        points: q ≥ 2f+1 of them.
        f: how many of them may be lies.
        own: which is one's own.
        tau: τ > 0. By default the distance of the farthest of the q−f nearest to one's own, itself among them: no more
            than that of the farthest honest one. For f = 1 that is the second largest, as in the authors' code; their
            theory takes a mean over the honest, whom nobody knows.

    Source: ClippedGossip, arXiv 2202.01545.
    """
    q = len(points)
    squared = points.squared_from(points.vectors[own])
    squared[own] = 0
    length = float(np.sqrt(np.sort(squared)[q - f - 1])) if tau is None else tau
    weights = shortening(squared, length) / q
    weights[own] += 1 - weights.sum()
    return points.mean(weights)
