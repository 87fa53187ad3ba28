"""Distances between whole float32 or bfloat16 vectors on the CPU: the loops of `emit_distance`, run by threads.

Sums go by shares of fixed length, added up in their order in float64. So neither the number of threads nor a row's
place among the others changes a bit of them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from p2pnode.aggregation import emit_distance
from p2pnode.aggregation.cpu import addresses, spread
from p2pnode.aggregation.emit import Kernel
from p2pnode.aggregation.row import Rows, each

SHARE = 1 << 16
"""Coordinates that a thread takes at a time; a multiple of a block. About a millisecond for ten rows."""


def squared_distances(vectors: Rows, own: Tensor) -> Tensor:
    """‖v − own‖² of each row of (q, d), as (q,), summed in float64."""
    rows = [own, *each(vectors)]
    return _sums(emit_distance.from_first(8 * own.itemsize), rows, len(rows))[1:]


def squared_norms(vectors: Rows) -> Tensor:
    """‖v‖² of each row of (q, d), as (q,), summed in float64, where no float32 overflows: finite if the row is."""
    rows = each(vectors)
    return _sums(emit_distance.norms(8 * rows[0].itemsize), rows, len(rows))


def pairwise_squared_distances(vectors: Rows) -> Tensor:
    """‖v − w‖² of all pairs of rows of (q, d), q ≥ 2, as (q, q), symmetric; relative error ≤ 1e-5."""
    rows = each(vectors)
    q = len(rows)
    line = q + emit_distance.OTHERS
    sums = _sums(emit_distance.pairs(8 * rows[0].itemsize), rows, q * line)
    upper = np.triu(sums.numpy().reshape(q, line)[:, :q], 1)  # torch's triu starts threads that no fork survives
    return torch.from_numpy(upper + upper.T)


def _sums(kernel: Kernel, rows: Sequence[Tensor], count: int) -> Tensor:
    """What the kernel sums up over all coordinates: `count` numbers."""
    d = len(rows[0])
    whole = d - d % emit_distance.LANES
    sums = torch.zeros(-(-whole // SHARE) + 1, count, dtype=torch.float64)
    places = addresses(sums)
    table = addresses(rows)

    def work(start: int, stop: int) -> None:
        kernel.bind(table, [places[start // SHARE]])(start, stop)

    spread(work, len(rows), whole, SHARE)
    if whole < d:
        padded = rows[0].new_zeros(len(rows), emit_distance.LANES)
        torch.stack([row[whole:] for row in rows], out=padded[:, : d - whole])
        kernel.bind(addresses(padded), places[-1:])(0, emit_distance.LANES)
    total = torch.zeros(count, dtype=torch.float64)
    for share in sums:
        total += share
    return total
