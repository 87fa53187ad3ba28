"""Named recipes: what a step exchanges, by which broadcast, mixed by which rule, over how many sub-rounds.

The theorem guard lives here: a configuration that its theorem does not cover is refused, with the numbers.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import p2pnode.aggregation.rules as rules
from p2pnode.errors import ConfigError
from protocols.broadcast import Broadcast
from protocols.committee import Committee, sub_rounds
from protocols.plain import Plain
from protocols.signed_echo import SignedEcho

BROADCASTS: dict[str, type[Broadcast]] = {"plain": Plain, "signed-echo": SignedEcho}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange of a step.

    Args:
        what: what travels; the model after the local momentum step.
        broadcast: a key of `BROADCASTS`.
        rule: the aggregation rule that mixes what was gathered, by its one name.
        sub_rounds: how often it is broadcast, gathered and mixed.
    """

    what: Literal["model"]
    broadcast: str
    rule: str
    sub_rounds: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """A published system as a list of exchanges."""

    name: str
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True)
class Preset:
    """What a recipe does unless told otherwise."""

    broadcast: str
    rule: str
    summary: str


RECIPES: dict[str, Preset] = {
    "dsgd": Preset("plain", "mean", "decentralized SGD: plain broadcast, plain mean; tolerates no liar"),
    "trimmed": Preset("signed-echo", "trimmed-mean", "averaging agreement by trimmed mean over signed echo, n ≥ 4f+1"),
    "monna": Preset(
        "signed-echo", "nearest-neighbour", "MoNNA: nearest-neighbour averaging over signed echo, n ≥ 5f+1"
    ),
}


def choose(
    name: str,
    committee: Committee,
    broadcast: str | None = None,
    rule: str | None = None,
    rounds: int | None = None,
) -> Recipe:
    """The recipe of that name, with what is not None chosen otherwise than it does.

    Args:
        name: a key of `RECIPES`.
        committee: n and f.
        broadcast: a key of `BROADCASTS`.
        rule: name or alias of an aggregation rule.
        rounds: sub-rounds of each averaging agreement; by default as many as halve the honest spread.

    Raises:
        ConfigError: for an unknown name; or where no theorem covers the choice at this n and f, with the remedies.
    """
    preset = RECIPES[_known("recipe", name, RECIPES)]
    broadcast = _known("broadcast", preset.broadcast if broadcast is None else broadcast, BROADCASTS)
    rule = rules.find(preset.rule if rule is None else rule).name
    _guard(committee, broadcast, rule)
    if rounds is None:
        rounds = _rounds(committee, broadcast, rule)
    return Recipe(name, (Exchange("model", broadcast, rule, rounds),))


def _guard(committee: Committee, broadcast: str, rule: str) -> None:
    """The theorem guard."""
    n, f = committee.n, committee.f
    bound = rules.RULES[rule].bounds[broadcast]
    least = bound.least(f)
    if least is not None and n >= least:
        return
    claim = f"{rule} over {broadcast} needs {bound}: n={n} tolerates f={bound.tolerated(n)}"
    remedies = [f"choose f={bound.tolerated(n)}"]
    if least is not None:
        claim += f"; f={f} needs n ≥ {least}"
        remedies.insert(0, f"use n ≥ {least} nodes")
    else:
        remedies.append("choose another rule")
    raise ConfigError(f"f = {f}: {claim}. Remedy: {', or '.join(remedies)}")


def _rounds(committee: Committee, broadcast: str, rule: str) -> int:
    if rule != "trimmed-mean":
        return 1
    contraction = committee.trimmed_mean_contraction(consistent=broadcast == "signed-echo")
    assert contraction is not None, "the guard lets only n > 3f pass"
    return sub_rounds(contraction)


def _known(what: str, name: str, table: dict[str, Preset] | dict[str, type[Broadcast]]) -> str:
    if name in table:
        return name
    near = get_close_matches(name, table, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"{what} = {name!r}: no such {what}. Remedy: {hint}choose one of {', '.join(table)}")
