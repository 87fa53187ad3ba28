"""What is done to a network on purpose: the file that says it, the draw of a seed, and what is promised of it. Pure.

Perturbations happen one after another, in the order of the file: one whose moment comes while another is not over
begins when all have stepped again. So each has a healing of its own, and a time until everyone stepped again.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeAlias

from pydantic import Field

from p2pnode.errors import ConfigError
from p2pnode.settings import Settings, load

Kind: TypeAlias = Literal["kill", "restart", "pause", "liar", "disconnect", "partition", "slow"]

KINDS: tuple[Kind, ...] = ("kill", "restart", "pause")
"""What can be done to any node: SIGKILL, SIGTERM, SIGSTOP."""

OF_LINKS: tuple[Kind, ...] = ("disconnect", "partition", "slow")
"""What can be done to nodes on hosts of their own only."""

RANDOM = "random"
"""In the place of a file: what a seed draws."""

RECOVER_S = 10.0
"""After it healed, every healthy node steps again within so many seconds."""

DIVERGED = 0.1
"""Models that were one until the network was split, and whose final distance is a larger part of their norm, have gone
apart. Mixing to the end leaves less than half of it under every attack that a recipe tolerates."""

DRAWN = (3, 5)
"""How many perturbations are drawn, at least and at most."""

DRAWN_S = (0.2, 3.0)
"""How long one that was drawn lasts: from too short for a link to notice, to many steps of the others."""

DRAWN_MEGABITS = (0.5, 5.0)
"""Rate of a drawn slow link: some steps of a small model a second."""

_UNDISTURBED = 0.35
"""Part of the steps after which none that was drawn begins: what was harmed shows in what is learned, and may mend."""


class Perturbation(Settings):
    """One thing that is done to some nodes; a network refuses what does not fit it, or what does not go together.

    Args:
        kind: what is done to them. `kill`, `restart` and `pause` are SIGKILL, SIGTERM and SIGSTOP; a `liar` lies to the
            end; `disconnect` cuts them off from all, `partition` from the others, and `slow` makes their links slow:
            these three need hosts of their own (`--engine netns`).
        nodes: to whom, by name; of a partition those of one side.
        at_step: it begins when every healthy node is at this step. Either this or `at_s`.
        at_s: it begins so many seconds after the first step.
        for_s: seconds that it lasts; a liar is one to the end, and has none.
        megabits: rate of a slow link, in 10⁶ bits a second; of that kind only.
    """

    kind: Kind = Field(description=f"choose one of {', '.join((*KINDS, 'liar', *OF_LINKS))}")
    nodes: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = Field(
        description='write the names of nodes, as ["node0", "node3"]; of a partition those of one side'
    )
    at_step: Annotated[int, Field(ge=1)] | None = Field(
        None, description="choose a step from 1 on, that every healthy node reaches before it begins"
    )
    at_s: Annotated[float, Field(ge=0, le=86400)] | None = Field(
        None, description="choose how many seconds after the first step it begins"
    )
    for_s: Annotated[float, Field(ge=0, le=86400)] | None = Field(
        None, description="choose how many seconds it lasts, up to a day"
    )
    megabits: Annotated[float, Field(ge=0.01, le=1e6)] | None = Field(
        None, description="choose the rate of the slow link, in 10⁶ bits a second, from 0.01 on"
    )

    def __str__(self) -> str:
        return f"{self.kind} of {', '.join(self.nodes)}"


class Perturbations(Settings):
    """What is done to a network, in order.

    Args:
        recover_s: within so many seconds of each healing every healthy node has stepped again.
        perturbation: what is done, a table each, one after another.
    """

    recover_s: Annotated[float, Field(gt=0, le=86400)] = Field(
        RECOVER_S, description="choose within how many seconds of its healing everyone must have stepped again"
    )
    perturbation: Annotated[tuple[Perturbation, ...], Field(min_length=1, strict=False)] = Field(
        description="write a table [[perturbation]] for each, with kind, nodes, at_step or at_s, and for_s"
    )

    @classmethod
    def load(cls, path: Path) -> "Perturbations":
        """Read a file of perturbations.

        Raises:
            ConfigError: if it is missing or wrong by itself; whether it fits a network, `checked` tells.
        """
        return load(cls, path, "name a file, or random", f"perturb = {str(path)!r}")

    def checked(self, net: "Subject", source: str | Path) -> "Perturbations":
        """Itself, if all of it can be done to this network.

        Raises:
            ConfigError: naming source, key, reason and remedy of the first mistake.
        """
        swapped: set[str] = set()
        for number, one in enumerate(self.perturbation):
            _check(one, net, swapped, f"{source}: perturbation.{number}")
        return self

    def toml(self) -> str:
        """The file that `load` reads these from."""
        tables = [f"recover_s = {self.recover_s!r}"]
        for one in self.perturbation:
            said = one.model_dump(exclude_none=True)
            tables.append("\n".join(["[[perturbation]]", *(f"{key} = {_toml(value)}" for key, value in said.items())]))
        return "\n\n".join(tables) + "\n"


@dataclass(frozen=True, slots=True)
class Subject:
    """The network that is perturbed.

    Args:
        honest, liars: names of its nodes.
        f: how many liars its recipe tolerates.
        steps: how many it takes.
        links: whether what is done to links can be done here.
    """

    honest: tuple[str, ...]
    liars: tuple[str, ...]
    f: int
    steps: int
    links: bool

    @property
    def names(self) -> tuple[str, ...]:
        return self.honest + self.liars


def draw(seed: int, net: Subject) -> Perturbations:
    """Perturbations that fit the network; the same for the same seed and network."""
    chance = random.Random(f"perturb {seed}")
    count = min(chance.randint(*DRAWN), max(1, net.steps - 1))
    moments = sorted(chance.sample(range(1, max(2, count + 1, int(_UNDISTURBED * net.steps))), count))
    room = min(net.f - len(net.liars), len(net.honest) - 1)
    drawn: list[Perturbation] = []
    for moment in moments:
        kinds = [*KINDS, *(OF_LINKS if net.links and len(net.names) > 1 else ()), *(("liar",) if room > 0 else ())]
        kind = chance.choice(kinds)
        swapped = {name for one in drawn if one.kind == "liar" for name in one.nodes}
        nodes = _drawn_nodes(chance, kind, net, swapped)
        room -= kind == "liar"
        drawn.append(
            Perturbation(
                kind=kind,
                nodes=nodes,
                at_step=moment,
                for_s=None if kind == "liar" else round(chance.uniform(*DRAWN_S), 1),
                megabits=round(chance.uniform(*DRAWN_MEGABITS), 1) if kind == "slow" else None,
            )
        )
    return Perturbations(recover_s=RECOVER_S, perturbation=tuple(drawn))


def _drawn_nodes(chance: random.Random, kind: Kind, net: Subject, swapped: set[str]) -> tuple[str, ...]:
    if kind == "partition":
        return tuple(sorted(chance.sample(net.names, chance.randint(1, len(net.names) - 1))))
    return (chance.choice([name for name in net.honest if name not in swapped]),)


def _check(one: Perturbation, net: Subject, swapped: set[str], where: str) -> None:
    """Refuse what cannot be done; `swapped` are the nodes that were made liars before, and is added to."""

    def refuse(key: str, why: str, remedy: str) -> NoReturn:
        raise ConfigError(f"{where}.{key}: {why}. Remedy: {remedy}")

    strangers = [name for name in one.nodes if name not in net.names]
    if strangers:
        refuse("nodes", f"no node is called {strangers[0]!r}", f"choose among {', '.join(net.names)}")
    if len(set(one.nodes)) < len(one.nodes):
        refuse("nodes", "a node is named twice", "name each once")
    if (one.at_step is None) == (one.at_s is None):
        refuse("at_step", "its moment is given twice or not at all", "write either at_step or at_s")
    if one.at_step is not None and one.at_step >= net.steps:
        refuse(
            "at_step", f"{one.at_step} is not before the last, {net.steps}", "choose an earlier step, or more --steps"
        )
    if one.kind != "liar" and one.for_s is None:
        refuse("for_s", "is missing", "choose how many seconds it lasts")
    if (one.kind == "slow") != (one.megabits is not None):
        refuse("megabits", "belongs to kind slow, and to no other", "write it there, or leave it out here")
    if one.kind in OF_LINKS and not net.links:
        refuse("kind", f"{one.kind} needs hosts of their own; loopback has no links", "add --engine netns")
    if one.kind == "partition" and len(one.nodes) == len(net.names):
        refuse("nodes", "nobody is left for the other side", "name the nodes of one side only")
    if one.kind == "liar":
        _check_liar(one, net, swapped, refuse)


def _check_liar(one: Perturbation, net: Subject, swapped: set[str], refuse: Any) -> None:  # noqa: ANN401
    if one.for_s is not None:
        refuse("for_s", "who has lied once is a liar to the end", "leave it out")
    already = [name for name in one.nodes if name in swapped or name in net.liars]
    if already:
        refuse("nodes", f"{already[0]} lies already", "choose an honest node")
    swapped.update(one.nodes)
    lying = len(net.liars) + len(swapped)
    if lying > net.f:
        refuse("nodes", f"{lying} would have lied, and f = {net.f} are tolerated", "choose more --f, or swap fewer")


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


@dataclass(frozen=True, slots=True)
class Split:
    """What came of a network in two parts.

    Args:
        sides: how many nodes were on each.
        quorum: n−f, with fewer of which nobody may step.
        stepped: who stepped on a side that had no quorum, beyond what it had in hand.
    """

    sides: tuple[int, int]
    quorum: int
    stepped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recovered:
    """A perturbation that is over.

    Args:
        first_s: seconds from its healing until a node took a step that none had taken before; None if none did.
        seconds: the same until every healthy node had stepped again; None if one did not, within the limit.
        missing: who had not.
        split: of a partition.
    """

    first_s: float | None
    seconds: float | None
    missing: tuple[str, ...] = ()
    split: Split | None = None


def verdict(
    asked: Perturbations,
    recovered: Sequence[Recovered],
    accused: Sequence[str],
    liars: Sequence[str],
    disagreement: float,
) -> list[str]:
    """What was promised and is not so, a sentence each.

    Args:
        asked: what should have been done.
        recovered: of those of it that were done, in order.
        accused: by each evidence file of a healthy node.
        liars: all that ever lied.
        disagreement: of the healthy nodes' final models.
    """
    told = []
    for one, outcome in zip(asked.perturbation, recovered, strict=False):
        if outcome.missing:
            told.append(f"{one}: {', '.join(outcome.missing)} did not step again within {asked.recover_s:g} s")
        if outcome.split is not None and outcome.split.stepped:
            told.append(f"{one}: {', '.join(outcome.split.stepped)} stepped where fewer than n−f were")
    undone = asked.perturbation[len(recovered) :]
    if undone:
        told.append(f"{undone[0]}: its moment did not come before the last step. Remedy: choose more --steps")
    if any(outcome.split is not None for outcome in recovered) and disagreement > DIVERGED:
        told.append(f"the nodes' models have gone apart: they disagree by {disagreement:.4f}")
    told += [f"{name} is accused, and did not lie" for name in sorted(set(accused) - set(liars))]
    return told
