"""Named recipes: what a step exchanges, by which broadcast, mixed by which rule, over how many sub-rounds.

The theorem guard lives here: a configuration that its theorem does not cover is refused, with the numbers.
"""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from typing import Literal

import p2pnode.aggregation.rules as rules
from p2pnode import joint
from p2pnode.aggregation.rule import Rule
from p2pnode.errors import ConfigError
from protocols.broadcast import Broadcast
from protocols.committee import (
    PLAIN_BROADCAST,
    RELIABLE_BROADCAST,
    SIGNED_ECHO_BROADCAST,
    Bound,
    Committee,
    precision,
    sub_rounds,
)
from protocols.header import BFLOAT16, FLOAT16, FLOAT32
from protocols.plain import Plain
from protocols.reliable import Reliable
from protocols.signed_echo import SignedEcho

BROADCASTS: dict[str, type[Broadcast]] = {"plain": Plain, "signed-echo": SignedEcho, "reliable": Reliable}

BROADCAST_BOUNDS = {"plain": PLAIN_BROADCAST, "signed-echo": SIGNED_ECHO_BROADCAST, "reliable": RELIABLE_BROADCAST}

PRECISION_MAX = 63
"""Largest N of AVG_N: beyond, a diameter is below what float32 can tell."""

What = Literal["model", "parameters", "gradient"]
Placement = Literal["worker", "update"]
Wait = Literal["quorum", "all"]
Wire = Literal["float32", "bfloat16", "float16"]
Staleness = Literal[0, 1]

WIRES: dict[str, int] = {"float32": FLOAT32, "bfloat16": BFLOAT16, "float16": FLOAT16}
"""What vectors may be rounded to when they are announced → wire code."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange of a step: an averaging agreement.

    Args:
        what: what travels. "model": the model, after the local steps if they are not taken yet. "parameters": the model
            as it is; the gradient is then taken at the outcome. "gradient": the gradient, or the momentum if that is
            placed at the worker; the local step follows the agreement, and is along its outcome.
        broadcast: a key of `BROADCASTS`.
        rule: the aggregation rule that mixes what was gathered, by its one name.
        rounds: how often it is broadcast, gathered and mixed: rounds[N−1] times for AVG_N, the last for any higher N.
        absent: how many members are not waited for; None for f.
    """

    what: What
    broadcast: str
    rule: str
    rounds: tuple[int, ...]
    absent: int | None = None

    def sub_rounds(self, step: int) -> int:
        """How many sub-rounds this exchange has at a step, from 0."""
        rounds = self.rounds
        return rounds[0] if len(rounds) == 1 else rounds[min(precision(step), len(rounds)) - 1]

    def quorum(self, committee: Committee) -> int:
        """How many values are waited for."""
        return committee.gather_quorum if self.absent is None else committee.n - self.absent

    def together(self, committee: Committee) -> int:
        """Of how many others' vectors a node signs its echoes together: of all but those that a slot goes on without.
        0 where it signs none together."""
        if self.broadcast != "signed-echo" or not joint.serves(committee.n):
            return 0
        return min(committee.gather_quorum, self.quorum(committee)) - 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """A published system as a list of exchanges.

    Args:
        name: a key of `RECIPES`.
        exchanges: in order; the outcome of the last is the next model, or the direction to it.
        batch_grows: whether the batch of step t, from 0, has at least t+1 samples.
        local_steps: gradients that are followed before a model is exchanged, ≥ 1.
        placement: whose momentum it is. "worker": of one's own gradients, before they are exchanged. "update": of the
            directions agreed on.
        wire: what vectors are rounded to when they are announced; a key of `WIRES`. Whatever is computed of them is
            computed in float32.
        staleness: 1 where the gradient of a step is taken at what was announced in the step before, while that is
            exchanged, and then followed from what was agreed on; only where a step is one gradient and one exchange of
            models. 0 where it is taken at what was agreed on. The first gradient after a restart or a jump always is.
    """

    name: str
    exchanges: tuple[Exchange, ...]
    batch_grows: bool = False
    local_steps: int = 1
    placement: Placement = "worker"
    wire: Wire = "float32"
    staleness: Staleness = 0

    @property
    def dtype(self) -> int:
        """Wire code of all vectors."""
        return WIRES[self.wire]

    @property
    def total(self) -> bool:
        """Whether a broadcast of it is total, so that a slow member may need any member's vector."""
        return any(BROADCASTS[exchange.broadcast].total for exchange in self.exchanges)

    def slots(self, step: int) -> int:
        """How many slots a step has."""
        return sum(exchange.sub_rounds(step) for exchange in self.exchanges)


