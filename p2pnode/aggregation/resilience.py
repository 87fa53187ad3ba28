"""How near a rule stays to the mean of the honest: the constants of (f, λ)-resilient averaging and (f, κ)-robustness.

For any n vectors and any n−f of them, S, with their mean m:

    λ: ‖rule − m‖  ≤ λ · max over S of ‖x_i − x_j‖             RESAM, arXiv 2205.12173
    κ: ‖rule − m‖² ≤ κ · mean over S of ‖x_i − m‖²             arXiv 2302.01772

No rule does better than λ = f/(n−f) and κ = f/(n−2f). A formula is "derived" where its docstring derives it, "recalled"
where it is quoted from memory of the paper; the tests hold each against enumeration over all S.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import inf, sqrt

RESAM = "recalled from RESAM, arXiv 2205.12173"
FIXING = "recalled from arXiv 2302.01772"
SMEA = "recalled from arXiv 2302.04787"
DERIVED = "derived"


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant as a function of n, f and, for λ, d.

    Args:
        formula: (n, f, d) → λ, or (n, f) → κ, for n ≥ 2f+1 and where the rule can mix n vectors.
        source: where it is from, "recalled from …" or "derived".
    """

    formula: Callable[..., float]
    source: str

    def __call__(self, *sizes: int) -> float:
        return self.formula(*sizes)


def _dimension(n: int, f: int, d: int) -> float:
    """What the step from coordinates to vectors costs: the sum of squared spreads against the squared diameter."""
    return min(2 * sqrt(n - f), sqrt(d))


def _share(n: int, f: int) -> float:
    return f / (n - 2 * f)


def _krum_lambda(n: int, f: int, _d: int) -> float:
    """1 + √((n−f−2)/(n−2f−1)), of Krum and of Multi-Krum for any m.

    With k = n−f−2, some honest score is at most k·Δ², for honest ones have so many others, no farther than Δ; and m
    chosen ones, m ≤ n−f, have no greater scores than all honest. A lie that is chosen has k−f+1 honest vectors at least
    among its k nearest, the nearest of them at most √(k·Δ²/(k−f+1)) away, and that one is within Δ of the honest mean.
    """
    k = max(1, n - f - 2)
    return 1 + sqrt(k / (k - f + 1))


def _krum_kappa(n: int, f: int) -> float:
    """(√(2hk/((h−1)·t)) + √((h−t)/t))² with h = n−f, k = h−2, t = k−f+1, of Krum and of Multi-Krum for any m.

    The honest scores are 2hk/(h−1) honest variances on average at most, and so are those of the m least. Of a chosen
    one and its k nearest others t are honest at least, itself counted if it is: their mean is no farther from it than
    √(score/t), and from the honest mean than √((h−t)/t) deviations.
    """
    h, k = n - f, max(1, n - f - 2)
    if h == 1:
        return 0.0
    t = k - f + 1
    return (sqrt(2 * h * k / ((h - 1) * t)) + sqrt(max(0, h - t) / t)) ** 2


def _no_liar(_n: int, f: int, _d: int = 1) -> float:
    """The mean is the honest mean, or anywhere."""
    return inf if f else 0.0


MEAN_LAMBDA = Constant(_no_liar, DERIVED)
MEAN_KAPPA = Constant(_no_liar, DERIVED)
MEDIAN_LAMBDA = Constant(lambda n, f, d: n / (2 * (n - f)) * _dimension(n, f, d), RESAM)
MEDIAN_KAPPA = Constant(lambda n, f: 4 * (1 + _share(n, f)) ** 2, FIXING)
TRIMMED_MEAN_LAMBDA = Constant(lambda n, f, d: f / (n - f) * _dimension(n, f, d), RESAM)
TRIMMED_MEAN_KAPPA = Constant(lambda n, f: 6 * _share(n, f) * (1 + _share(n, f)), FIXING)
MEAN_AROUND_MEDIAN_LAMBDA = Constant(lambda n, f, d: 2 * f / (n - f) * _dimension(n, f, d), RESAM)
GEOMETRIC_MEDIAN_LAMBDA = Constant(lambda n, f, _d: 1 + (n - f) / sqrt(n * (n - 2 * f)), RESAM)
GEOMETRIC_MEDIAN_KAPPA = Constant(lambda n, f: 4 * (1 + _share(n, f)) ** 2, FIXING)
KRUM_LAMBDA = Constant(_krum_lambda, DERIVED)
KRUM_KAPPA = Constant(_krum_kappa, DERIVED)
MINIMUM_DIAMETER_LAMBDA = Constant(lambda n, f, _d: 2 * f / (n - f), RESAM)
SMALLEST_EIGENVALUE_KAPPA = Constant(lambda n, f: 4 * f / (n - f) * (1 + _share(n, f)) ** 2, SMEA)


@cache
def after_mixing(kappa: Constant) -> Constant:
    """κ of a rule after nearest-neighbour mixing: 8f/(n−f)·(κ+1), small if f is, whatever the rule."""
    return Constant(lambda n, f: 8 * f / (n - f) * (kappa(n, f) + 1) if f else 0.0, FIXING)
