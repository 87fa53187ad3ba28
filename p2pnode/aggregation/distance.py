"""Distances between whole vectors, and the rule that looks at those from one's own: nearest-neighbour averaging."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from p2pnode.aggregation.coordinate import blocks, mean_of_rows
from p2pnode.errors import ConfigError

PIECES = 4
"""Pieces of each block. Differences are float64, beside the numbers they come from, so they need smaller blocks than
minima do; measured at n = 6, 10 on two threads."""

PAIR_PIECES = 2
"""Pieces of each block where all pairs are compared: between so many small operations that the cost of calling torch
shows. Measured at q = 10, 32 on two threads."""


def nearest_neighbour(vectors: Tensor, f: int, own: Tensor) -> Tensor:
    """Mean of the q − f vectors nearest to one's own: no farther from it than the farthest honest vector.

    One's own is among the averaged. Vectors at one distance are taken by row index; which of several equal to one's
    own comes first makes no difference to the mean.

    Args:
        vectors: (q, d), q ≥ f+1, floating, finite; one's own among them. For MoNNA q = n − f.
        f: vectors left out, ≥ 0.
        own: (d,), same dtype and device.

    Returns:
        (d,), same dtype and device.

    Raises:
        ConfigError: if no row equals `own`.

    Source: MoNNA, arXiv 2209.10931, NNA. Its vector that is not finite counts as infinitely far; here it is refused.
    """
    distances = squared_distances(vectors, own)
    nearest = torch.sort(distances, stable=True).indices.tolist()[: len(vectors) - f]
    if distances[nearest[0]] > 0:
        raise ConfigError("own row is none of the rows")
    return mean_of_rows([vectors[row] for row in nearest])


def squared_distances(vectors: Tensor, own: Tensor) -> Tensor:
    """‖v − own‖² of each row v of (q, d), as (q,) in float64.

    Differences are taken first, and in float64: ‖v‖² + ‖own‖² − 2⟨v, own⟩ would lose the distance of two near vectors
    of large norm, as those of late training are. Float32 inputs neither overflow nor underflow.
    """
    squared = vectors.new_zeros(len(vectors), dtype=torch.float64)
    for block in blocks(vectors):
        for rows, mine in zip(vectors[:, block].chunk(PIECES, 1), own[block].chunk(PIECES), strict=True):
            difference = rows.double() - mine.double()
            squared += torch.linalg.vecdot(difference, difference)
    return squared


def squared_norms(vectors: Tensor) -> Tensor:
    """‖v‖² of each row v of (q, d), as (q,) in float64."""
    return squared_distances(vectors, vectors.new_zeros(vectors.shape[1]))


def mix_rows(vectors: Tensor, weights: NDArray[np.float64]) -> Tensor:
    """Σⱼ weights[i, j]·vⱼ for each i, as (m, d) of the dtype and on the device of the rows.

    Args:
        vectors: (q, d), floating, finite.
        weights: (m, q).
    """
    out = vectors.new_empty(len(weights), vectors.shape[1])
    wide = torch.from_numpy(weights).to(vectors.device)
    for block in blocks(vectors):
        out[:, block] = (wide @ vectors[:, block].double()).to(out.dtype)
    return out


def pairwise_squared_distances(vectors: Tensor) -> Tensor:
    """‖v − w‖² of all pairs of rows of (q, d), as (q, q) in float64 on the CPU: symmetric, 0 on the diagonal.

    As exact as `squared_distances`, for the same reasons. Two pairs of equal rows have equal distances, to the bit,
    wherever in `vectors` they stand.
    """
    q = len(vectors)
    squared = torch.zeros(q, q, dtype=torch.float64)
    if q == 1:
        return squared
    total = vectors.new_zeros(q * (q - 1) // 2, dtype=torch.float64)
    for block in blocks(vectors):
        for rows in vectors[:, block].chunk(PAIR_PIECES, 1):
            total += _of_pairs(rows.double().unbind(0))
    squared[*torch.triu_indices(q, q, 1)] = total.cpu()
    return squared + squared.T


def _of_pairs(rows: Sequence[Tensor]) -> Tensor:
    """The squared distance of each pair of rows: of the first from all later ones, of the second, and so on."""
    # One pair at a time: a sum over many pairs at once may take the coordinates in an order that depends on where the
    # pair stands among them.
    difference = torch.empty_like(rows[0])
    squared = []
    for one, other in combinations(rows, 2):
        torch.sub(one, other, out=difference)
        squared.append(torch.dot(difference, difference))
    return torch.stack(squared)