@dataclass(frozen=True, slots=True)
class Part:
    """One exchange of a preset.

    Args:
        what: as in `Exchange`.
        rule: None for the recipe's own.
        rounds: "halve": an averaging agreement, of as many sub-rounds as halve the honest spread. "avg-1": as many as
            halve the honest diameter. "avg-n": AVG_N with N = ⌈log2 t⌉. "log": 1 + ⌈log2 t⌉ sub-rounds. "once": one
            sub-round, of which no more is asked than that the rule stands f lies among what it is given.
    """

    what: What
    rule: str | None = None
    rounds: Literal["halve", "avg-1", "avg-n", "log", "once"] = "halve"


_MODEL = (Part("model"),)
_JUNGLE = (Part("gradient", rounds="avg-n"), Part("model", rounds="avg-1"))
_GRADIENT_THEN_MODEL = (Part("gradient", rounds="once"), Part("model", "trimmed-mean"))


@dataclass(frozen=True, slots=True)
class Preset:
    """What a recipe does unless told otherwise.

    Args:
        broadcast: of all its exchanges.
        rule: of those that name none.
        summary: one line for people.
        parts: its exchanges, in order.
        momentum: β, where the recipe has one of its own.
        batch_grows, local_steps, placement: as in `Recipe`.
        note: what a user should know that no guard can check.
    """

    broadcast: str
    rule: str
    summary: str
    parts: tuple[Part, ...] = _MODEL
    momentum: float | None = None
    batch_grows: bool = False
    local_steps: int = 1
    placement: Placement = "worker"
    note: str | None = None


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
        _JUNGLE,
        momentum=0.0,
        batch_grows=True,
    ),
    "jungle-mda": Preset(
        "plain",
        "minimum-diameter",
        "jungle: gradients, then models, by minimum-diameter averaging, n ≥ 6f+1",
        _JUNGLE,
        momentum=0.0,
        batch_grows=True,
    ),
    "learn": Preset(
        "plain",
        "median",
        "LEARN, Garfield's peer-to-peer mode: gradients over 1+⌈log2 t⌉ rounds, then models, n ≥ 3f+3",
        (Part("gradient", rounds="log"), Part("model")),
        placement="update",
    ),
    "resam": Preset(
        "signed-echo",
        "minimum-diameter",
        "RESAM: momenta by a resilient averaging rule, then models by trimmed mean, n ≥ 4f+1",
        _GRADIENT_THEN_MODEL,
    ),
    "distributed-momentum": Preset(
        "signed-echo",
        "krum",
        "Krum of momenta, or momentum of Krums (placement); then models by trimmed mean, n ≥ 4f+1 and 3f+3",
        _GRADIENT_THEN_MODEL,
    ),
    "multi-krum": Preset(
        "signed-echo",
        "multi-krum",
        "Multi-Krum of gradients, then models by trimmed mean, n ≥ 4f+1 and 3f+3",
        _GRADIENT_THEN_MODEL,
        momentum=0.0,
    ),
    "bulyan": Preset(
        "signed-echo",
        "bulyan",
        "Bulyan of gradients, then models by trimmed mean, n ≥ 5f+3",
        _GRADIENT_THEN_MODEL,
        momentum=0.0,
    ),
    "multi-bulyan": Preset(
        "signed-echo",
        "multi-bulyan",
        "Multi-Bulyan of gradients, then models by trimmed mean, n ≥ 5f+3",
        _GRADIENT_THEN_MODEL,
        momentum=0.0,
    ),
    "guanyu": Preset(
        "plain",
        "multi-krum",
        "GuanYu: a gradient at the median of models, Multi-Krum of gradients, median of models, n ≥ 3f+3",
        (Part("parameters", "median"), Part("gradient", rounds="once"), Part("model", "median")),
        momentum=0.0,
    ),
    "ce": Preset(
        "signed-echo",
        "comparative-elimination",
        "comparative elimination: T local steps, the models nearest to where one's own began, n ≥ 3f+1",
        (Part("model", rounds="once"),),
        momentum=0.0,
        local_steps=3,
        note="comparative elimination is proven for f/(n−f) ≤ μ/(3L), of strongly convex and smooth costs, and small "
        "steps; above, liars that stay near can lead it astray",
    ),
    "p2p-cge": Preset(
        "reliable",
        "gradient-elimination",
        "peer-to-peer DGD: the n−2f gradients of least norm, then models by trimmed mean, with witnesses, n ≥ 3f+1",
        _GRADIENT_THEN_MODEL,
        momentum=0.0,
        note="comparative gradient elimination needs 2f-redundant costs: the data of any n−2f honest nodes must lead "
        "to about the same model",
    ),
    "redundant": Preset(
        "signed-echo",
        "gradient-elimination",
        "waits for no straggler: n−r gradients by elimination, then n−r models by trimmed mean",
        _GRADIENT_THEN_MODEL,
        momentum=0.0,
        note="leaving out r stragglers and f liars costs an error of the order of (f, r; ε)-redundancy's ε",
    ),
}


