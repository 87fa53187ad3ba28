"""Which code mixes which vectors: compiled for the CPU, compiled for a CUDA device, or else torch."""

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from p2pnode.aggregation import gpu
from p2pnode.aggregation.row import Rows, each

Weights = NDArray[np.float64]
"""(m, q), finite: mixtures Σⱼ wᵢⱼ·vⱼ of q rows, summed in float64, that a rule takes in place of the rows."""

ROWS_MAX = 128
"""Most rows for compiled code. It is written anew for each number of them, and grows as n·log²n: at 128 rows compiling
takes a second or two."""

GPU_ROWS_MAX = 64
"""Most rows for Triton, which takes some seconds to compile for so many, and minutes for 128."""

NUMBERS_MIN = 1 << 16
"""Fewest numbers for compiled code on the CPU: compiling takes as long as a hundred calls with less."""


class Suspicion(Exception):
    """A vector is not finite, or a number that came of one: to be looked into before any mixture counts."""


class Kernels(Protocol):
    """What `cpu` and `gpu` both offer, with arguments and results as of the functions in `coordinate`.

    `cpu` alone takes weights, and rows that are not one tensor.
    """

    def mean_of_ranks(self, vectors: Rows, first: int, stop: int, **mixing: Weights) -> Tensor: ...
    def mean_around_median(self, vectors: Rows, keep: int, **mixing: Weights) -> Tensor: ...
    def mean_around_trimmed_mean(self, vectors: Rows, f: int, **mixing: Weights) -> Tensor: ...


def kernels(vectors: Rows) -> Kernels | None:
    """The compiled code that takes these vectors, if there is any."""
    if serves_cpu(vectors):
        return cast(Kernels, import_module("p2pnode.aggregation.cpu"))
    fits_gpu = isinstance(vectors, Tensor) and vectors.device.type == "cuda" and len(vectors) <= GPU_ROWS_MAX
    if fits_gpu and _fit(each(vectors)) and gpu.available():
        return cast(Kernels, gpu)
    return None


def serves_cpu(vectors: Rows) -> bool:
    """Whether `cpu` and `cpu_distance` take these vectors: contiguous rows, and numbers enough to compile for."""
    rows = each(vectors)
    return (
        len(rows) * len(rows[0]) >= NUMBERS_MIN
        and _fit(rows)
        and all(row.device.type == "cpu" and row.stride(0) == 1 for row in rows)
    )


def _fit(rows: Sequence[Tensor]) -> bool:
    return len(rows) <= ROWS_MAX and rows[0].dtype in (torch.float32, torch.bfloat16)
