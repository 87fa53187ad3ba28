"""Every rule once more, as slowly and plainly as its definition reads: lists, loops, enumeration, float64.

Rows are lists of floats. Each rule gives its vector and the rows that it kept; ties go to the lower index.
"""

from itertools import combinations
from math import dist, floor, inf, sqrt
from statistics import fmean, median

import numpy as np


def average(rows, kept):
    return [fmean(rows[i][c] for i in kept) for c in range(len(rows[0]))], sorted(kept)


def by_coordinate(rows, of):
    return [of([row[c] for row in rows]) for c in range(len(rows[0]))], list(range(len(rows)))


def nearest(values, centre, count):
    return fmean(sorted(values, key=lambda value: (abs(value - centre), value))[:count])


def trimmed(values, f):
    return fmean(sorted(values)[f : len(values) - f])


def squared(one, other):
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def krum_score(rows, i, among, f):
    others = sorted(squared(rows[i], rows[j]) for j in among if j != i)
    return sum(others[: max(1, len(among) - f - 2)])


def by_score(rows, among, f):
    return sorted(among, key=lambda i: (krum_score(rows, i, among, f), i))


def mean(rows, f, **_):
    return average(rows, range(len(rows)))


def coordinate_median(rows, f, **_):
    return by_coordinate(rows, median)


def trimmed_mean(rows, f, **_):
    return by_coordinate(rows, lambda values: trimmed(values, f))


def mean_around_median(rows, f, **_):
    return by_coordinate(rows, lambda values: nearest(values, median(values), len(rows) - f))


def phocas(rows, f, **_):
    return by_coordinate(rows, lambda values: nearest(values, trimmed(values, f), len(rows) - f))


def nearest_neighbour(rows, f, own, **_):
    order = sorted(range(len(rows)), key=lambda i: (i != own, squared(rows[i], rows[own]), i))
    return average(rows, order[: len(rows) - f])


def minimum_diameter(rows, f, **_):
    def diameter(subset):
        return max((squared(rows[i], rows[j]) for i, j in combinations(subset, 2)), default=0)

    return average(rows, min(combinations(range(len(rows)), len(rows) - f), key=diameter))


def krum(rows, f, **_):
    return average(rows, by_score(rows, range(len(rows)), f)[:1])


def multi_krum(rows, f, m=None, **_):
    return average(rows, by_score(rows, range(len(rows)), f)[: m or max(1, len(rows) - f - 2)])


def bulyan(rows, f, **_):
    remaining, chosen = list(range(len(rows))), []
    while len(chosen) < len(rows) - 2 * f:
        chosen.append(by_score(rows, remaining, f)[0])
        remaining.remove(chosen[-1])
    vector, _ = by_coordinate(
        [rows[i] for i in chosen], lambda values: nearest(values, median(values), len(rows) - 4 * f)
    )
    return vector, sorted(chosen)


def multi_bulyan(rows, f, **_):
    q = len(rows)
    remaining, recorded, kept = list(range(q)), [], set()
    for k in range(max(1, q - 2 * f - 2)):
        best = by_score(rows, remaining, f)[: max(1, q - f - 2) - k]
        recorded.append(average(rows, best)[0])
        kept |= set(best)
        remaining.remove(best[0])
    count = len(recorded) - 2 * f
    vector, _ = by_coordinate(recorded, lambda values: nearest(values, median(values), count))
    return vector, sorted(kept)


def gradient_elimination(rows, f, **_):
    order = sorted(range(len(rows)), key=lambda i: (sum(x * x for x in rows[i]), i))
    return average(rows, order[: len(rows) - f])


def comparative_elimination(rows, f, centre, **_):
    order = sorted(range(len(rows)), key=lambda i: (squared(rows[i], centre), i))
    return average(rows, order[: len(rows) - f])


def clipped_mean(rows, centre, tau):
    steps = []
    for row in rows:
        length = dist(row, centre)
        steps.append([(x - c) * (tau / length if length > tau else 1) for x, c in zip(row, centre, strict=True)])
    return [c + fmean(step[k] for step in steps) for k, c in enumerate(centre)]


def centred_clipping(rows, f, centre=None, tau=100.0, steps=1, **_):
    at = centre or coordinate_median(rows, f)[0]
    for _ in range(steps):
        at = clipped_mean(rows, at, tau)
    return at, list(range(len(rows)))


def self_centred_clipping(rows, f, own, tau=None, **_):
    if tau is None:
        tau = sorted(dist(row, rows[own]) for row in rows)[len(rows) - f - 1]
    away = [i for i, row in enumerate(rows) if tau == 0 and row != rows[own]]  # clipped to nothing
    return clipped_mean(rows, rows[own], tau), [i for i in range(len(rows)) if i not in away]


def top(matrix):
    """The largest eigenvalue of a covariance, and its eigenvector."""
    values, vectors = np.linalg.eigh(matrix)
    return values[-1], vectors[:, -1]


def covariance(rows, weights):
    array, weights = np.array(rows), np.array(weights)
    centre = weights @ array / weights.sum()
    return centre, (array - centre).T @ ((array - centre) * weights[:, None]) / weights.sum()


def covariance_filter(rows, f, **_):
    weights, best = [1.0] * len(rows), (inf, *average(rows, range(len(rows))))
    while f > 0 and sum(weights) > len(rows) - 2 * f:
        alive = [i for i, weight in enumerate(weights) if weight > 0]
        some, mass = [rows[i] for i in alive], [weights[i] for i in alive]
        centre, matrix = covariance(some, mass)
        value, direction = top(matrix)
        if value < best[0]:
            best = value, centre.tolist(), alive
        along = [float((np.array(row) - centre) @ direction) ** 2 for row in some]
        if max(along) == 0:
            break
        for i, far in zip(alive, along, strict=True):
            weights[i] *= 1 - far / max(along)
    return best[1:]


def smallest_maximum_eigenvalue(rows, f, **_):
    def widest(subset):
        return top(covariance([rows[i] for i in subset], [1.0] * len(subset))[1])[0]

    return average(rows, min(combinations(range(len(rows)), len(rows) - f), key=widest))


def nnm(rows, f):
    mixed = []
    for i in range(len(rows)):
        order = sorted(range(len(rows)), key=lambda j: (j != i, squared(rows[i], rows[j]), j))
        mixed.append(average(rows, order[: len(rows) - f])[0])
    return mixed


def clip(rows, length):
    norms = [sqrt(sum(x * x for x in row)) for row in rows]
    return [[x * length / norm if norm > length else x for x in row] for row, norm in zip(rows, norms, strict=True)]


def arc(rows, f):
    norms = sorted(sqrt(sum(x * x for x in row)) for row in rows)
    return clip(rows, norms[len(rows) - floor(2 * f / len(rows) * (len(rows) - f) + 1e-9) - 1])


ORACLES = {
    "mean": mean,
    "median": coordinate_median,
    "trimmed-mean": trimmed_mean,
    "mean-around-median": mean_around_median,
    "phocas": phocas,
    "nearest-neighbour": nearest_neighbour,
    "minimum-diameter": minimum_diameter,
    "krum": krum,
    "multi-krum": multi_krum,
    "bulyan": bulyan,
    "multi-bulyan": multi_bulyan,
    "gradient-elimination": gradient_elimination,
    "comparative-elimination": comparative_elimination,
    "centred-clipping": centred_clipping,
    "self-centred-clipping": self_centred_clipping,
    "covariance-filter": covariance_filter,
    "smallest-maximum-eigenvalue": smallest_maximum_eigenvalue,
}