def choose(
    name: str,
    committee: Committee,
    broadcast: str | None = None,
    rule: str | None = None,
    rounds: int | None = None,
    *,
    gather: Wait | None = None,
    redundancy: int | None = None,
    local_steps: int | None = None,
    placement: Placement | None = None,
    wire: Wire | None = None,
    staleness: Staleness | None = None,
    guarded: bool = True,
) -> Recipe:
    """The recipe of that name, with what is not None chosen otherwise than it does.

    Args:
        name: a key of `RECIPES`.
        committee: n and f.
        broadcast: a key of `BROADCASTS`.
        rule: name, alias or pipeline of an aggregation rule, in place of the recipe's own.
        rounds: sub-rounds of each averaging agreement; by default as many as halve the honest spread, for the jungle
            recipes the honest diameter, ⌈log2 t⌉ times over for the gradient of step t; one where no rate is known.
        gather: "all" waits for every member: the synchronous setting of server-based papers, in which all nodes hold
            one model, so that no models are exchanged after gradients. One silent member stops it.
        redundancy: r, members that are not waited for, ≥ f; by default f.
        local_steps, placement, wire, staleness: as in `Recipe`.
        guarded: False lets pass what no theorem covers; only for simulations that show how it breaks.

    Raises:
        ConfigError: for an unknown name, or a choice that the recipe does not have; or where no theorem covers the
            choice at this n and f, with the remedies.
    """
    preset = RECIPES[known("recipe", name, RECIPES)]
    broadcast = known("broadcast", preset.broadcast if broadcast is None else broadcast, BROADCASTS)
    own = rules.find(preset.rule if rule is None else rule)
    if gather is not None:
        known("gather", gather, ("quorum", "all"))
    if placement is not None:
        known("placement", placement, ("worker", "update"))
    if wire is not None:
        known("wire", wire, WIRES)
    if staleness not in (None, 0, 1):
        raise ConfigError(f"staleness = {staleness}: a gradient is of this step or the last. Remedy: choose 0 or 1")
    if local_steps is not None and local_steps < 1:
        raise ConfigError(f"local_steps = {local_steps}: a step follows one gradient at least. Remedy: choose from 1")
    absent = _absent(committee, gather, redundancy)
    parts = _of_one_model(preset.parts) if absent == 0 else preset.parts
    exchanges = []
    for part in parts:
        mixer = own if part.rule is None else rules.find(part.rule)
        _check_centre(part, mixer)
        if guarded:
            _guard(committee, part, broadcast, mixer, absent)
        asked = rounds if part.rounds != "once" or len(parts) == 1 else None
        once = _rounds(committee, part, broadcast, mixer.name, absent) if asked is None else (asked,)
        exchanges.append(Exchange(part.what, broadcast, mixer.name, once, absent))
    recipe = Recipe(
        name,
        tuple(exchanges),
        preset.batch_grows,
        preset.local_steps if local_steps is None else local_steps,
        preset.placement if placement is None else placement,
        "float32" if wire is None else wire,
        0 if staleness is None else staleness,
    )
    _check_local_work(recipe)
    _check_staleness(recipe)
    return recipe


