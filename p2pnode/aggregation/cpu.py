"""Rules that look at each coordinate alone, on the CPU: the code of `emit`, compiled once for each n, run by threads.

Coordinates are given out in shares, one thread taking one share at a time. What a coordinate becomes does not depend on
its share, so any number of threads gives the same bits. Threads live as long as the call: nothing is left behind that a
fork could break or two callers could quarrel about.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from p2pnode.aggregation import emit
from p2pnode.aggregation.dispatch import Suspicion

FORMATS = {torch.float32: emit.FLOAT32, torch.bfloat16: emit.BFLOAT16}

SHARES_PER_THREAD = 4
"""Shares for each thread: more than one, for a core that is busy elsewhere should not keep all waiting."""

ALONE = 1 << 22
"""Numbers so few that a second thread, which takes 0.4 ms to start and end, saves nothing; measured at n = 10, 26."""

ROWS_AT_ONCE = 4
"""Output rows of a mix that are summed beside each other: as many sums of one register of coordinates as there are
registers to hold them."""

CACHED = 1 << 16
"""Numbers that stay in a core's second cache while several jobs read them."""

KERNELS_MAX = 64
"""Kernels kept; one is needed for each rule, n, f and format in use."""


class Job(NamedTuple):
    """A kernel, where it writes, and the weights it reads."""

    kernel: emit.Kernel
    outs: Sequence[Tensor]
    weights: Sequence[float] = ()


def mean_of_ranks(vectors: Tensor, first: int, stop: int) -> Tensor:
    """Per coordinate the mean of the sorted values first, …, stop − 1; no order of the rows changes a bit of it.

    Args:
        vectors: (n, d) of `dispatch.serves_cpu`.
        first: lowest rank, ≥ 0.
        stop: one more than the highest, first < stop ≤ n.

    Returns:
        (d,), same dtype.

    Raises:
        Suspicion: if one holds NaN or infinity.
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
    """Mean of one or more (d,) rows of `dispatch.serves_cpu`."""
    return _one(_of_all(FORMATS[rows[0].dtype], len(rows)), rows)


def mix_rows(rows: Sequence[Tensor], weights: Sequence[Sequence[float]]) -> Tensor:
    """Σⱼ wᵢⱼ·vⱼ as row i, summed in float64.

    Args:
        rows: q rows of (d,) of `dispatch.serves_cpu`, finite.
        weights: (m, q).

    Returns:
        (m, d), same dtype.
    """
    out = empty(len(weights), rows[0])
    form = FORMATS[out.dtype]
    jobs = []
    for first in range(0, len(out), ROWS_AT_ONCE):
        some = range(first, min(first + ROWS_AT_ONCE, len(out)))
        numbers = [number for row in some for number in weights[row]]
        jobs.append(Job(_of_weights(form, len(rows), len(some)), [out[row] for row in some], numbers))
    _run(jobs, rows)
    return out


def empty(m: int, like: Tensor) -> Tensor:
    """(m, d) of the dtype of (d,) `like`, in large pages where there are any.

    To touch new memory in pages of 4 KiB can take longer than the rule itself. NumPy asks for large ones, torch does
    not.
    """
    raw = np.empty((m, len(like)), dtype=f"u{like.itemsize}")
    new: Tensor = torch.from_numpy(raw).view(like.dtype)
    return new


def spread(work: Callable[[int, int], None], rows: int, d: int, share: int) -> None:
    """Call `work` with the bounds of consecutive shares of d coordinates, in as many threads as torch may use.

    Args:
        work: takes the first coordinate and one past the last.
        rows: how many rows are read, to tell what is too little work for more than one thread.
        d: coordinates.
        share: coordinates at a time.
    """
    shares = [(start, min(start + share, d)) for start in range(0, d, share)]
    left = iter(shares)

    def take() -> None:
        for start, stop in left:  # the threads draw from one iterator
            work(start, stop)

    helpers = min(torch.get_num_threads(), len(shares)) - 1 if rows * d > ALONE else 0
    if helpers < 1:
        take()
        return
    # The caller works too: a helper that a busy machine starts late finds less left to do, or nothing.
    with ThreadPoolExecutor(helpers, thread_name_prefix="aggregation") as pool:
        helping = [pool.submit(take) for _ in range(helpers)]
        take()
    for helper in helping:
        helper.result()


def _one(kernel: emit.Kernel, rows: Sequence[Tensor]) -> Tensor:
    out = empty(1, rows[0])[0]
    _run([Job(kernel, [out])], rows)
    return out


def _run(jobs: Sequence[Job], rows: Sequence[Tensor]) -> None:
    """Do all jobs for all coordinates; those that fill no register are copied to where they do.

    Raises:
        Suspicion: if a kernel has met NaN or infinity.
    """
    met: list[bool] = []
    d, lanes = len(rows[0]), FORMATS[rows[0].dtype].lanes
    whole = d - d % lanes
    if whole:
        calls = [job.kernel.bind(addresses(rows), addresses(job.outs), job.weights) for job in jobs]
        shares = SHARES_PER_THREAD * torch.get_num_threads()
        step = whole if len(jobs) == 1 else max(1, CACHED // (len(rows) * lanes)) * lanes

        def work(start: int, stop: int) -> None:
            for block in range(start, stop, step):
                met.extend(call(block, min(block + step, stop)) for call in calls)

        spread(work, len(rows), whole, -(-whole // (shares * lanes)) * lanes)
    if whole < d:
        inputs = rows[0].new_zeros(len(rows), lanes)
        torch.stack([row[whole:] for row in rows], out=inputs[:, : d - whole])
        for job in jobs:
            results = inputs.new_empty(len(job.outs), lanes)
            met.append(job.kernel.bind(addresses(inputs), addresses(results), job.weights)(0, lanes))
            for out, result in zip(job.outs, results, strict=True):
                out[whole:] = result[: d - whole]
    if any(met):
        raise Suspicion


def addresses(rows: Iterable[Tensor]) -> list[int]:
    """Where the rows begin in memory."""
    return [row.data_ptr() for row in rows]


@lru_cache(KERNELS_MAX)
def _of_ranks(form: emit.Format, n: int, first: int, stop: int) -> emit.Kernel:
    return emit.kernel(form, n, 1, emit.mean_of_ranks(first, stop), watchful=True)


@lru_cache(KERNELS_MAX)
def _around(form: emit.Format, n: int, first: int, stop: int, keep: int) -> emit.Kernel:
    return emit.kernel(form, n, 1, emit.mean_around_ranks(first, stop, keep), watchful=True)


@lru_cache(KERNELS_MAX)
def _of_all(form: emit.Format, n: int) -> emit.Kernel:
    return emit.kernel(form, n, 1, emit.mean_of_all)


@lru_cache(KERNELS_MAX)
def _of_weights(form: emit.Format, n: int, outs: int) -> emit.Kernel:
    return emit.kernel(form, n, outs, emit.weighted_sums(n, outs))
