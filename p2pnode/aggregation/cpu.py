"""Rules that look at each coordinate alone, on the CPU: the code of `emit`, compiled once for each n, run by threads.

Coordinates are given out in shares, one thread taking one share at a time. What a coordinate becomes does not depend on
its share, so any number of threads gives the same bits. Threads live as long as the call: nothing is left behind that a
fork could break or two callers could quarrel about.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from p2pnode.aggregation import emit
from p2pnode.aggregation.dispatch import Suspicion, Weights
from p2pnode.aggregation.row import Rows, each

FORMATS = {torch.float32: emit.FLOAT32, torch.bfloat16: emit.BFLOAT16}

SHARES_PER_THREAD = 4
"""Shares for each thread: more than one, for a core that is busy elsewhere should not keep all waiting."""

ALONE = 1 << 22
"""Numbers so few that a second thread, which takes 0.4 ms to start and end, saves nothing; measured at n = 10, 26."""

KERNELS_MAX = 64
"""Kernels kept; one is needed for each rule, n, f and format in use."""


def mean_of_ranks(vectors: Rows, first: int, stop: int, weights: Weights | None = None) -> Tensor:
    """Per coordinate the mean of the sorted values first, …, stop − 1; no order of the rows changes a bit of it.

    Args:
        vectors: n of `dispatch.serves_cpu`.
        first: lowest rank, ≥ 0.
        stop: one more than the highest, first < stop ≤ n, or m.
        weights: (m, n), of mixtures that are taken in place of the rows.

    Returns:
        (d,), same dtype.

    Raises:
        Suspicion: if one holds NaN or infinity.
    """
    return _of_points(vectors, weights, emit.mean_of_ranks, first, stop)


def mean_around_median(vectors: Rows, keep: int, weights: Weights | None = None) -> Tensor:
    """Per coordinate the mean of the `keep` values nearest to the median, as `coordinate.mean_around_median`."""
    n = len(vectors if weights is None else weights)
    return _of_points(vectors, weights, emit.mean_around_ranks, (n - 1) // 2, n // 2 + 1, keep)


def mean_around_trimmed_mean(vectors: Rows, f: int, weights: Weights | None = None) -> Tensor:
    """Per coordinate the mean of the n − f values nearest to the trimmed mean."""
    n = len(vectors if weights is None else weights)
    return _of_points(vectors, weights, emit.mean_around_ranks, f, n - f, n - f)


def mean(vectors: Rows) -> Tensor:
    """Mean of one or more vectors of `dispatch.serves_cpu`."""
    out = empty(1, vectors[0])
    _run(_mean_of_all(FORMATS[out.dtype], len(vectors)), each(vectors), out)
    return out[0]


def mix_rows(vectors: Rows, weights: Weights) -> Tensor:
    """Σⱼ wᵢⱼ·vⱼ as row i, summed in float64.

    Args:
        vectors: q of `dispatch.serves_cpu`, finite.
        weights: (m, q).

    Returns:
        (m, d), same dtype.
    """
    out = empty(len(weights), vectors[0])
    _run(_mixtures(FORMATS[out.dtype], len(vectors), len(weights)), each(vectors), out, weights)
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


def _of_points(vectors: Rows, weights: Weights | None, mean: Callable[..., emit.Mean], *numbers: int) -> Tensor:
    """One vector of the rows, or of their mixtures, by what `mean(*numbers)` writes."""
    rows, out = each(vectors), empty(1, vectors[0])
    if weights is not None and (chosen := _rows_chosen(weights)) is not None:
        rows, weights = [rows[row] for row in chosen], None
    kernel = _watchful(FORMATS[out.dtype], len(rows), None if weights is None else len(weights), mean, *numbers)
    _run(kernel, rows, out, weights)
    return out[0]


def _rows_chosen(weights: Weights) -> list[int] | None:
    """Which row each mixture is, if none is of several."""
    if not (np.isin(weights, (0, 1)).all() and (weights.sum(axis=1) == 1).all()):
        return None
    rows: list[int] = weights.argmax(axis=1).tolist()
    return rows


def _run(kernel: emit.Kernel, rows: Sequence[Tensor], outs: Tensor, weights: Weights | None = None) -> None:
    """Write all coordinates; those that fill no register are copied to where they do.

    Raises:
        Suspicion: if the kernel has met NaN or infinity.
    """
    met: list[bool] = []
    numbers = [] if weights is None else weights.ravel().tolist()
    d, lanes = len(rows[0]), FORMATS[rows[0].dtype].lanes
    whole = d - d % lanes
    if whole:
        call = kernel.bind(addresses(rows), addresses(outs), numbers)
        shares = SHARES_PER_THREAD * torch.get_num_threads()
        spread(lambda *bounds: met.append(call(*bounds)), len(rows), whole, -(-whole // (shares * lanes)) * lanes)
    if whole < d:
        inputs, results = rows[0].new_zeros(len(rows), lanes), outs.new_empty(len(outs), lanes)
        torch.stack([row[whole:] for row in rows], out=inputs[:, : d - whole])
        met.append(kernel.bind(addresses(inputs), addresses(results), numbers)(0, lanes))
        outs[:, whole:] = results[:, : d - whole]
    if any(met):
        raise Suspicion


def addresses(rows: Iterable[Tensor]) -> list[int]:
    """Where the rows begin in memory."""
    return [row.data_ptr() for row in rows]


@lru_cache(KERNELS_MAX)
def _watchful(
    form: emit.Format, n: int, points: int | None, mean: Callable[..., emit.Mean], *numbers: int
) -> emit.Kernel:
    return emit.kernel(form, n, 1, mean(*numbers), points=points, watchful=True)


@lru_cache(KERNELS_MAX)
def _mean_of_all(form: emit.Format, n: int) -> emit.Kernel:
    return emit.kernel(form, n, 1, emit.mean_of_all)


@lru_cache(KERNELS_MAX)
def _mixtures(form: emit.Format, n: int, points: int) -> emit.Kernel:
    return emit.kernel(form, n, points, emit.all_as_they_are, points=points)
