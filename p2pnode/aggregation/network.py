"""Sorting networks, pruned to the ranks that are wanted: fixed lists of comparators that sort any n values.

A comparator is a minimum and a maximum, and which values it takes does not depend on what they are. So one list sorts
all coordinates of n vectors at once, in whole rows, in the lanes of a processor or in the threads of a GPU.
"""

from functools import cache
from typing import NamedTuple


class Comparator(NamedTuple):
    """Puts the lesser of two wires on `low` and the greater on `high`, where they are wanted."""

    low: int
    high: int
    wants_low: bool
    wants_high: bool


@cache
def comparators(n: int, first: int, stop: int, *, ordered: bool = False) -> tuple[Comparator, ...]:
    """The comparators, in order, that bring the ranks first, …, stop − 1 of n wires to those wires.

    Found by walking back from the outputs: where one wire of a comparator ends outside the wanted ranks, one half of it
    does. Where a sum over ranks is wanted, in whatever order, a comparator whose two wires both end inside the wanted
    ranks, or both below or both above, changes nothing.

    Args:
        n: wires.
        first: lowest wanted rank.
        stop: one more than the highest wanted rank.
        ordered: whether each rank must come to its own wire. That takes about a tenth more, and a sum in order of rank
            is the same to the bit for every order of the inputs.
    """
    inside: list[str | int] = [*range(first, stop)] if ordered else ["wanted"] * (stop - first)
    end: list[str | int | None] = [*["below"] * first, *inside, *["above"] * (n - stop)]
    plan = []
    for low, high in reversed(sorting_network(n)):
        if end[low] is None or end[low] != end[high]:
            plan.append(Comparator(low, high, end[low] not in ("below", "above"), end[high] not in ("below", "above")))
            end[low] = end[high] = None  # another comparator reads these wires now
    return tuple(reversed(plan))


def sorting_network(n: int) -> list[tuple[int, int]]:
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
