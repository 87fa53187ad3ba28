"""Pre-aggregations: what makes other points of the points before a rule sees them.

Each is a matrix of weights, so several of them and most rules after them cost no pass over the data.
"""

from random import Random

import numpy as np

from p2pnode.aggregation.points import Array, Points


def nearest_neighbour_mixing(points: Points, f: int) -> Points:
    """In place of each point the mean of the q−f nearest to it, itself the first of them; at one distance by index.

    Args:
        points: q ≥ f+1 of them.
        f: how many of them may be lies.

    Source: NNM, arXiv 2302.01772.
    """
    q = len(points)
    nearest = np.argsort(points.squared - np.eye(q), axis=1, kind="stable")[:, : q - f]
    weights = np.zeros((q, q))
    np.put_along_axis(weights, nearest, 1 / (q - f), axis=1)
    return points.combined(weights)


def bucketing(points: Points, s: int, seed: int) -> Points:
    """The means of ⌈q/s⌉ buckets of s points each, the last of the rest; f liars spoil no more than f buckets.

    The points are dealt out in an order that is a function of the seed and of q alone. Who knows the seed before he
    sends knows whom he meets: let it differ from round to round.

    Args:
        points: any number of them.
        s: points to a bucket, ≥ 1.
        seed: of the order.

    Source: Bucketing, arXiv 2006.09365.
    """
    q = len(points)
    order = Random(f"bucketing {seed}").sample(range(q), q)
    weights = np.zeros((-(-q // s), q))
    for bucket, first in enumerate(range(0, q, s)):
        members = order[first : first + s]
        weights[bucket, members] = 1 / len(members)
    return points.combined(weights)


def clip(points: Points, c: float) -> Points:
    """Each point at most c long: shortened to it if it is longer.

    Args:
        points: any number of them.
        c: the length, > 0.
    """
    return _no_longer_than(points, c)


def adaptive_robust_clip(points: Points, f: int) -> Points:
    """The ⌊2f(q−f)/q⌋ longest points shortened to the length of the longest of the others.

    Args:
        points: q ≥ f+1 of them.
        f: how many of them may be lies.

    Source: ARC, arXiv 2405.14432.
    """
    q = len(points)
    clipped = 2 * f * (q - f) // q
    return _no_longer_than(points, float(np.sqrt(np.sort(points.squared_norms)[q - clipped - 1])))


def _no_longer_than(points: Points, length: float) -> Points:
    return points.combined(np.diag(shortening(points.squared_norms, length)))


def shortening(squared: Array, length: float) -> Array:
    """What to multiply vectors of these squared lengths by so that none is longer than `length`."""
    lengths = np.sqrt(squared)
    return np.divide(length, lengths, out=np.ones_like(lengths), where=lengths > length)
