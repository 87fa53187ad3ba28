"""Rules that look at each coordinate alone, on the CPU: the code of `emit`, compiled once for each n, run by threads.

Coordinates are given out in shares, one thread taking one share at a time. What a coordinate becomes does not depend on
its share, so any number of threads gives the same bits. Threads live as long as the call: nothing is left behind that a
fork could break or two callers could quarrel about.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor

from p2pnode.aggregation import emit

ROWS_MAX = 128
"""Most rows: the code grows as n·log²n, and at 128 takes most of a second to compile."""

FORMATS = {torch.float32: emit.FLOAT32, torch.bfloat16: emit.BFLOAT16}

SHARES_PER_THREAD = 4
"""Shares for each thread: more than one, for a core that is busy elsewhere should not keep all waiting."""

ALONE = 1 << 18
"""Numbers so few that one thread reads them sooner than a second one starts."""

ROWS_AT_ONCE = 4
"""Output rows of a mix that are summed beside each other: as many sums of one register of coordinates as there are
registers to hold them."""

KERNELS_MAX = 64
"""Kernels kept; one is needed for each rule, n, f and format in use."""


def serves(rows: Sequence[Tensor]) -> bool:
    """Whether these (d,) rows can be read: float32 or bfloat16, on the CPU, each contiguous, not too many."""
    return len(rows) <= ROWS_MAX and all(
        row.device.type == "cpu" and row.dtype in FORMATS and (row.stride(0) == 1 or len(row) <= 1) for row in rows
    )


def mean_of_ranks(vectors: Tensor, first: int, stop: int) -> Tensor:
    """Per coordinate the mean of the sorted values first, …, stop − 1; no order of the rows changes a bit of it.

    Args:
        vectors: (n, d) that `serves`, finite.
        first: lowest rank, ≥ 0.
        stop: one more than the highest, first < stop ≤ n.

    Returns:
        (d,), same dtype.
    """
    kernel = _of_ranks(FORMATS[vectors.dtype], len(vectors), first, stop)
    return _one(kernel, vectors.unbind(0))


def mean_around_median(vectors: Tensor, keep: int) -> Tensor:
    """Per coordinate the mean of the `keep` values nearest to the median, as `coordinate.mean_around_median`."""
    n = len(vectors)
    return _one(_around(FORMATS[vectors.dtype], n, (n - 1) // 2, n // 2 + 1, keep), vectors.unbind(0))


def mean_around_trimmed_mean(vectors: Tensor, f: int) -> Tensor:
    """Per coordinate the mean of the n − f values nearest to the trimmed mean."""
    n = len(vectors)
    return _one(_around(FORMATS[vectors.dtype], n, f, n - f, n - f), vectors.unbind(0))


def mean_of_rows(rows: Sequence[Tensor]) -> Tensor:
    """Mean of one or more (d,) rows that `serves`."""
    return _one(_of_all(FORMATS[rows[0].dtype], len(rows)), rows)


def mix_rows(rows: Sequence[Tensor], weights: Sequence[Sequence[float]]) -> Tensor:
    """Σⱼ wᵢⱼ·vⱼ as row i, summed in float64.

    Args:
        rows: q rows of (d,) that `serves`, finite.
        weights: (m, q).

    Returns:
        (m, d), same dtype.
    """
    out = rows[0].new_empty(len(weights), len(rows[0]))
    form = FORMATS[out.dtype]
    for first in range(0, len(out), ROWS_AT_ONCE):
        some = range(first, min(first + ROWS_AT_ONCE, len(out)))
        numbers = [number for row in some for number in weights[row]]
        _run(_of_weights(form, len(rows), len(some)), rows, [out[row] for row in some], numbers)
    return out


def spread(work: Callable[[int, int], None], d: int, share: int) -> None:
    """Call `work` with the bounds of consecutive shares of d coordinates, as torch's number of threads at a time."""
    bounds = [(start, min(start + share, d)) for start in range(0, d, share)]
    threads = min(torch.get_num_threads(), len(bounds))
    if threads <= 1:
        for start, stop in bounds:
            work(start, stop)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="aggregation") as pool:
        for done in [pool.submit(work, start, stop) for start, stop in bounds]:
            done.result()


def _one(kernel: emit.Kernel, rows: Sequence[Tensor]) -> Tensor:
    out = rows[0].new_empty(len(rows[0]))
    _run(kernel, rows, [out], ())
    return out


def _run(kernel: emit.Kernel, rows: Sequence[Tensor], outs: Sequence[Tensor], weights: Sequence[float]) -> None:
    """Run a kernel over all coordinates; those that fill no register are copied to where they do."""
    d, lanes = len(outs[0]), FORMATS[outs[0].dtype].lanes
    whole = d - d % lanes
    sources, targets = ([row.data_ptr() for row in some] for some in (rows, outs))
    shares = SHARES_PER_THREAD * torch.get_num_threads() if d * len(rows) > ALONE else 1
    share = max(lanes, -(-whole // (shares * lanes)) * lanes)
    spread(lambda start, stop: kernel(sources, targets, weights, start, stop), whole, share)
    if whole < d:
        padded = outs[0].new_zeros(len(rows) + len(outs), lanes)
        inputs, results = padded[: len(rows)], padded[len(rows) :]
        torch.stack([row[whole:] for row in rows], out=inputs[:, : d - whole])
        kernel([row.data_ptr() for row in inputs], [row.data_ptr() for row in results], weights, 0, lanes)
        for out, result in zip(outs, results, strict=True):
            out[whole:] = result[: d - whole]


@lru_cache(KERNELS_MAX)
def _of_ranks(form: emit.Format, n: int, first: int, stop: int) -> emit.Kernel:
    return emit.kernel(form, n, 1, emit.mean_of_ranks(first, stop))


@lru_cache(KERNELS_MAX)
def _around(form: emit.Format, n: int, first: int, stop: int, keep: int) -> emit.Kernel:
    return emit.kernel(form, n, 1, emit.mean_around_ranks(first, stop, keep))


@lru_cache(KERNELS_MAX)
def _of_all(form: emit.Format, n: int) -> emit.Kernel:
    return emit.kernel(form, n, 1, emit.mean_of_all)


@lru_cache(KERNELS_MAX)
def _of_weights(form: emit.Format, n: int, outs: int) -> emit.Kernel:
    return emit.kernel(form, n, outs, emit.weighted_sums(n, outs))
