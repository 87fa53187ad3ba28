"""Rules that look at the distance between whole vectors: nearest-neighbour averaging."""

import torch
from torch import Tensor

from p2pnode.aggregation.coordinate import blocks, mean_of_rows
from p2pnode.errors import ConfigError

PIECES = 4
"""Pieces of each block. Differences are float64, beside the numbers they come from, so they need smaller blocks than
minima do; measured at n = 6, 10 on two threads."""


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
