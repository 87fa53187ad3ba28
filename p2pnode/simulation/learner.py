"""What the simulated nodes learn: small vectors of chance, or the real models of a task."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from p2pnode.aggregation import find
from p2pnode.byzantine.labels import poisoned
from p2pnode.genesis import Training as Schooling
from p2pnode.learning.cohort import Cohort
from p2pnode.learning.local import LocalWork, Mixer, mix_gathered, trainer_of
from p2pnode.learning.task import build
from p2pnode.learning.trainer import Trainer
from p2pnode.learning.wire import Announced, widen
from p2pnode.recipe import Recipe
from p2pnode.storage.vectors import Vector

LENGTH = 3
"""Coordinates of the small vectors."""

_ORIGIN = torch.zeros(LENGTH)
"""Where a round of small vectors begins, for the rules that measure from there."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What models are trained with; none of it is part of what is simulated.

    Args:
        data_dir: folder of the task's files, if it has any.
        device: as in `p2pnode.learning.trainer.resolve_device`.
        workers: CPU threads that train side by side.
    """

    data_dir: Path | None = None
    device: str = "cpu"
    workers: int = 1


MIXTURES_MAX = 4
"""Mixtures remembered: those of the nodes' last exchanges, which they come to at about the same time."""


class SharedMixer:
    """Mixes once what several simulated nodes gathered alike, as all of them do where they wait for every member.

    A vector is one array, whoever holds it, and never written to: so the same arrays are the same vectors.
    """

    def __init__(self) -> None:
        self._made: dict[Any, tuple[Sequence[Announced], tuple[Vector, tuple[int, ...]]]] = {}

    def __call__(
        self,
        rule: str,
        rows: Sequence[Announced],
        f: int,
        own: int | None,
        centre: torch.Tensor | None,
        warn: Callable[[str], None],
        seed: int = 0,
    ) -> tuple[Vector, tuple[int, ...]]:
        if centre is not None or find(rule).wants_own:
            return mix_gathered(rule, rows, f, own, centre, warn, seed)
        key = (rule, f, own is None, seed, *map(id, rows))
        if key not in self._made:
            failures: list[str] = []
            made = mix_gathered(rule, rows, f, own, None, failures.append, seed)
            if failures:
                warn(failures[0])
                return made
            self._made[key] = (rows, made)  # the rows too, so that no other vector takes the place of one of them
            while len(self._made) > MIXTURES_MAX:
                del self._made[next(iter(self._made))]
        return self._made[key][1]


class Chance:
    """Vectors drawn anew for every step: from a cube, or from its corners, where averaging is worst."""

    length = LENGTH

    def __init__(self, seed: int, process: int, recipe: Recipe, f: int, mixer: Mixer) -> None:
        self._recipe = recipe
        self._f = f
        self._mixer = mixer
        self._random = Random(f"{seed} learner {process}")
        self._corners = Random(f"{seed} learner").random() < 0.5

    def train(self, step: int) -> Vector:
        draw = self._random.choice if self._corners else lambda ends: self._random.uniform(*ends)
        return np.array([draw((0.0, 1.0)) for _ in range(LENGTH)], np.float32)

    def differentiate(self, step: int, model: Vector) -> Vector:
        return self.train(step) - model

    def descend(self, step: int, direction: Vector) -> Vector:
        return self.train(step) - direction

    def mix(
        self, step: int, exchange: int, rows: Sequence[Announced], own: int | None
    ) -> tuple[Vector, tuple[int, ...]]:
        return self._mixer(self._recipe.exchanges[exchange].rule, rows, self._f, own, _ORIGIN, lambda _: None, step)

    def adopt(self, step: int, vector: Vector) -> None:
        pass

    def state(self) -> None:
        return None

    def restore(self, state: None) -> None:
        pass


class School:
    """The training of all nodes of a run: gradients that were asked for are computed once the first is needed, for all.

    Args:
        schooling: the task and its settings.
        recipe: what a step exchanges.
        seed: the genesis seed.
        nodes: among how many the data are shared.
        f: liars to tolerate.
        mixer: mixes.
        machine: what it runs on.
    """

    def __init__(
        self, schooling: Schooling, recipe: Recipe, seed: int, nodes: int, f: int, mixer: Mixer, machine: Machine
    ) -> None:
        self._schooling = schooling
        self._recipe = recipe
        self._seed = seed
        self._nodes = nodes
        self._f = f
        self._mixer = mixer
        self._device = machine.device
        self._task = build(schooling.task, machine.data_dir)
        self._asked: dict[Trainer, int] = {}
        self._at: dict[Trainer, torch.Tensor] = {}
        self.cohort = Cohort(self._task, machine.device, machine.workers)

    def trainer(self, node: int, attacks: Collection[str] = ()) -> Trainer:
        """A trainer for this node, as the driver makes it; of a liar, on what its attacks make of the data."""
        indices = self._task.part(node, self._nodes, self._seed, self._schooling.alpha)
        task = poisoned(self._task, attacks)
        return trainer_of(self._schooling, self._recipe, task, indices, self._seed, node, self._device)

    def learner(self, node: int, attacks: Collection[str] = ()) -> "Training":
        """What this node learns, by what attacks if it lies."""
        return Training(self, self.trainer(node, attacks), self._recipe, self._f, self._mixer)

    def ask(self, trainer: Trainer, step: int, at: torch.Tensor | None = None) -> None:
        """This trainer's gradient of this step will be needed: at this model, or at the one that it has until then."""
        self.forget(trainer)
        self._asked[trainer] = step
        if at is not None:
            self._at[trainer] = at

    def forget(self, trainer: Trainer) -> None:
        """What this trainer asked for will not be needed."""
        self._asked.pop(trainer, None)
        self._at.pop(trainer, None)

    def teach(self, trainer: Trainer) -> None:
        """The gradient that was asked for is needed now."""
        if trainer in self._asked:
            asked, self._asked, at, self._at = self._asked, {}, self._at, {}
            self.cohort.supply(list(asked.items()), at)


class Training(LocalWork):
    """One node's real training, as the driver does it."""

    def __init__(self, school: School, trainer: Trainer, recipe: Recipe, f: int, mixer: Mixer) -> None:
        super().__init__(trainer, recipe, f, _unheard, mixer)
        self._school = school
        # What others compute for it is the gradient of a batch at the model that it has when it is asked.
        self._foreseen = recipe.local_steps == 1 and recipe.exchanges[0].what != "parameters"
        self._ahead = -1
        self.length = trainer.vector.numel()

    def ask(self, step: int) -> None:
        """`train` will be called for this step."""
        if self._foreseen and step != self._ahead:
            self._school.ask(self.trainer, step)

    def foresee(self, step: int, announced: Announced) -> None:
        self._ahead = step
        self._school.ask(self.trainer, step, torch.from_numpy(widen(announced)))

    def train(self, step: int) -> Vector:
        self._school.teach(self.trainer)
        return super().train(step)

    def adopt(self, step: int, vector: Vector) -> None:
        self.trainer.adopt(torch.from_numpy(vector))

    def state(self) -> dict[str, torch.Tensor]:
        return self.trainer.state()

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        self._ahead = -1
        self._school.forget(self.trainer)
        self.trainer.restore(state)


def _unheard(what: str, step: int, why: str) -> None:
    """Nobody reads a simulated node's log."""
