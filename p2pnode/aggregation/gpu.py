"""The rules of `coordinate` for vectors on a GPU, each as one pass over memory.

What bounds them is the reading of n·d numbers. Their kernels, in `gpu_kernel`, are compiled at first use for each n, f
and dtype, and kept on disk by Triton. That takes about a second up to n = 26, ten at n = 64, but minutes at n = 128:
the time grows with n, and with the square of the number of comparators.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from p2pnode.aggregation.network import Comparator, comparators, sorting_network

N_MAX = 128
"""Most vectors: a thread has 255 registers, and `gpu_kernel` scales its sums for so many."""

WARPS = 4
"""Warps of 32 threads in a block. They share nothing, so this only says in what portions a processor is filled."""

REGISTERS_FOR_VALUES = 32
"""Registers that several coordinates of one thread may take together: with those for addresses few enough for a
processor to have 1024 threads in flight, and to read enough at once to keep its memory busy."""


def available() -> bool:
    """Whether Triton is installed, as it is with every CUDA build of torch."""
    return find_spec("triton") is not None


def mean_of_ranks(vectors: Tensor, first: int, stop: int) -> Tensor:
    """Per coordinate the mean of the sorted values first, …, stop − 1, in their range; finite for finite input.

    Args:
        vectors: (n, d), 1 ≤ n ≤ `N_MAX`, float32 or bfloat16, finite, on a GPU, with any strides.
        first: 0 ≤ first < n.
        stop: first < stop ≤ n.

    Returns:
        (d,), same dtype and device.
    """
    return _launch("mean_of_ranks", vectors, plan=comparators(len(vectors), first, stop), first=first, stop=stop)


def mean_around_median(vectors: Tensor, keep: int) -> Tensor:
    """Per coordinate the mean of the `keep` values nearest to the median, in their range; finite for finite input.

    Of two values at one distance the lower is taken. The order of the rows makes no difference, to the bit.

    Args:
        vectors: (n, d), 1 ≤ n ≤ `N_MAX`, float32 or bfloat16, finite, on a GPU, with any strides.
        keep: 1 ≤ keep ≤ n.

    Returns:
        (d,), same dtype and device.
    """
    n = len(vectors)
    return _mean_around(vectors, (n - 1) // 2, n // 2 + 1, keep)


def mean_around_trimmed_mean(vectors: Tensor, f: int) -> Tensor:
    """Per coordinate the mean of the n − f values nearest to the trimmed mean, in their range; finite for finite input.

    Of two values at one distance the lower is taken. The order of the rows makes no difference, to the bit.

    Args:
        vectors: (n, d), 2f+1 ≤ n ≤ `N_MAX`, float32 or bfloat16, finite, on a GPU, with any strides.
        f: values left out, ≥ 0.

    Returns:
        (d,), same dtype and device.
    """
    n = len(vectors)
    return _mean_around(vectors, f, n - f, n - f)


def _mean_around(vectors: Tensor, first: int, stop: int, keep: int) -> Tensor:
    return _launch("mean_around", vectors, plan=_full_sort(len(vectors)), first=first, stop=stop, keep=keep)


@cache
def _full_sort(n: int) -> tuple[Comparator, ...]:
    return tuple(Comparator(low, high, True, True) for low, high in sorting_network(n))


def _launch(kernel: str, vectors: Tensor, **settings: object) -> Tensor:
    from p2pnode.aggregation import gpu_kernel  # needs Triton, and is needed by no one without a GPU

    n, d = vectors.shape
    out = vectors.new_empty(d)
    block = WARPS * 32 * _coordinates_per_thread(vectors)
    # Triton launches on the current device, which may be another than that of the vectors.
    with torch.cuda.device_of(vectors):  # type: ignore[no-untyped-call]
        getattr(gpu_kernel, kernel)[-(-d // block),](
            vectors, out, d, *vectors.stride(), n=n, **settings, block=block, num_warps=WARPS, enable_fp_fusion=False
        )
    return out


def _coordinates_per_thread(vectors: Tensor) -> int:
    """As many as one load of 16 bytes brings, if there are registers for them: a power of two.

    One where loads cannot be that wide, so that neighbouring threads still read neighbouring numbers.
    """
    n, d = vectors.shape
    # Triton looks at numbers modulo 16 only; the last is for the mask of the last block.
    if vectors.stride(1) != 1 or any(number % 16 for number in (vectors.data_ptr(), vectors.stride(0), d)):
        return 1
    most = min(16 // vectors.element_size(), REGISTERS_FOR_VALUES // n)
    return 1 << max(0, most.bit_length() - 1)
