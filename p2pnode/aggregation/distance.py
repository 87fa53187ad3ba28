"""Distances between whole vectors."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from p2pnode.aggregation.coordinate import blocks
from p2pnode.aggregation.dispatch import serves_cpu
from p2pnode.aggregation.row import Rows, each, together

PIECES = 4
"""Pieces of each block. Differences are float64, beside the numbers they come from, so they need smaller blocks than
minima do; measured at n = 6, 10 on two threads."""

PIECE_MIN = 4096
"""Coordinates below which a piece is not split: calling torch takes as long as these."""

PAIR_PIECES = 2
"""Pieces of each block where all pairs are compared: between so many small operations that the cost of calling torch
shows. Measured at q = 10, 32 on two threads."""


def squared_distances(vectors: Rows, own: Tensor) -> Tensor:
    """‖v − own‖² of each row v of (q, d), as (q,) in float64.

    Differences are taken first, and in float64: ‖v‖² + ‖own‖² − 2⟨v, own⟩ would lose the distance of two near vectors
    of large norm, as those of late training are. Float32 inputs neither overflow nor underflow.
    """
    if serves_cpu([own, *each(vectors)]):
        from p2pnode.aggregation import cpu_distance  # loads a compiler

        return cpu_distance.squared_distances(vectors, own)
    squared = own.new_zeros(len(vectors), dtype=torch.float64)
    for block in blocks(own):
        for rows, mine in zip(_pieces(together(vectors, block), PIECES), _pieces(own[block], PIECES), strict=True):
            difference = rows.double() - mine.double()
            squared += torch.linalg.vecdot(difference, difference)
    return squared


def squared_norms(vectors: Rows) -> Tensor:
    """‖v‖² of each row of (q, d), as (q,) in float64. Float32 inputs neither overflow nor underflow."""
    if serves_cpu(vectors):
        from p2pnode.aggregation import cpu_distance  # loads a compiler

        return cpu_distance.squared_norms(vectors)
    squared = vectors[0].new_zeros(len(vectors), dtype=torch.float64)
    for block in blocks(vectors[0]):
        for rows in _pieces(together(vectors, block), PIECES):
            wide = rows.double()
            squared += torch.linalg.vecdot(wide, wide)
    return squared


def pairwise_squared_distances(vectors: Rows) -> Tensor:
    """‖v − w‖² of all pairs of rows of (q, d), as (q, q) in float64 on the CPU: symmetric, 0 on the diagonal.

    Differences are taken first, as in `squared_distances`, so near vectors of large norm keep their distance; float32
    inputs neither overflow nor underflow. The relative error is 1e-5 at most. Two pairs of equal rows have equal
    distances, to the bit, wherever in `vectors` they stand.
    """
    q = len(vectors)
    squared = torch.zeros(q, q, dtype=torch.float64)
    if q == 1:
        return squared
    if serves_cpu(vectors):
        from p2pnode.aggregation import cpu_distance  # loads a compiler

        return cpu_distance.pairwise_squared_distances(vectors)
    total = vectors[0].new_zeros(q * (q - 1) // 2, dtype=torch.float64)
    for block in blocks(vectors[0]):
        for rows in _pieces(together(vectors, block), PAIR_PIECES):
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


def _pieces(block: Tensor, count: int) -> tuple[Tensor, ...]:
    """(…, d) in so many pieces along d, or in fewer that are worth calling torch for."""
    return torch.split(block, max(PIECE_MIN, -(-block.shape[-1] // count)), -1)
