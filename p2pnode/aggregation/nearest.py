"""The rule that looks at the distances from one's own vector alone: nearest-neighbour averaging."""

import numpy as np

from p2pnode.aggregation.points import Mixed, Points


def nearest_neighbour(points: Points, f: int, own: int) -> Mixed:
    """The mean of the q−f points nearest to one's own: no farther from it than the farthest honest one.

    One's own is among the averaged, and first; then points at one distance are taken by index.

    Args:
        points: q ≥ f+1 of them. For MoNNA q = n − f.
        f: points left out, ≥ 0.
        own: which is one's own.

    Source: MoNNA, arXiv 2209.10931, NNA.
    """
    distances = points.squared_from(points.vectors[own])
    distances[own] = -1
    return points.mean_of(np.argsort(distances, kind="stable")[: len(points) - f].tolist())
