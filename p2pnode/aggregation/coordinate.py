"""Rules that look at each coordinate alone: mean, median, trimmed mean, and means around these.

Most vectors are mixed by compiled code, which `dispatch` chooses. What stands here serves the rest, in torch, and is
the reference: code for the CPU returns the same bits, except that it tells −0 from +0.

Sorting n values in each of d coordinates is done for all coordinates at once, by a sorting network: a fixed list of
comparators, each a minimum and a maximum of two whole rows, pruned to what the wanted ranks need. Blocks of coordinates
pass through it one at a time, small enough to stay in cache.

Means are sums in float64, divided. Up to 2²⁹ equal float32 values add up exactly there, and rounding is monotone: so a
mean never leaves the range of what it averages, equal values stay exactly, and nothing overflows. Sorted values are
added in order of rank, so that no order of the vectors leaves its trace. Of float64 vectors running means are taken,
m ← m + (x − m)/k: they keep the same promises, but overflow if two values differ by more than the largest number.
"""

import math
from collections.abc import Iterator, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from p2pnode.aggregation.dispatch import Weights, kernels, serves_cpu
from p2pnode.aggregation.network import Comparator, comparators
from p2pnode.aggregation.row import Rows, each, together

BLOCK_PER_THREAD = 65_536
"""Coordinates that one CPU thread takes at a time. Measured at n = 6, 10, 26 on two threads: below, the cost of calling
torch shows; above, the rows fall out of the cache."""

BLOCK_ON_ACCELERATOR = 4_194_304
"""Coordinates taken at a time elsewhere: bounds the scratch memory, and keeps kernels far longer than their launch."""


SORTED_MAX = 4096
"""Numbers so few that to sort them takes less than to call torch for each comparator."""


def mean(vectors: Rows) -> Tensor:
    """Mean of the rows: every coordinate lies within the range of the inputs; their order matters to rounding only.

    Args:
        vectors: (n, d), n ≥ 1, floating, finite.

    Returns:
        (d,), same dtype and device.
    """
    if serves_cpu(vectors):
        from p2pnode.aggregation import cpu  # loads a compiler

        return cpu.mean(vectors)
    rows = each(vectors)
    out = torch.empty_like(rows[0], dtype=_wide(rows[0].dtype), memory_format=torch.contiguous_format)
    for block in blocks(out):
        _average([row[block] for row in rows], out[block])
    return out.to(rows[0].dtype)


