"""What rules choose among: the rows given, or mixtures of them, and the squared distances between them.

Nearly every rule over whole vectors asks the data for distances once, and ends in one weighted mean of rows. Whatever
lies between is done here and in the rules in float64, on (q, q) numbers: a mixture is the weights of its rows, and the
distance of two mixtures follows from the distances of the rows.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from p2pnode.aggregation import coordinate, distance
from p2pnode.aggregation.dispatch import Suspicion
from p2pnode.aggregation.row import Rows

Array = NDArray[np.float64]

FARTHEST = 1e300
"""Squared distances count as no more, so that a million of them can be added; only float64 rows lie so far apart."""

EPSILON = float(np.finfo(np.float64).eps)

ROUNDING_MAX = 1e-6
"""Rounding that a squared distance may have, against itself: a float32 vector has about as much."""


class Mixed(NamedTuple):
    """What a rule makes of its points.

    Args:
        vector: (d,), of the dtype and on the device of the rows.
        kept: the rows that have a part in it, ascending.
    """

    vector: Tensor
    kept: tuple[int, ...]


class Points:
    """m points of which each is a mixture Σⱼ wⱼ·xⱼ of the q rows given, with weights wⱼ ≥ 0.

    Args:
        rows: q vectors, floating, finite.

    Attributes:
        weights: (m, q), those of the points; at first the points are the rows.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.weights = np.eye(len(rows))
        # Of mixtures, the points that are the rows. Never itself: a circle would keep the rows, which may fill half the
        # memory, until the collector comes by.
        self._given: Points | None = None

    def __len__(self) -> int:
        return len(self.weights)

    def combined(self, weights: Array) -> "Points":
        """The mixtures of these points by the (k, m) weights."""
        mixed = Points(self.rows)
        mixed.weights, mixed._given = weights @ self.weights, self if self._given is None else self._given
        return mixed

    @cached_property
    def vectors(self) -> Rows:
        """The m points themselves."""
        return self.rows if self._given is None else coordinate.mix_rows(self.rows, self.weights)

    @cached_property
    def squared(self) -> Array:
        """(m, m), the squared distances of the points: symmetric, ≥ 0, and 0 between points that are mixed alike."""
        m, q = self.weights.shape
        # From the rows' distances it takes m²·q² steps, from the points themselves m·(m + q)·d.
        if self._given is not None and m * q * q < (m + q) * len(self.rows[0]):
            between, rounding = _between(self.weights, self._given._with_origin(self.weights))
            if (rounding <= ROUNDING_MAX * between).all():
                return between
        return self._bounded(distance.pairwise_squared_distances(self.vectors))

    @cached_property
    def squared_norms(self) -> Array:
        """(m,), the squared distances of the points from the origin."""
        return self._bounded(distance.squared_norms(self.vectors))

    def squared_from(self, point: Tensor) -> Array:
        """(m,), the squared distances of the points from (d,), a vector of the rows' dtype and device."""
        return self._bounded(distance.squared_distances(self.vectors, point))

    def mean_of(self, chosen: Iterable[int]) -> Mixed:
        """The mean of the points chosen, one at least."""
        weights = np.zeros(len(self))
        weights[list(chosen)] = 1
        return self.mean(weights)

    def mean(self, weights: Array) -> Mixed:
        """Σᵢ wᵢ·pᵢ / Σᵢ wᵢ of the points, for (m,) weights ≥ 0, not all 0."""
        of_rows = weights @ self.weights
        kept = np.flatnonzero(of_rows)
        return Mixed(self._of_rows(of_rows, kept, float(of_rows.sum() / weights.sum())), tuple(kept.tolist()))

    def each(self, vector: Tensor) -> Mixed:
        """A vector in which each point has a part."""
        return Mixed(vector, tuple(np.flatnonzero(self.weights.any(axis=0)).tolist()))

    def by_coordinate(self, kernel: Callable[..., Tensor]) -> Mixed:
        """What a rule of `coordinate` makes of the points; each has a part in it.

        Args:
            kernel: takes the rows, and as `weights` those of the points if they are not the rows.
        """
        return self.each(kernel(self.rows, weights=None if self._given is None else self.weights))

    def _of_rows(self, weights: Array, kept: NDArray[np.intp], total: float) -> Tensor:
        """The mean of the rows kept, times what their weights sum up to: clipped rows weigh less than they are many."""
        if not len(kept):
            return torch.zeros_like(self.rows[0])
        if np.ptp(weights[kept]) == 0:
            # Exact where rows are equal, and never out of their range.
            vector = coordinate.mean([self.rows[row] for row in kept.tolist()])
        else:
            vector = coordinate.weighted_mean(self.rows, weights.tolist())
        return vector if abs(total - 1) < 1e-9 else vector.mul_(total)

    def _with_origin(self, weights: Array) -> Array:
        """(q+1, q+1), the rows' squared distances from each other and, last, from the origin where the weights need it.

        Weights that sum up to 1 put nothing there.
        """
        squared = np.zeros((len(self) + 1, len(self) + 1))
        squared[:-1, :-1] = self.squared
        if np.abs(weights.sum(axis=1) - 1).max() > 1e-9:
            squared[:-1, -1] = squared[-1, :-1] = self.squared_norms
        return squared

    def _bounded(self, squared: Tensor) -> Array:
        array = squared.cpu().numpy()
        if self.rows[0].dtype != torch.float64 and not np.isfinite(array).all():
            raise Suspicion
        bounded: Array = np.minimum(array, FARTHEST)
        return bounded


def _between(weights: Array, squared: Array) -> tuple[Array, Array]:
    """The squared distances between mixtures by (m, q) weights, the rest of each on the last of q+1 rows; both (m, m).

    ‖Σ uⱼ·xⱼ‖² = −½ Σ uⱼ·uₖ·‖xⱼ − xₖ‖² where Σ uⱼ = 0. The difference of two mixtures is taken first: so a row far out
    that has the same weight in both, as 0, adds no rounding.

    Returns:
        The squared distances, and how far rounding may have moved each. A lie far out, clipped to nearly nothing, may
        hide them all.
    """
    full = np.column_stack([weights, 1 - weights.sum(axis=1)])
    between, rounding = np.zeros((2, len(full), len(full)))
    for row in range(len(full) - 1):
        one, others = full[row], full[row + 1 :]
        difference = one - others
        between[row, row + 1 :] = np.einsum("mj,mj->m", difference @ squared, difference) / -2
        size = np.where(difference == 0, 0, one + others)
        rounding[row, row + 1 :] = np.einsum("mj,mj->m", np.abs(difference) @ squared, size) * 4 * EPSILON
    between = np.maximum(between, 0)
    return between + between.T, rounding + rounding.T
