"""How much of each vector a rule left out, at a sample of its coordinates. For people: no mixture depends on it."""

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from p2pnode.aggregation.rules import find

Sample = NDArray[np.float64]
"""(q, k): of each of q vectors the same k coordinates."""


def by_coordinate(name: str) -> bool:
    """Whether the rule of this name leaves out numbers, coordinate by coordinate, and not whole vectors."""
    rule = find(name)
    return not rule.before and rule.kernel in _AVERAGED


def left_out(name: str, sample: Sample, f: int, kept: Collection[int]) -> NDArray[np.float64]:
    """Of each vector the share that has no part in the mixture, in [0, 1].

    For the rules that look at each coordinate alone it is the share of the sampled coordinates in which the vector's
    number is none of those that the rule averages, nor equal to one: for the trimmed mean it lies among the f lowest or
    f highest; for the median it is not the middle one; for MeaMed and Phocas it is not among the q − f nearest. Honest
    vectors have such numbers as well, under the trimmed mean 2f/q of them: to be compared with the other vectors'.

    For every other rule, and after pre-aggregations, which mix all into all, it is 0 of a vector with a part in the
    mixture and 1 of one without. A weight that is small, as clipping gives, counts as a part.

    Args:
        name: of the rule, as for `find`.
        sample: of the vectors as they were gathered.
        f: how many may be lies.
        kept: the rows with a part in the mixture, as `mix` tells them.
    """
    q = len(sample)
    if not by_coordinate(name):
        return np.array([float(row not in kept) for row in range(q)])
    return np.asarray(_AVERAGED[find(name).kernel](sample, f).mean(axis=1))


def _none(sample: Sample, _: int) -> NDArray[np.bool_]:
    return np.zeros(sample.shape, bool)


def _trimmed(sample: Sample, f: int) -> NDArray[np.bool_]:
    return _outside(sample, f, len(sample) - f)


def _beside_the_middle(sample: Sample, _: int) -> NDArray[np.bool_]:
    return _outside(sample, (len(sample) - 1) // 2, len(sample) // 2 + 1)


def _far_from_median(sample: Sample, f: int) -> NDArray[np.bool_]:
    return _beyond(sample, np.median(sample, axis=0), len(sample) - f)


def _far_from_trimmed_mean(sample: Sample, f: int) -> NDArray[np.bool_]:
    return _beyond(sample, np.sort(sample, axis=0)[f : len(sample) - f].mean(axis=0), len(sample) - f)


def _outside(sample: Sample, first: int, stop: int) -> NDArray[np.bool_]:
    """Where a number is none of the sorted ones first, …, stop − 1."""
    ordered = np.sort(sample, axis=0)
    outside: NDArray[np.bool_] = (sample < ordered[first]) | (sample > ordered[stop - 1])
    return outside


def _beyond(sample: Sample, centre: Sample, keep: int) -> NDArray[np.bool_]:
    """Where a number is none of the `keep` nearest to the centre."""
    away = np.abs(sample - centre)
    beyond: NDArray[np.bool_] = away > np.sort(away, axis=0)[keep - 1]
    return beyond


_AVERAGED: dict[str, Callable[[Sample, int], NDArray[np.bool_]]] = {
    "coordinate:mean": _none,
    "coordinate:trimmed_mean": _trimmed,
    "coordinate:median": _beside_the_middle,
    "coordinate:mean_around_median": _far_from_median,
    "coordinate:mean_around_trimmed_mean": _far_from_trimmed_mean,
}
"""Kernel → where numbers are that it does not average."""
