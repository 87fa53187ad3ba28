"""Rules that drop the f longest: comparative gradient elimination, comparative elimination.

Neither bounds how far liars move the mean by anything but the length of honest vectors: they are for gradients near a
common minimum, and for models near a common start.
"""

import numpy as np
from torch import Tensor

from p2pnode.aggregation.points import Array, Mixed, Points


def gradient_elimination(points: Points, f: int) -> Mixed:
    """The mean of the q−f points of least norm; of one norm by index.

    Args:
        points: q ≥ 2f+1 of them.
        f: how many of them may be lies.

    Source: CGE, arXiv 2101.12316, there a sum.
    """
    return _mean_of_least(points, points.squared_norms, f)


def comparative_elimination(points: Points, f: int, centre: Tensor) -> Mixed:
    """The mean of the q−f points nearest to where they all came from; of one distance by index.

    Args:
        points: q ≥ 2f+1 of them.
        f: how many of them may be lies.
        centre: (d,), the model at which the round began.

    Source: CE, arXiv 2108.11769. Its theory asks besides for f/(q−f) ≤ μ/(3L), about the cost functions.
    """
    return _mean_of_least(points, points.squared_from(centre), f)


def _mean_of_least(points: Points, lengths: Array, f: int) -> Mixed:
    return points.mean_of(np.argsort(lengths, kind="stable")[: len(points) - f].tolist())
