"""What the simulated nodes learn: small vectors of chance, or the real models of a task."""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from p2pnode.aggregation import aggregate
from p2pnode.errors import NonFinite
from p2pnode.genesis import Training as Schooling
from p2pnode.learning.cohort import Cohort
from p2pnode.learning.partition import partition
from p2pnode.learning.task import build
from p2pnode.learning.trainer import Trainer
from p2pnode.recipe import Recipe
from p2pnode.storage.vectors import Vector

LENGTH = 3
"""Coordinates of the small vectors."""


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


class Chance:
    """Vectors drawn anew for every step: from a cube, or from its corners, where averaging is worst."""

    length = LENGTH

    def __init__(self, seed: int, process: int) -> None:
        self._random = Random(f"{seed} learner {process}")
        self._corners = Random(f"{seed} learner").random() < 0.5

    def train(self, step: int) -> Vector:
        draw = self._random.choice if self._corners else lambda ends: self._random.uniform(*ends)
        return np.array([draw((0.0, 1.0)) for _ in range(LENGTH)], np.float32)

    def descend(self, step: int, direction: Vector) -> Vector:
        return self.train(step) - direction

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
        machine: what it runs on.
    """

    def __init__(self, schooling: Schooling, recipe: Recipe, seed: int, nodes: int, machine: Machine) -> None:
        self._schooling = schooling
        self._recipe = recipe
        self._seed = seed
        self._nodes = nodes
        self._device = machine.device
        self._task = build(schooling.task, machine.data_dir)
        self._asked: dict[Trainer, int] = {}
        self.cohort = Cohort(self._task, machine.device, machine.workers)

    def trainer(self, node: int) -> Trainer:
        """A trainer for this node, as the driver makes it."""
        schooling = self._schooling
        return Trainer(
            self._task,
            partition(self._task.data.train_y, node, self._nodes, self._seed, schooling.alpha),
            self._seed,
            node,
            schooling.local_batch,
            schooling.momentum,
            schooling.lr,
            schooling.lr_decay_every,
            self._device,
            batch_grows=self._recipe.batch_grows,
        )

    def learner(self, node: int) -> "Training":
        """What this node learns."""
        return Training(self, self.trainer(node), about_gradients=self._recipe.exchanges[0].what == "gradient")

    def ask(self, trainer: Trainer, step: int) -> None:
        """This trainer's gradient of this step will be needed, at the model that it has now until then."""
        self._asked[trainer] = step

    def teach(self, trainer: Trainer) -> None:
        """The gradient that was asked for is needed now."""
        if trainer in self._asked:
            asked, self._asked = self._asked, {}
            self.cohort.supply(list(asked.items()))


class Training:
    """One node's real training, as the driver does it."""

    def __init__(self, school: School, trainer: Trainer, *, about_gradients: bool) -> None:
        self._school = school
        self._about_gradients = about_gradients
        self.trainer = trainer
        self.length = trainer.vector.numel()

    def ask(self, step: int) -> None:
        """`train` will be called for this step."""
        self._school.ask(self.trainer, step)

    def train(self, step: int) -> Vector:
        self._school.teach(self.trainer)
        try:
            vector = self.trainer.direction(step) if self._about_gradients else self.trainer.step(step)
        except NonFinite:
            vector = self.trainer.vector.zero_() if self._about_gradients else self.trainer.vector
        return _numpy(vector)

    def descend(self, step: int, direction: Vector) -> Vector:
        try:
            return _numpy(self.trainer.descend(step, torch.from_numpy(direction)))
        except NonFinite:
            return _numpy(self.trainer.vector)

    def adopt(self, step: int, vector: Vector) -> None:
        self.trainer.adopt(torch.from_numpy(vector))

    def state(self) -> dict[str, torch.Tensor]:
        return self.trainer.state()

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        self.trainer.restore(state)


class Mixtures:
    """Mixes as the driver does, one mixture after another in the same memory: to ask for it anew takes half the time of
    filling it."""

    def __init__(self) -> None:
        self._stacked = np.empty((0, 0), np.float32)

    def mixture(self, rule: str, rows: list[Vector], f: int, own: int | None) -> Vector:
        """Of the rows by the rule; by the median where one's own row is lost.

        Args:
            rule: name of an aggregation rule.
            rows: (d,) each.
            f: as in `aggregate`.
            own: which row is one's own; None: it is lost.
        """
        if self._stacked.shape[1] != len(rows[0]) or len(self._stacked) < len(rows):
            self._stacked = np.empty((len(rows), len(rows[0])), np.float32)
        stacked = torch.from_numpy(np.stack(rows, out=self._stacked[: len(rows)]))
        try:
            mixed = aggregate(rule, stacked, f=f, own=own) if own is not None else aggregate("median", stacked, f=f)
        except NonFinite:
            return rows[own or 0]
        vector = _numpy(mixed)
        return vector.copy() if np.may_share_memory(vector, self._stacked) else vector


def _numpy(vector: Any) -> Vector:  # noqa: ANN401  a tensor
    array: Vector = vector.numpy()
    return np.ascontiguousarray(array)