def _absent(committee: Committee, gather: Wait | None, redundancy: int | None) -> int | None:
    """How many members are not waited for; None for f."""
    if gather == "all":
        if redundancy:
            raise ConfigError(
                f"redundancy = {redundancy}: gather = 'all' waits for every member. Remedy: leave out one of the two"
            )
        return 0
    if redundancy is None or redundancy == committee.f:
        return None
    if not 0 <= redundancy < committee.n:
        raise ConfigError(
            f"redundancy = {redundancy}: of {committee.n} members one at least is waited for. Remedy: choose fewer"
        )
    return redundancy


def _of_one_model(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The exchanges that are left where all nodes gather the same vectors: of gradients, if there are any."""
    gradients = tuple(part for part in parts if part.what == "gradient")
    return gradients or parts


def _check_local_work(recipe: Recipe) -> None:
    of_gradients = any(exchange.what == "gradient" for exchange in recipe.exchanges)
    if recipe.local_steps > 1 and of_gradients:
        raise ConfigError(
            f"local_steps = {recipe.local_steps}: {recipe.name} exchanges gradients, one a step. Remedy: leave it out, "
            "or choose a recipe that exchanges models alone, as ce"
        )
    if recipe.placement == "update" and not of_gradients:
        raise ConfigError(
            f"placement = 'update': {recipe.name} agrees on no direction that momentum could follow. Remedy: leave it "
            "out, or choose a recipe that exchanges gradients, as distributed-momentum"
        )


def _check_staleness(recipe: Recipe) -> None:
    if recipe.staleness == 0:
        return
    if [exchange.what for exchange in recipe.exchanges] != ["model"]:
        reason = "exchanges more in a step than models, once, and what comes between needs its gradient"
    elif recipe.local_steps > 1:
        reason = f"follows {recipe.local_steps} gradients a step, each from where the one before led"
    else:
        return
    raise ConfigError(
        f"staleness = {recipe.staleness}: {recipe.name} {reason}. Remedy: leave it out, or choose a recipe of one "
        "gradient and one exchange of models a step, as trimmed or monna"
    )


def _check_centre(part: Part, rule: Rule) -> None:
    if rule.wants_centre and part.what == "gradient":
        raise ConfigError(
            f"rule = {rule.name!r}: it measures from the model at which a round began, and gradients are mixed. "
            "Remedy: choose gradient-elimination, which measures from zero, or a recipe that exchanges models"
        )


def _guard(committee: Committee, part: Part, broadcast: str, rule: Rule, absent: int | None) -> None:
    """The theorem guard."""
    n, f = committee.n, committee.f
    if absent is not None and absent < f:
        raise ConfigError(
            f"f = {f}: who waits for {n - absent} of {n} members waits for ever if f of them are silent. Remedy: leave "
            "out `gather`, choose redundancy ≥ f, or choose f=0"
        )
    bound = _bound(f, part, broadcast, rule, absent)
    if bound.covers(committee):
        # Where a broadcast is total, all may be gathered.
        rule.check(n if BROADCASTS[broadcast].total else n - (f if absent is None else absent), f)
        return
    least = bound.least(f)
    claim = f"{rule.name} over {broadcast} needs {bound}: n={n} tolerates f={bound.tolerated(n)}"
    remedies = [f"choose f={bound.tolerated(n)}"]
    if least is not None:
        claim += f"; f={f} needs n ≥ {least}"
        remedies.insert(0, f"use n ≥ {least} nodes")
    else:
        remedies.append("choose another rule")
    raise ConfigError(f"f = {f}: {claim}. Remedy: {', or '.join(remedies)}")


def _bound(f: int, part: Part, broadcast: str, rule: Rule, absent: int | None) -> Bound:
    """The committees that this exchange is proven for; of the rule and of the broadcast the stricter at this f."""
    bound = rule.bounds[broadcast]
    if bound.per_liar is None:
        return bound
    if part.rounds == "once":
        needs = rule.inputs_min
        bound = needs.bound(rule.source) if absent is None else Bound(needs.per_liar, needs.spare + absent, rule.source)
    elif absent is not None:
        if rule.name != "trimmed-mean" or not BROADCASTS[broadcast].consistent:
            return Bound(None, 0, "nothing is proven of an agreement among others than n−f")
        bound = Bound(2, 2 * absent + 1, "contraction r/(n−r−2f)")
    return max(bound, BROADCAST_BOUNDS[broadcast], key=lambda one: one.least(f) or 0)


def proven(recipe: Recipe, committee: Committee) -> tuple[Bound, ...]:
    """The committees that each exchange of a recipe is proven for, and where; at f = 0 what f = 1 would need."""
    absent = recipe.exchanges[0].absent
    preset = RECIPES[recipe.name]
    parts = _of_one_model(preset.parts) if absent == 0 else preset.parts
    return tuple(
        _bound(max(1, committee.f), part, exchange.broadcast, rules.find(exchange.rule), absent)
        for part, exchange in zip(parts, recipe.exchanges, strict=True)
    )


def contraction(committee: Committee, broadcast: str, rule: str, absent: int | None = None) -> Fraction | None:
    """What one sub-round leaves of the honest values' diameter, of each coordinate's spread for the trimmed mean.

    At most; None where nothing below 1 is proven.

    Args:
        committee: n and f.
        broadcast, rule, absent: as in `Exchange`.
    """
    kind = BROADCASTS[broadcast]
    left = None
    if rule == "trimmed-mean":
        left = committee.trimmed_mean_contraction(consistent=kind.consistent, total=kind.total, absent=absent)
    elif absent is not None:
        return None
    elif rule == "minimum-diameter":
        left = committee.minimum_diameter_contraction
    elif rule == "nearest-neighbour":
        left = committee.nearest_neighbour_contraction(consistent=kind.consistent)
    return left if left is not None and left < 1 else None


def _rounds(committee: Committee, part: Part, broadcast: str, rule: str, absent: int | None) -> tuple[int, ...]:
    """As `Exchange.rounds`. Nearest-neighbour averaging has one sub-round, as in MoNNA's experiments."""
    if part.rounds == "log":
        return tuple(1 + n for n in range(1, PRECISION_MAX + 1))
    left = contraction(committee, broadcast, rule, absent)
    if left is None or part.rounds == "once":
        return (1,)
    if part.rounds == "halve":
        return (1 if rule == "nearest-neighbour" else sub_rounds(left),)
    growing = _growing_rounds(committee, rule, left)
    return growing if part.rounds == "avg-n" else growing[:1]


def _growing_rounds(committee: Committee, rule: str, left: Fraction) -> tuple[int, ...]:
    """Sub-rounds of AVG_N for N = 1, 2, …: as many as leave 2^−N of the honest diameter."""
    spread = Fraction(committee.distortion if rule == "trimmed-mean" else 1)
    rounds: list[int] = []
    taken = 0
    for n in range(1, PRECISION_MAX + 1):
        while taken == 0 or spread > Fraction(1, 2**n):
            taken, spread = taken + 1, spread * left
        rounds.append(taken)
    return tuple(rounds)


def known(what: str, name: str, table: Collection[str]) -> str:
    """The name, if it is in the table.

    Raises:
        ConfigError: naming the nearest and all.
    """
    if name in table:
        return name
    near = get_close_matches(name, table, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"{what} = {name!r}: no such {what}. Remedy: {hint}choose one of {', '.join(table)}")
