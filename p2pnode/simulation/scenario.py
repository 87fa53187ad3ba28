"""What is simulated: who takes part, how the liars lie, and what the network does to the messages."""

import shlex
from dataclasses import dataclass
from typing import Any

from p2pnode.errors import ConfigError
from p2pnode.genesis import Training
from p2pnode.learning.catalogue import TASKS
from p2pnode.recipe import RECIPES, Exchange, Recipe
from p2pnode.settings import check
from protocols.committee import Committee
from protocols.header import PeerId

ONE_BROADCAST = "one-broadcast"
"""Name of the recipe in which one member broadcasts one vector, and that is all."""

_OF_THE_TASK = ("local_batch", "momentum", "lr", "lr_decay_every")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run, but for its seed.

    Args:
        nodes: n; the last `byzantine` of them lie.
        byzantine: how many really lie; more than `f` only beyond the bound.
        f: how many the protocols are told to tolerate.
        recipe: what they run.
        asked: the recipe as the command line names it, with what was chosen otherwise than it does.
        attacks: what the liars do, all at once; of `p2pnode.byzantine.ATTACKS`, and "twins".
        schedule: a key of `p2pnode.simulation.schedule.SCHEDULES`.
        steps: learning steps.
        train: how real models are trained, in as many steps; None for small vectors of chance.
        real_signatures: Ed25519 instead of ideal signatures.
        beyond_the_bound: whether no theorem need cover it.
    """

    nodes: int
    byzantine: int
    f: int
    recipe: Recipe
    asked: tuple[str, ...]
    attacks: tuple[str, ...]
    schedule: str
    steps: int
    train: Training | None = None
    real_signatures: bool = False
    beyond_the_bound: bool = False

    @property
    def committee(self) -> Committee:
        return Committee(self.nodes, self.f)

    @property
    def honest(self) -> tuple[PeerId, ...]:
        return tuple(PeerId(i) for i in range(self.nodes - self.byzantine))

    @property
    def liars(self) -> tuple[PeerId, ...]:
        return tuple(PeerId(i) for i in range(self.nodes - self.byzantine, self.nodes))

    @property
    def alone(self) -> bool:
        """Whether one broadcast is all."""
        return self.recipe.name == ONE_BROADCAST

    def origin(self, seed: int) -> PeerId:
        """Whose broadcast it is, where one is all: a liar's for odd seeds, if there are liars."""
        return self.liars[0] if self.liars and seed % 2 else PeerId(0)

    def command(self, seed: int) -> str:
        """The command that runs this very run again."""
        words: list[object] = ["p2pnode", "simulate", "--nodes", self.nodes, "--byzantine", self.byzantine]
        words += ["--f", self.f, "--recipe", *self.asked]
        words += ["--attack", ",".join(self.attacks)] if self.liars else []
        words += ["--schedule", self.schedule, "--steps", self.steps, "--seeds", 1, "--first-seed", seed]
        words += ["--beyond-the-bound"] if self.beyond_the_bound else []
        words += ["--train", *_options(self.train)] if self.train else []
        words += ["--real-signatures"] if self.real_signatures else []
        return shlex.join(map(str, words))


def schooling(task: str, recipe: str, steps: int, **chosen: float | None) -> Training:
    """How a network trains a task, as its genesis says it.

    Args:
        task: a name in the catalogue.
        recipe: a key of `RECIPES`.
        steps: learning steps.
        chosen: of the other fields of `Training`; what is None comes from the recipe or the task.

    Raises:
        ConfigError: for an unknown task, or a choice out of bounds.
    """
    if task not in TASKS:
        raise ConfigError(f"task = {task!r}: no such task. Remedy: choose one of {', '.join(TASKS)}")
    values: dict[str, Any] = {name: getattr(TASKS[task], name) for name in _OF_THE_TASK}
    if recipe in RECIPES and (momentum := RECIPES[recipe].momentum) is not None:
        values["momentum"] = momentum
    values |= {name: value for name, value in chosen.items() if value is not None}
    return check(Training, values | {"task": task, "steps": steps}, "training")


def _options(train: Training) -> list[str]:
    """All that was chosen, as options of the command line."""
    chosen = train.model_dump(exclude={"steps"}, exclude_none=True)
    return [word for name, value in chosen.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def one_broadcast(kind: str) -> Recipe:
    """The recipe of one broadcast of this kind."""
    return Recipe(ONE_BROADCAST, (Exchange("model", kind, "mean", (1,)),))
