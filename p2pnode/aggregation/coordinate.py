"""Rules that look at each coordinate alone: mean, median, trimmed mean.

Sorting n values in each of d coordinates is done for all coordinates at once, by a sorting network: a fixed list of
comparators, each a minimum and a maximum of two whole rows, pruned to what the wanted ranks need. Blocks of coordinates
pass through it one at a time, small enough to stay in cache.

Means are running means, m ← m + (x − m)/k. So they never leave the range of what they average, not even by rounding;
they keep equal values exactly; and they overflow only if two values differ by more than the largest finite number.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_PER_THREAD = 65_536
"""Coordinates that one CPU thread takes at a time. Measured at n = 6, 10, 26 on two threads: below, the cost of calling
torch shows; above, the rows fall out of the cache."""

BLOCK_ON_ACCELERATOR = 4_194_304
"""Coordinates taken at a time elsewhere: bounds the scratch memory, and keeps kernels far longer than their launch."""


class Comparator(NamedTuple):
    """Puts the lesser of two wires on `low` and the greater on `high`, where they are wanted."""

    low: int
    high: int
    wants_low: bool
    wants_high: bool


def mean(vectors: Tensor) -> Tensor:
    """Mean of the rows: every coordinate lies within the range of the inputs.

    Args:
        vectors: (n, d), n ≥ 1, floating, finite.

    Returns:
        (d,), same dtype and device.
    """
    return mean_of_rows(vectors.unbind(0))


def mean_of_rows(rows: Sequence[Tensor]) -> Tensor:
    """Mean of one or more (d,) rows, without bringing them together in memory; order matters to rounding only."""
    out = torch.empty_like(rows[0], dtype=_wide(rows[0].dtype), memory_format=torch.contiguous_format)
    for block in blocks(rows[0]):
        _running_mean([row[block] for row in rows], out[block])
    return out.to(rows[0].dtype)


def median(vectors: Tensor) -> Tensor:
    """Per coordinate the middle value, for even n the mean of the two: within the honest range if n ≥ 2f+1.

    Args:
        vectors: (n, d), n ≥ 1, floating, finite.

    Returns:
        (d,), same dtype and device.

    Source: GuanYu, arXiv 1905.03853.
    """
    n = len(vectors)
    return _mean_of_ranks(vectors, (n - 1) // 2, n // 2 + 1)


def trimmed_mean(vectors: Tensor, f: int) -> Tensor:
    """Per coordinate the mean of all but the f lowest and f highest: within the honest range if n ≥ 2f+1.

    Args:
        vectors: (n, d), n ≥ 2f+1, floating, finite.
        f: values dropped at each end, ≥ 0.

    Returns:
        (d,), same dtype and device.

    Source: averaging agreement, arXiv 2008.00742.
    """
    return _mean_of_ranks(vectors, f, len(vectors) - f)


def mean_around_median(vectors: Tensor, keep: int) -> Tensor:
    """Per coordinate the mean of the `keep` values nearest to the median; of two at one distance the lower.

    Args:
        vectors: (n, d), floating, finite.
        keep: 1 ≤ keep ≤ n.

    Returns:
        (d,), same dtype and device.

    Source: MeaMed, arXiv 1802.10116, with keep = n − f; second phase of Bulyan, arXiv 1802.07927.
    """
    ordered = vectors.to(_wide(vectors.dtype)).sort(dim=0).values
    n = len(vectors)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return _mean_around(ordered, middle, keep).to(vectors.dtype)


def mean_around_trimmed_mean(vectors: Tensor, f: int) -> Tensor:
    """Per coordinate the mean of the n − f values nearest to the trimmed mean; of two at one distance the lower.

    Args:
        vectors: (n, d), n ≥ 2f+1, floating, finite.
        f: values left out, ≥ 0.

    Returns:
        (d,), same dtype and device.

    Source: Phocas, arXiv 1805.09682.
    """
    ordered = vectors.to(_wide(vectors.dtype)).sort(dim=0).values
    n = len(vectors)
    return _mean_around(ordered, ordered[f : n - f].mean(dim=0), n - f).to(vectors.dtype)


def _mean_around(ordered: Tensor, centre: Tensor, keep: int) -> Tensor:
    """Per coordinate the mean of the `keep` sorted values nearest to the centre: those of a window."""
    first = torch.zeros_like(centre, dtype=torch.int64)
    for start in range(len(ordered) - keep):
        # The window moves up while its lowest is farther away than the one above it.
        moves = (first == start) & (centre - ordered[start] > ordered[start + keep] - centre)
        first += moves.to(torch.int64)
    rows = first + torch.arange(keep, device=first.device)[:, None]
    return ordered.gather(0, rows).mean(dim=0)


def weighted_mean(vectors: Tensor, weights: Sequence[float]) -> Tensor:
    """Σ wᵢ·vᵢ / Σ wᵢ over the rows of positive weight.

    Args:
        vectors: (n, d), floating, finite where the weight is positive; other rows are not looked at.
        weights: n numbers ≥ 0, not all 0.

    Returns:
        (d,), same dtype and device.
    """
    total = math.fsum(weights)
    out = vectors.new_zeros(vectors.shape[1], dtype=torch.float64)
    for row, weight in zip(vectors, weights, strict=True):
        if weight > 0:
            out.add_(row.double(), alpha=weight / total)
    return out.to(vectors.dtype)


def blocks(like: Tensor) -> Iterator[slice]:
    """The coordinates of (…, d) in consecutive slices, of the length that suits the device."""
    d, length = like.shape[-1], _block_length(like)
    return (slice(start, min(start + length, d)) for start in range(0, d, length))


def _block_length(like: Tensor) -> int:
    return BLOCK_PER_THREAD * torch.get_num_threads() if like.device.type == "cpu" else BLOCK_ON_ACCELERATOR


def _mean_of_ranks(vectors: Tensor, first: int, stop: int) -> Tensor:
    """Per coordinate the mean of the sorted values first, …, stop − 1."""
    n, d = vectors.shape
    plan = _comparators(n, first, stop)
    out = vectors.new_empty(d, dtype=_wide(vectors.dtype))
    scratch = out.new_empty(n + 1, min(d, _block_length(vectors)))
    for block in blocks(vectors):
        *wires, spare = scratch[:, : block.stop - block.start].unbind(0)
        for wire, row in zip(wires, vectors[:, block], strict=True):
            wire.copy_(row)
        _run(plan, wires, spare)
        _running_mean(wires[first:stop], out[block])
    return out.to(vectors.dtype)


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


def _running_mean(rows: Sequence[Tensor], out: Tensor) -> None:
    # A lerp of weight ≤ 1/2 adds less than the whole difference, so even when rounded it ends between its two ends.
    out.copy_(rows[0])
    for count, row in enumerate(rows[1:], start=2):
        out.lerp_(row.to(out.dtype), 1 / count)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


@cache
def _comparators(n: int, first: int, stop: int) -> tuple[Comparator, ...]:
    """The comparators, in order, that bring the ranks first, …, stop − 1 of n wires to those wires, in any order.

    Found by walking back from the outputs. What is wanted is a sum over ranks, so a comparator whose two wires both
    end inside the wanted ranks, or both below or both above, changes nothing; and where one wire ends outside,
    one half of its comparator does.
    """
    end: list[str | None] = [*["below"] * first, *["wanted"] * (stop - first), *["above"] * (n - stop)]
    plan = []
    for low, high in reversed(_sorting_network(n)):
        if end[low] is None or end[low] != end[high]:
            plan.append(Comparator(low, high, end[low] in (None, "wanted"), end[high] in (None, "wanted")))
            end[low] = end[high] = None  # another comparator reads these wires now
    return tuple(reversed(plan))


def _sorting_network(n: int) -> list[tuple[int, int]]:
    """Batcher's odd-even merge sort for any n; Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M."""
    pairs = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, distance = top, 0, p
        while True:
            pairs += [(i, i + distance) for i in range(n - distance) if i & p == r]
            if q == p:
                break
            q, r, distance = q // 2, p, q - p
        p //= 2
    return pairs
