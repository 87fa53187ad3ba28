"""Who takes part, how many may lie, and every quorum and bound under its own name.

Nowhere else is a threshold computed. n is the number of members, f the number that may be Byzantine, h = n−f.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt

from protocols.errors import UsageError
from protocols.header import PeerId

MEMBERS_MAX = 1024
"""Largest committee; bounds every certificate, and so every frame."""


@dataclass(frozen=True, slots=True)
class Committee:
    """n members of which at most f are Byzantine.

    Raises:
        UsageError: unless 0 ≤ f < n ≤ `MEMBERS_MAX`.
    """

    n: int
    f: int

    def __post_init__(self) -> None:
        if not 0 <= self.f < self.n <= MEMBERS_MAX:
            raise UsageError(f"a committee needs 0 ≤ f < n ≤ {MEMBERS_MAX}, got n={self.n}, f={self.f}")

    @property
    def members(self) -> tuple[PeerId, ...]:
        return tuple(PeerId(i) for i in range(self.n))

    @property
    def echo_quorum(self) -> int:
        """⌊(n+f)/2⌋+1: any two such sets share an honest member, who echoes one header only.

        Source: Cachin, Guerraoui, Rodrigues, algorithm 3.17 (signed echo broadcast), more than (n+f)/2 echoes.
        """
        return (self.n + self.f) // 2 + 1

    @property
    def gather_quorum(self) -> int:
        """n−f values, one's own among them: the most one can wait for while f members are silent."""
        return self.n - self.f

    @property
    def one_honest(self) -> int:
        """f+1: among so many members one at least is honest. So many readies make ready (algorithm 3.18)."""
        return self.f + 1

    @property
    def ready_quorum(self) -> int:
        """2f+1 readies, f+1 of them honest, which reach every honest member: then it is safe to deliver (alg. 3.18)."""
        return 2 * self.f + 1

    @property
    def echo_broadcast_lives(self) -> bool:
        """Whether the honest alone fill an echo quorum, n ≥ 3f+1; else a silent liar stops every broadcast."""
        return self.gather_quorum >= self.echo_quorum

    def trimmed_mean_contraction(
        self, *, consistent: bool, total: bool = False, absent: int | None = None
    ) -> Fraction | None:
        """Worst ratio of the honest values' spread after one sub-round of trimmed mean to the spread before it.

        Per coordinate; 2f/(n−3f) when liars can equivocate, f/(n−3f) when they cannot, and f/(n−2f) when besides any
        two honest members share n−f values (a total broadcast with witnesses). None where nothing is averaged.
        Checked by enumeration for f ≤ 2 (the table of worst contractions). Source: arXiv 2008.00742.

        With r ≠ f values not waited for, consistent: r/(n−r−2f). Two members' values differ in r at most, which moves
        each rank by r places at most; so the kept ranks of one sum up to those of the other but for r of them, each
        within the honest spread.

        Args:
            consistent: whether liars cannot equivocate.
            total: whether members share what they gathered.
            absent: r; None for f.
        """
        if absent is not None and absent != self.f:
            rest = self.n - absent - 2 * self.f
            return Fraction(absent, rest) if consistent and rest > 0 else None
        kept = self.n - (2 if total else 3) * self.f
        if kept <= 0:
            return None
        return Fraction(self.f if consistent else 2 * self.f, kept)

    @property
    def minimum_diameter_contraction(self) -> Fraction | None:
        """Bound, 4f/(n−2f), on how one sub-round of minimum-diameter averaging shrinks the honest values' diameter.

        Of any n−f vectors the n−2f chosen ones have a diameter of at most the honest Δ. Two honest members' choices
        share n−5f honest vectors; of the other 3f pairs, f of lies against lies are 2Δ apart at most, over a shared
        vector, and 2f of honest vectors Δ. Equivocation changes nothing. Below 1 for n ≥ 6f+1; equal to the published
        rate, arXiv 2008.00742 (jungle), in which 1 − 2ε/(1+ε) with ε = (n−6f)/(n+2f).
        """
        kept = self.n - 2 * self.f
        return Fraction(4 * self.f, kept) if kept > 0 else None

    def nearest_neighbour_contraction(self, *, consistent: bool) -> Fraction | None:
        """Bound on how one sub-round of nearest-neighbour averaging shrinks the honest values' diameter Δ.

        Attained for f = 1, as enumeration shows.

        Every averaged vector is within Δ of one's own. With consistent broadcast, 3f/(n−2f): two members' choices
        differ in a+b lies that only one of them took, at most 2Δ from an honest vector of the other, and in f+c honest
        vectors, c being the lies both took; 2(a+b)+f+c is at most 3f. With equivocation, 5f/(n−2f): 2f pairs of a lie
        and an honest vector, at most 2Δ apart, and f pairs of honest vectors. Source: the algorithm, arXiv 2209.10931;
        the bound, this argument.
        """
        kept = self.n - 2 * self.f
        return Fraction((3 if consistent else 5) * self.f, kept) if kept > 0 else None

    @property
    def distortion(self) -> int:
        """⌈√(h−1)⌉: a diameter is at most so many times what each coordinate's spread shrank to.

        Coordinate c of h points of diameter D has a spread s_c with s_c² ≤ 2·Σ_i (x_ic − mean_c)², and the sum of that
        over c is the sum of ‖x_i − x_j‖² over pairs, divided by h/2, so at most (h−1)·D².
        """
        return max(1, isqrt(max(0, self.n - self.f - 2)) + 1)


