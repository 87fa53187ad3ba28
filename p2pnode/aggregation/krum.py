"""Rules by Krum's score: Krum, Multi-Krum, Bulyan, Multi-Bulyan.

The score of a point among q is the sum of its squared distances from the q−f−2 nearest others. Points of one score are
taken by index; a point's own distance 0 is never one of those from others, even if others equal it.
"""

from functools import partial

import numpy as np

from p2pnode.aggregation.coordinate import mean_around_median
from p2pnode.aggregation.points import Array, Mixed, Points


def scores(squared: Array, f: int) -> Array:
    """(q,), the Krum scores for (q, q) squared distances.

    From one other at least, if there is one: among 2f+1 or 2f+2 points, the last that Bulyan chooses from, q−f−2 may be
    none.
    """
    q = len(squared)
    others = squared + np.diag(np.full(q, np.inf))
    nearest = np.sort(others, axis=1)[:, : min(max(1, q - f - 2), q - 1)]
    total: Array = nearest.sum(axis=1)
    return total


def krum(points: Points, f: int) -> Mixed:
    """The point of the least score.

    Args:
        points: q ≥ 2f+3 of them, or any if f = 0.
        f: how many of them may be lies.

    Source: Krum, arXiv 1703.02757.
    """
    return points.mean_of([int(np.argmin(scores(points.squared, f)))])


def multi_krum(points: Points, f: int, m: int | None = None) -> Mixed:
    """The mean of the m points of the least scores.

    Args:
        points: q ≥ 2f+3 of them, or any if f = 0.
        f: how many of them may be lies.
        m: from 1, which is Krum, to q−f−2, the default.

    Source: Krum, arXiv 1703.02757; Multi-Krum, arXiv 1905.04374.
    """
    return points.mean_of(_best(scores(points.squared, f), multi_krum_most(len(points), f) if m is None else m))


def multi_krum_most(q: int, f: int) -> int:
    """The largest m: q−f−2, but never 0."""
    return max(1, q - f - 2)


def bulyan(points: Points, f: int) -> Mixed:
    """Per coordinate the mean of the q−4f values nearest to the median of q−2f points, chosen by Krum one by one.

    The scores are computed anew among those that remain. Per coordinate no value averaged is farther from that median
    than some honest value.

    Args:
        points: q ≥ 4f+3 of them, or any if f = 0.
        f: how many of them may be lies.

    Source: Bulyan, arXiv 1802.07927.
    """
    q = len(points)
    remaining = np.arange(q)
    chosen = []
    for _ in range(q - 2 * f):
        best = int(np.argmin(scores(points.squared[np.ix_(remaining, remaining)], f)))
        chosen.append(int(remaining[best]))
        remaining = np.delete(remaining, best)
    selected = points.combined(np.eye(q)[chosen])
    return selected.by_coordinate(partial(mean_around_median, keep=q - 4 * f))


def multi_bulyan(points: Points, f: int) -> Mixed:
    """Per coordinate the mean of the q−4f−2 values nearest to the median of q−2f−2 means, each of Multi-Krum's best.

    The k-th mean, k = 0, 1, …, is of the q−f−2−k of least score among those that remain; then the best of them is
    taken away, and the scores are computed anew.

    Args:
        points: q ≥ 4f+3 of them, or any if f = 0.
        f: how many of them may be lies.

    Source: Multi-Bulyan, arXiv 1905.04374.
    """
    q = len(points)
    most = multi_krum_most(q, f)
    rounds = max(1, q - 2 * f - 2)
    weights = np.zeros((rounds, q))
    remaining = np.arange(q)
    for k in range(rounds):
        best = _best(scores(points.squared[np.ix_(remaining, remaining)], f), most - k)
        weights[k, remaining[best]] = 1 / len(best)
        remaining = np.delete(remaining, best[0])
    means = points.combined(weights)
    return means.by_coordinate(partial(mean_around_median, keep=rounds - 2 * f))


def _best(values: Array, count: int) -> list[int]:
    chosen: list[int] = np.argsort(values, kind="stable")[:count].tolist()
    return chosen
