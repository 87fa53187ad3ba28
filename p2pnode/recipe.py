"""Named recipes: what a step exchanges, by which broadcast, mixed by which rule, over how many sub-rounds.

The theorem guard lives here: a configuration that its theorem does not cover is refused, with the numbers.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from typing import Literal

import p2pnode.aggregation.rules as rules
from p2pnode.errors import ConfigError
from protocols.broadcast import Broadcast
from protocols.committee import Committee, precision, sub_rounds
from protocols.plain import Plain
from protocols.reliable import Reliable
from protocols.signed_echo import SignedEcho

BROADCASTS: dict[str, type[Broadcast]] = {"plain": Plain, "signed-echo": SignedEcho, "reliable": Reliable}

PRECISION_MAX = 63
"""Largest N of AVG_N: beyond, a diameter is below what float32 can tell."""

What = Literal["model", "gradient"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange of a step: an averaging agreement.

    Args:
        what: what travels. "model": the model, after the local step if that is not taken yet. "gradient": the gradient,
            or with momentum β > 0 the momentum; the local step follows the agreement, and is along its outcome.
        broadcast: a key of `BROADCASTS`.
        rule: the aggregation rule that mixes what was gathered, by its one name.
        rounds: how often it is broadcast, gathered and mixed: rounds[N−1] times for AVG_N, the last for any higher N.
    """

    what: What
    broadcast: str
    rule: str
    rounds: tuple[int, ...]

    def sub_rounds(self, step: int) -> int:
        """How many sub-rounds this exchange has at a step, from 0."""
        rounds = self.rounds
        return rounds[0] if len(rounds) == 1 else rounds[min(precision(step), len(rounds)) - 1]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A published system as a list of exchanges.

    Args:
        name: a key of `RECIPES`.
        exchanges: in order; the outcome of the last is the next model.
        batch_grows: whether the batch of step t, from 0, has at least t+1 samples.
    """

    name: str
    exchanges: tuple[Exchange, ...]
    batch_grows: bool = False

    @property
    def total(self) -> bool:
        """Whether a broadcast of it is total, so that a slow member may need any member's vector."""
        return any(BROADCASTS[exchange.broadcast].total for exchange in self.exchanges)

    def slots(self, step: int) -> int:
        """How many slots a step has."""
        return sum(exchange.sub_rounds(step) for exchange in self.exchanges)


@dataclass(frozen=True, slots=True)
class Preset:
    """What a recipe does unless told otherwise.

    Args:
        broadcast, rule: of all its exchanges.
        summary: one line for people.
        jungle: whether a step is that of collaborative learning in the jungle: a gradient from a growing batch, agreed
            on ever more precisely; then the model.
        momentum: β, where the recipe has one of its own.
    """

    broadcast: str
    rule: str
    summary: str
    jungle: bool = False
    momentum: float | None = None


RECIPES: dict[str, Preset] = {
    "dsgd": Preset("plain", "mean", "decentralized SGD: plain broadcast, plain mean; tolerates no liar"),
    "trimmed": Preset("signed-echo", "trimmed-mean", "averaging agreement by trimmed mean over signed echo, n ≥ 4f+1"),
    "monna": Preset(
        "signed-echo", "nearest-neighbour", "MoNNA: nearest-neighbour averaging over signed echo, n ≥ 5f+1"
    ),
    "jungle-rb": Preset(
        "reliable",
        "trimmed-mean",
        "jungle: gradients, then models, by reliable broadcast with witnesses, n ≥ 3f+1",
        jungle=True,
        momentum=0.0,
    ),
    "jungle-mda": Preset(
        "plain",
        "minimum-diameter",
        "jungle: gradients, then models, by minimum-diameter averaging, n ≥ 6f+1",
        jungle=True,
        momentum=0.0,
    ),
}


