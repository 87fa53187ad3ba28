"""Rules that choose among the subsets of the vectors: minimum-diameter averaging.

Which subset to take is a question to the q·(q−1)/2 distances alone. A subset has diameter D at most if it keeps one at
most of any two rows farther apart than D: if the rows left out are a vertex cover of the graph of these pairs. Whether
f rows can be one is decided by a search tree whose size depends on f, not on the number of subsets.
"""

from bisect import bisect_left
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from p2pnode.aggregation.points import Mixed, Points
from p2pnode.errors import ConfigError

WORK_MAX = 1_500_000
"""Most looks at a row in one search; at 0.5 to 0.9 μs each, about a second. No distances make a search longer if f ≤ 16
and q ≤ 5f+1, as with n = 6f+1 members, or if f ≤ 8 and q ≤ 1024: there no lie brings about a refusal."""


def minimum_diameter(points: Points, f: int) -> Mixed:
    """The mean of the q − f points of least diameter, which is at most the diameter of any q − f honest ones.

    If q ≥ 2f+1 some honest point is among the averaged, so the mean is no farther from it than that diameter. Of
    several such subsets the one whose sorted indices come first in lexicographic order is taken. That is not rare, even
    if no two distances are equal: subsets may share the two points that are farthest apart. So another order of the
    points gives the same diameter, but maybe another mean.

    Args:
        points: q ≥ f+1 of them.
        f: points left out, ≥ 0.

    Raises:
        ConfigError: if the search looks at more than `WORK_MAX` rows.

    Source: averaging agreement, arXiv 2008.00742, MDA, which leaves ties open. For it q = n − f.
    """
    return points.mean_of(tightest(points.squared, f))


def tightest(squared: NDArray[np.float64], f: int) -> list[int]:
    """The q − f rows of least diameter in ascending order; of several such choices the lexicographically first.

    Looks at no more than q·1.47^f·(2.3·⌈log₂ m⌉ + 4.8) rows, for m different distances.

    Args:
        squared: (q, q), squared distances, symmetric, 0 on the diagonal.
        f: rows left out, 0 ≤ f < q.

    Raises:
        ConfigError: if that means to look at more than `WORK_MAX` rows.
    """
    search = _Search(len(squared), f)
    diameters = np.unique(squared)
    everyone = (1 << len(squared)) - 1
    # All rows together have the largest diameter: that it can be had needs no search.
    least = bisect_left(
        diameters, True, hi=len(diameters) - 1, key=lambda most: search.covers(_conflicts(squared, most), everyone, f)
    )
    return search.first_kept(_conflicts(squared, diameters[least]))


def _conflicts(squared: NDArray[np.float64], most: float) -> list[int]:
    """For each row the rows farther from it than `most`, as bits of an integer."""
    packed = np.packbits(squared > most, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


class _Search:
    """Vertex covers of at most f of q rows, and the work of finding them. Graphs are lists of `_conflicts`."""

    def __init__(self, q: int, f: int) -> None:
        self.q, self.f = q, f
        self._work = 0

    def first_kept(self, conflicts: list[int]) -> list[int]:
        """The lexicographically first q − f rows without conflict. There must be some.

        Each row that is searched for takes one row at least from those that may still be left out: itself, or those
        that it conflicts with. So there are f searches at most, each among fewer.
        """
        live, spare, kept = (1 << self.q) - 1, self.f, []
        for row in range(self.q):
            if not live >> row & 1:
                continue
            against = conflicts[row] & live
            rest, left = live & ~(against | 1 << row), spare - against.bit_count()
            if not against or (left >= 0 and self.covers(conflicts, rest, left)):
                live, spare = live & ~against, left
                kept.append(row)
            else:
                live, spare = live & ~(1 << row), spare - 1
        return kept[: self.q - self.f]

    def covers(self, conflicts: list[int], live: int, spare: int) -> bool:
        """Whether `spare` of the live rows, or fewer, have a part in every conflict between live rows.

        No search tree has more than 2.3·1.47^spare nodes: T(k) = T(k−1) + T(k−3) + 1 while some row has three
        conflicts, and cycles, of three rows at least, halve the rest.
        """
        tree: list[tuple[Collection[int], int, int]] = [(range(self.q), live, spare)]
        while tree:
            rows, live, spare = tree.pop()
            self._spend(len(rows))
            degrees = {
                row: degree for row in rows if live >> row & 1 and (degree := (conflicts[row] & live).bit_count())
            }
            if not degrees:
                return True
            tree += [(degrees, *branch) for branch in _branches(conflicts, degrees, live, spare)]
        return False

    def _spend(self, looks: int) -> None:
        self._work += looks
        if self._work > WORK_MAX:
            raise ConfigError(
                f"minimum-diameter: to find the best {self.q - self.f} of {self.q} vectors takes more than {WORK_MAX} "
                f"looks at a row. Remedy: choose f below {self.f}, or a rule that searches nothing, as trimmed-mean"
            )


def _branches(conflicts: list[int], degrees: dict[int, int], live: int, spare: int) -> list[tuple[int, int]]:
    """What to try next: which rows stay live, and how many of them may be in the cover. The last is tried first.

    Either the row in most conflicts is in the cover, or all that it conflicts with are, if so many may be. What
    conflicts with a row that has no other conflict may always be in.

    Args:
        conflicts: the graph.
        degrees: each live row that has conflicts with live rows → how many.
        live: the live rows, as bits.
        spare: how many of them may be in the cover.
    """
    most = max(degrees.values())
    if sum(degrees.values()) > 2 * spare * most:
        return []
    if 1 in degrees.values():
        leaf = _first(degrees, 1)
        return [(live & ~conflicts[leaf], spare - 1)]
    peak = _first(degrees, most)
    with_peak, without = (live & ~(1 << peak), spare - 1), (live & ~conflicts[peak], spare - most)
    return [with_peak, without] if most <= spare else [with_peak]


def _first(degrees: dict[int, int], wanted: int) -> int:
    return next(row for row, degree in degrees.items() if degree == wanted)