def median(vectors: Rows, weights: Weights | None = None) -> Tensor:
    """Per coordinate the middle value, for even n the mean of the two: within the honest range if n ≥ 2f+1.

    Args:
        vectors: (n, d), n ≥ 1, floating, finite.
        weights: of mixtures that are taken in place of the rows.

    Returns:
        (d,), same dtype and device.

    Source: GuanYu, arXiv 1905.03853.
    """
    n = _count(vectors, weights)
    return _mean_of_ranks(vectors, (n - 1) // 2, n // 2 + 1, weights)


def trimmed_mean(vectors: Rows, f: int, weights: Weights | None = None) -> Tensor:
    """Per coordinate the mean of all but the f lowest and f highest: within the honest range if n ≥ 2f+1.

    Args:
        vectors: (n, d), n ≥ 2f+1, floating, finite.
        f: values dropped at each end, ≥ 0.
        weights: of mixtures that are taken in place of the rows.

    Returns:
        (d,), same dtype and device.

    Source: averaging agreement, arXiv 2008.00742.
    """
    return _mean_of_ranks(vectors, f, _count(vectors, weights) - f, weights)


def mean_around_median(vectors: Rows, keep: int, weights: Weights | None = None) -> Tensor:
    """Per coordinate the mean of the `keep` values nearest to the median; of two at one distance the lower.

    Args:
        vectors: (n, d), floating, finite.
        keep: 1 ≤ keep ≤ n.
        weights: of mixtures that are taken in place of the rows.

    Returns:
        (d,), same dtype and device.

    Source: MeaMed, arXiv 1802.10116, with keep = n − f; second phase of Bulyan, arXiv 1802.07927.
    """
    vectors, mixing = _points(vectors, weights)
    if compiled := kernels(vectors):
        return compiled.mean_around_median(vectors, keep, **mixing)
    n = len(vectors)
    return _mean_around_ranks(vectors, (n - 1) // 2, n // 2 + 1, keep)


def mean_around_trimmed_mean(vectors: Rows, f: int, weights: Weights | None = None) -> Tensor:
    """Per coordinate the mean of the n − f values nearest to the trimmed mean; of two at one distance the lower.

    Args:
        vectors: (n, d), n ≥ 2f+1, floating, finite.
        f: values left out, ≥ 0.
        weights: of mixtures that are taken in place of the rows.

    Returns:
        (d,), same dtype and device.

    Source: Phocas, arXiv 1805.09682.
    """
    vectors, mixing = _points(vectors, weights)
    if compiled := kernels(vectors):
        return compiled.mean_around_trimmed_mean(vectors, f, **mixing)
    n = len(vectors)
    return _mean_around_ranks(vectors, f, n - f, n - f)


def weighted_mean(vectors: Rows, weights: Sequence[float]) -> Tensor:
    """Σ wᵢ·vᵢ / Σ wᵢ over the rows of positive weight.

    Args:
        vectors: (n, d), floating, finite where the weight is positive; other rows are not looked at.
        weights: n numbers ≥ 0, not all 0.

    Returns:
        (d,), same dtype and device.
    """
    total = math.fsum(weights)
    used = [(row, weight / total) for row, weight in zip(vectors, weights, strict=True) if weight > 0]
    rows, shares = zip(*used, strict=True)
    if serves_cpu(rows):
        from p2pnode.aggregation import cpu  # loads a compiler

        return cpu.mix_rows(rows, np.array([shares]))[0]
    out = torch.zeros_like(rows[0], dtype=torch.float64)
    for row, share in used:
        out.add_(row.double(), alpha=share)
    return out.to(rows[0].dtype)


def mix_rows(vectors: Rows, weights: Weights) -> Tensor:
    """Σⱼ weights[i, j]·vⱼ for each i, summed in float64.

    Equal vectors stay what they are where the weights sum up to 1.

    Args:
        vectors: (q, d), floating, finite.
        weights: (m, q), finite.

    Returns:
        (m, d), same dtype and device as the vectors; new memory.
    """
    if serves_cpu(vectors):
        from p2pnode.aggregation import cpu  # loads a compiler

        return cpu.mix_rows(vectors, weights)
    first = vectors[0]
    shares, out = torch.from_numpy(weights).to(first.device), first.new_empty(len(weights), len(first))
    for block in blocks(first):
        out[:, block] = (shares @ together(vectors, block).double()).to(out.dtype)
    return out


def blocks(like: Tensor) -> Iterator[slice]:
    """The coordinates of (…, d) in consecutive slices, of the length that suits the device."""
    d, length = like.shape[-1], _block_length(like)
    return (slice(start, min(start + length, d)) for start in range(0, d, length))


def _block_length(like: Tensor) -> int:
    return BLOCK_PER_THREAD * torch.get_num_threads() if like.device.type == "cpu" else BLOCK_ON_ACCELERATOR


def _count(vectors: Rows, weights: Weights | None) -> int:
    return len(vectors if weights is None else weights)


def _points(vectors: Rows, weights: Weights | None) -> tuple[Rows, dict[str, Weights]]:
    """The rows where they lie, and weights, for code that mixes on its way, as the CPU's does; else the mixtures."""
    if serves_cpu(vectors):
        return vectors, {} if weights is None else {"weights": weights}
    return together(vectors) if weights is None else mix_rows(vectors, weights), {}


def _mean_of_ranks(vectors: Rows, first: int, stop: int, weights: Weights | None = None) -> Tensor:
    """Per coordinate the mean of the sorted values first, …, stop − 1."""
    vectors, mixing = _points(vectors, weights)
    if compiled := kernels(vectors):
        return compiled.mean_of_ranks(vectors, first, stop, **mixing)
    matrix = together(vectors)
    n, d = matrix.shape
    if matrix.numel() <= SORTED_MAX:
        out = matrix.new_empty(d, dtype=_wide(matrix.dtype))
        _average(matrix.sort(dim=0).values[first:stop].unbind(0), out)
        return out.to(matrix.dtype)
    plan = comparators(n, first, stop, ordered=True)
    out = matrix.new_empty(d, dtype=_wide(matrix.dtype))
    scratch = out.new_empty(n + 1, min(d, _block_length(matrix)))
    for block in blocks(matrix):
        *wires, spare = scratch[:, : block.stop - block.start].unbind(0)
        for wire, row in zip(wires, matrix[:, block], strict=True):
            wire.copy_(row)
        _run(plan, wires, spare)
        _average(wires[first:stop], out[block])
    return out.to(matrix.dtype)


def _mean_around_ranks(vectors: Rows, first: int, stop: int, keep: int) -> Tensor:
    """Per coordinate the mean of the `keep` values nearest to the mean of the sorted values first, …, stop − 1."""
    out = torch.empty_like(vectors[0], memory_format=torch.contiguous_format)
    for block in blocks(out):
        ordered = together(vectors, block).double().sort(dim=0).values
        centre = reduce(torch.add, ordered[first:stop]) / (stop - first)
        out[block] = reduce(torch.add, _nearest(ordered, centre, keep)) / keep
    return out


def _nearest(ordered: Tensor, centre: Tensor, keep: int) -> list[Tensor]:
    """Per coordinate the `keep` sorted values nearest to the centre: those of a window, which moves up while nearer."""
    values, moves = list(ordered), torch.ones_like(centre, dtype=torch.bool)
    for low in range(len(values) - keep):
        high = low + keep
        moves &= centre - values[low] > values[high] - centre
        # A window that stays hands its value up: in the end its values are the last ones.
        values[high] = torch.where(moves, values[high], values[low])
    return values[-keep:]


def _run(plan: Sequence[Comparator], wires: list[Tensor], spare: Tensor) -> None:
    """Bring each wanted rank to its wire; the row that a minimum frees is the next spare."""
    for low, high, wants_low, wants_high in plan:
        a, b = wires[low], wires[high]
        if wants_low and wants_high:
            torch.minimum(a, b, out=spare)
            torch.maximum(a, b, out=b)
            wires[low], spare = spare, a
        elif wants_low:
            torch.minimum(a, b, out=a)
        else:
            torch.maximum(a, b, out=b)


def _average(rows: Sequence[Tensor], out: Tensor) -> None:
    if out.dtype != torch.float64:
        out.copy_(reduce(torch.add, [row.double() for row in rows]) / len(rows))
        return
    # A lerp of weight ≤ 1/2 adds less than the whole difference, so even when rounded it ends between its two ends.
    out.copy_(rows[0])
    for count, row in enumerate(rows[1:], start=2):
        out.lerp_(row, 1 / count)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
