"""Vectors as rules take them: the rows of one tensor, or rows that each lie where they came in."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Rows: TypeAlias = Tensor | Sequence[Tensor]
"""(n, d), or n ≥ 1 of (d,), of one dtype, on one device. To bring them together would take as much memory again."""


def each(rows: Rows) -> list[Tensor]:
    """The rows, one by one; no copies."""
    return list(rows.unbind(0)) if isinstance(rows, Tensor) else list(rows)


def together(rows: Rows, block: slice = slice(None)) -> Tensor:
    """(n, length of the block): those coordinates of all rows. A view where the rows are one tensor."""
    return rows[:, block] if isinstance(rows, Tensor) else torch.stack([row[block] for row in rows])