def choose(
    name: str,
    committee: Committee,
    broadcast: str | None = None,
    rule: str | None = None,
    rounds: int | None = None,
    *,
    guarded: bool = True,
) -> Recipe:
    """The recipe of that name, with what is not None chosen otherwise than it does.

    Args:
        name: a key of `RECIPES`.
        committee: n and f.
        broadcast: a key of `BROADCASTS`.
        rule: name or alias of an aggregation rule.
        rounds: sub-rounds of each averaging agreement; by default as many as halve the honest spread, for the jungle
            recipes the honest diameter, ⌈log2 t⌉ times over for the gradient of step t; one where no rate is known.
        guarded: False lets pass what no theorem covers; only for simulations that show how it breaks.

    Raises:
        ConfigError: for an unknown name; or where no theorem covers the choice at this n and f, with the remedies.
    """
    preset = RECIPES[_known("recipe", name, RECIPES)]
    broadcast = _known("broadcast", preset.broadcast if broadcast is None else broadcast, BROADCASTS)
    rule = rules.find(preset.rule if rule is None else rule).name
    if guarded:
        _guard(committee, broadcast, rule)
    if not preset.jungle:
        once = _rounds(committee, broadcast, rule) if rounds is None else rounds
        return Recipe(name, (Exchange("model", broadcast, rule, (once,)),))
    growing = _growing_rounds(committee, broadcast, rule) if rounds is None else (rounds,)
    exchanges = Exchange("gradient", broadcast, rule, growing), Exchange("model", broadcast, rule, growing[:1])
    return Recipe(name, exchanges, batch_grows=True)


def _guard(committee: Committee, broadcast: str, rule: str) -> None:
    """The theorem guard."""
    n, f = committee.n, committee.f
    bound = rules.find(rule).bounds[broadcast]
    if bound.covers(committee):
        return
    least = bound.least(f)
    claim = f"{rule} over {broadcast} needs {bound}: n={n} tolerates f={bound.tolerated(n)}"
    remedies = [f"choose f={bound.tolerated(n)}"]
    if least is not None:
        claim += f"; f={f} needs n ≥ {least}"
        remedies.insert(0, f"use n ≥ {least} nodes")
    else:
        remedies.append("choose another rule")
    raise ConfigError(f"f = {f}: {claim}. Remedy: {', or '.join(remedies)}")


def contraction(committee: Committee, broadcast: str, rule: str) -> Fraction | None:
    """What one sub-round leaves of the honest values' diameter, of each coordinate's spread for the trimmed mean.

    At most; None where nothing below 1 is proven.
    """
    kind = BROADCASTS[broadcast]
    left = None
    if rule == "trimmed-mean":
        left = committee.trimmed_mean_contraction(consistent=kind.consistent, total=kind.total)
    elif rule == "minimum-diameter":
        left = committee.minimum_diameter_contraction
    elif rule == "nearest-neighbour":
        left = committee.nearest_neighbour_contraction(consistent=kind.consistent)
    return left if left is not None and left < 1 else None


def _rounds(committee: Committee, broadcast: str, rule: str) -> int:
    """One, as in MoNNA's experiments, unless it is the trimmed mean's."""
    left = contraction(committee, broadcast, rule)
    return 1 if left is None or rule == "nearest-neighbour" else sub_rounds(left)


def _growing_rounds(committee: Committee, broadcast: str, rule: str) -> tuple[int, ...]:
    """Sub-rounds of AVG_N for N = 1, 2, …: as many as leave 2^−N of the honest diameter."""
    left = contraction(committee, broadcast, rule)
    if left is None:
        return (1,)
    spread = Fraction(committee.distortion if rule == "trimmed-mean" else 1)
    rounds: list[int] = []
    taken = 0
    for n in range(1, PRECISION_MAX + 1):
        while taken == 0 or spread > Fraction(1, 2**n):
            taken, spread = taken + 1, spread * left
        rounds.append(taken)
    return tuple(rounds)


def _known(what: str, name: str, table: dict[str, Preset] | dict[str, type[Broadcast]]) -> str:
    if name in table:
        return name
    near = get_close_matches(name, table, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"{what} = {name!r}: no such {what}. Remedy: {hint}choose one of {', '.join(table)}")
