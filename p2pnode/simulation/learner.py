"""What the simulated nodes learn: small vectors of chance, or the real models of a task."""

from collections.abc import Collection
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from p2pnode.aggregation import aggregate
from p2pnode.byzantine.labels import poisoned
from p2pnode.errors import NonFinite
from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.partition import partition
from p2pnode.learning.task import build
from p2pnode.learning.trainer import Trainer
from p2pnode.recipe import Recipe
from p2pnode.storage.vectors import Vector

LENGTH = 3
"""Coordinates of the small vectors."""


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


class Training:
    """One node's real training, as the driver does it."""

    def __init__(
        self,
        task: str,
        recipe: Recipe,
        seed: int,
        node: int,
        nodes: int,
        data_dir: Path | None,
        attacks: Collection[str] = (),
    ) -> None:
        built, defaults = poisoned(build(task, data_dir), attacks), TASKS[task]
        self._gradients = recipe.exchanges[0].what == "gradient"
        self.trainer = Trainer(
            built,
            partition(built.data.train_y, node, nodes, seed, None),
            seed,
            node,
            defaults.local_batch,
            0.0 if self._gradients else defaults.momentum,
            defaults.lr,
            defaults.lr_decay_every,
            batch_grows=recipe.batch_grows,
        )
        self.length = self.trainer.vector.numel()

    def train(self, step: int) -> Vector:
        try:
            vector = self.trainer.direction(step) if self._gradients else self.trainer.step(step)
        except NonFinite:
            vector = self.trainer.vector.zero_() if self._gradients else self.trainer.vector
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


def mixture(rule: str, rows: list[Vector], f: int, own: int | None) -> Vector:
    """What the driver mixes: by the rule; by the median where one's own row is lost."""
    stacked = torch.from_numpy(np.stack(rows))
    try:
        mixed = aggregate(rule, stacked, f=f, own=own) if own is not None else aggregate("median", stacked, f=f)
    except NonFinite:
        mixed = stacked[own or 0]
    return _numpy(mixed)


def _numpy(vector: Any) -> Vector:  # noqa: ANN401  a tensor
    array: Vector = vector.numpy()
    return np.ascontiguousarray(array)