@dataclass(frozen=True, slots=True)
class Bound:
    """The committees that a theorem covers: n ≥ per_liar·f + spare for f ≥ 1, and any n ≥ 1 for f = 0.

    Args:
        per_liar: members needed for each liar; None for what tolerates no liar.
        spare: members needed besides.
        source: where the theorem is.
    """

    per_liar: int | None
    spare: int
    source: str

    def least(self, f: int) -> int | None:
        """The least n that tolerates f liars; None if no n does."""
        if f == 0:
            return 1
        return None if self.per_liar is None else self.per_liar * f + self.spare

    def tolerated(self, n: int) -> int:
        """The largest f that n members tolerate; 0 if there is none."""
        return 0 if self.per_liar is None else max(0, (n - self.spare) // self.per_liar)

    def covers(self, committee: Committee) -> bool:
        least = self.least(committee.f)
        return least is not None and committee.n >= least

    def stricter(self, other: "Bound") -> "Bound":
        """The widest bound, with the source of the first, that covers no committee which one of the two does not."""
        if self.per_liar is None or other.per_liar is None:
            return replace(self, per_liar=None, spare=0)
        per_liar = max(self.per_liar, other.per_liar)
        # Both are lines in f: from f = 1 on the steeper stays above, if it is at f = 1.
        least = max(self.per_liar + self.spare, other.per_liar + other.spare)
        return replace(self, per_liar=per_liar, spare=least - per_liar)

    def __str__(self) -> str:
        if self.per_liar is None:
            return "f = 0"
        factor = "" if self.per_liar == 1 else str(self.per_liar)
        return f"n ≥ {factor}f" + (f"+{self.spare}" if self.spare else "")


_CGR = "Cachin, Guerraoui, Rodrigues, Introduction to Reliable and Secure Distributed Programming, algorithm {}"
_JUNGLE = "averaging agreement, arXiv 2008.00742; contraction {}"

NO_LIAR = Bound(None, 0, "one liar moves a mean anywhere")
PLAIN_BROADCAST = Bound(1, 1, "best-effort broadcast promises nothing of a liar's vector")
SIGNED_ECHO_BROADCAST = Bound(3, 1, _CGR.format("3.17"))
RELIABLE_BROADCAST = Bound(3, 1, _CGR.format("3.18"))
MEDIAN = Bound(3, 3, "GuanYu, arXiv 1905.03853")
TRIMMED_MEAN_OVER_PLAIN = Bound(5, 1, _JUNGLE.format("2f/(n−3f), checked by enumeration"))
TRIMMED_MEAN_OVER_SIGNED_ECHO = Bound(4, 1, _JUNGLE.format("f/(n−3f), checked by enumeration"))
TRIMMED_MEAN_OVER_RELIABLE = Bound(3, 1, _JUNGLE.format("f/(n−2f), checked by enumeration"))
MINIMUM_DIAMETER = Bound(6, 1, _JUNGLE.format("4f/(n−2f)"))
NEAREST_NEIGHBOUR_OVER_PLAIN = Bound(11, 0, "MoNNA, arXiv 2209.10931, one sub-round")
NEAREST_NEIGHBOUR = Bound(5, 1, "MoNNA, arXiv 2209.10931; contraction at most 3f/(n−2f)")


def gathering(per_liar: int, spare: int, source: str) -> Bound:
    """The committees whose n−f vectors, which is what one can wait for, are per_liar·f + spare at least.

    For rules that need so many to bound what lies do to one mixture, but of which no theorem says that the members
    agree by it.
    """
    return Bound(per_liar + 1, spare, f"{source}, of what is gathered; of agreement it proves nothing")


def precision(step: int) -> int:
    """N of AVG_N at this step, from 0: ⌈log2 t⌉ for t = step+1, and at least 1. Source: arXiv 2008.00742.

    The growth is what keeps the honest models from drifting apart as the gradients get small.
    """
    return max(1, step.bit_length())


def sub_rounds(contraction: Fraction, wanted: Fraction = Fraction(1, 2)) -> int:
    """Fewest sub-rounds, at least 1, after which the spread is at most `wanted` of what it was.

    One unit of averaging agreement halves the honest diameter, hence the default.

    Raises:
        UsageError: if the contraction is not below 1; no number of sub-rounds would do.
    """
    if not 0 <= contraction < 1 or not 0 < wanted < 1:
        raise UsageError(f"needs 0 ≤ contraction < 1 and 0 < wanted < 1, got {contraction} and {wanted}")
    rounds, spread = 1, contraction
    while spread > wanted:
        rounds, spread = rounds + 1, spread * contraction
    return rounds
