"""Rules by the largest eigenvalue of a covariance: SMEA, which tries all subsets, and CAF, which filters.

The covariance of q weighted points in d coordinates has the eigenvalues of a (q, q) matrix of inner products, which
follow from the distances: ⟨x_i − μ, x_j − μ⟩ = −½ (D − D̄_i − D̄_j + D̄)_ij, with means D̄ by the weights of μ.
"""

from itertools import combinations, islice

import numpy as np
import torch

from p2pnode.aggregation.points import Array, Mixed, Points

BATCH = 1024
"""Subsets whose eigenvalues are computed at a time."""


def smallest_maximum_eigenvalue(points: Points, f: int) -> Mixed:
    """The mean of those q−f points whose covariance has the smallest maximum eigenvalue; the first of such subsets.

    Args:
        points: q ≥ 2f+1 of them.
        f: how many of them may be lies.

    Source: SMEA, arXiv 2302.04787.
    """
    q = len(points)
    subsets = combinations(range(q), q - f)
    least, chosen = np.inf, tuple(range(q - f))
    while batch := list(islice(subsets, BATCH)):
        rows = np.array(batch)
        largest = np.linalg.eigvalsh(_inner_products(points.squared[rows[:, :, None], rows[:, None, :]]))[:, -1]
        first = int(np.argmin(largest))
        if largest[first] < least:
            least, chosen = largest[first], batch[first]
    return points.mean_of(chosen)


def covariance_filter(points: Points, f: int) -> Mixed:
    """The weighted mean of least maximum eigenvalue of the covariance, among those of a filter that no bound steers.

    The filter starts with weights 1. While more than q−2f are left it multiplies each by 1 − p/max p, where p is how
    far, squared, the point lies from the weighted mean along the top eigenvector. The maximum is over points of
    positive weight: so each pass takes one of them away, and there are q−1 passes at most.

    Args:
        points: q ≥ 2f+1 of them.
        f: how many of them may be lies; for f = 0 the mean is returned.

    Source: CAF, Towards trustworthy federated learning with untrusted participants, ICML 2025.
    """
    q = len(points)
    weights = np.ones(q)
    least, best = np.inf, weights
    while weights.sum() > q - 2 * f:
        rows = np.flatnonzero(weights)
        mass = weights[rows]
        share, root = mass / mass.sum(), np.sqrt(mass / mass.sum())
        gram = _inner_products(points.squared[np.ix_(rows, rows)], share)
        # By torch: NumPy's library would start threads for it, which spin on and keep the cores from what comes next.
        covariance = torch.from_numpy(gram * root[:, None] * root)
        values, directions = (part.numpy() for part in torch.linalg.eigh(covariance))
        if values[-1] < least:
            least, best = values[-1], weights
        along = (directions[:, -1] / root) ** 2
        weights = weights.copy()
        weights[rows] = mass * (1 - along / along.max())
    return points.mean(best)


def _inner_products(squared: Array, share: Array | None = None) -> Array:
    """(…, q, q), the inner products of points about their mean by (q,) weights of sum 1, all alike by default."""
    q = squared.shape[-1]
    share = np.full(q, 1 / q) if share is None else share
    of_rows = squared @ share
    total = of_rows @ share
    gram: Array = (of_rows[..., :, None] + of_rows[..., None, :] - squared - total[..., None, None]) / 2
    return gram
