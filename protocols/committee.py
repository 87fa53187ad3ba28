"""Who takes part, how many may lie, and every quorum and bound under its own name.

Nowhere else is a threshold computed. n is the number of members, f the number that may be Byzantine.
"""

from dataclasses import dataclass
from fractions import Fraction

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
    def echo_broadcast_lives(self) -> bool:
        """Whether the honest alone fill an echo quorum, n ≥ 3f+1; else a silent liar stops every broadcast."""
        return self.gather_quorum >= self.echo_quorum

    def trimmed_mean_contraction(self, *, consistent: bool) -> Fraction | None:
        """Worst ratio of the honest values' spread after one sub-round of trimmed mean to the spread before it.

        Per coordinate; f/(n−3f) when liars cannot equivocate, 2f/(n−3f) when they can. None where nothing is
        averaged (n ≤ 3f). Checked by enumeration for f ≤ 2 (the table of worst contractions).
        """
        kept = self.n - 3 * self.f
        if kept <= 0:
            return None
        return Fraction(self.f if consistent else 2 * self.f, kept)


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
