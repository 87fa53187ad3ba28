"""A node's own part of a step, whatever numbers come of it: what is not finite is replaced by what changes nothing.

The driver and the simulator both run it, so that a simulated node computes what a real one does.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from p2pnode.aggregation import find, mix
from p2pnode.errors import NonFinite
from p2pnode.learning.task import Task
from p2pnode.learning.trainer import Trainer
from p2pnode.learning.wire import Announced, widen
from p2pnode.recipe import Recipe

Vector: TypeAlias = NDArray[np.float32]
Warn: TypeAlias = Callable[[str, int, str], None]
"""(what was discarded, step, why) is to be told."""


class Schedule(Protocol):
    """How a network trains, as `p2pnode.genesis.Training` says it."""

    @property
    def local_batch(self) -> int: ...
    @property
    def momentum(self) -> float: ...
    @property
    def lr(self) -> float: ...
    @property
    def lr_decay_every(self) -> int: ...
    @property
    def clip(self) -> float | None: ...


def trainer_of(
    schedule: Schedule,
    recipe: Recipe,
    task: Task,
    indices: Tensor,
    seed: int,
    node: int,
    device: str,
    *,
    autocast: bool = False,
    pieces: int = 1,
) -> Trainer:
    """The trainer of one node, as all members of a network make theirs.

    Args:
        schedule: how the network trains.
        recipe: what a step exchanges.
        task, indices, seed, node, device, autocast, pieces: as in `Trainer`.

    Raises:
        ConfigError: if the device is not there, or the batch is larger than the part.
    """
    return Trainer(
        task,
        indices,
        seed,
        node,
        schedule.local_batch,
        schedule.momentum,
        schedule.lr,
        schedule.lr_decay_every,
        device,
        batch_grows=recipe.batch_grows,
        local_steps=recipe.local_steps,
        placement=recipe.placement,
        clip=schedule.clip,
        autocast=autocast,
        pieces=pieces,
    )


Mixer: TypeAlias = Callable[
    [str, Sequence[Announced], int, int | None, Tensor | None, Callable[[str], None], int],
    tuple[Vector, tuple[int, ...]],
]
"""`mix_gathered`, or what does the same."""


class LocalWork:
    """What a recipe asks of one node between its messages. Vectors are (d,) float32, and new ones.

    Args:
        trainer: trains.
        recipe: what is exchanged.
        f: liars to tolerate.
        warn: told of what was discarded.
        mixer: mixes.
    """

    def __init__(self, trainer: Trainer, recipe: Recipe, f: int, warn: Warn, mixer: Mixer) -> None:
        self.trainer = trainer
        self._mixer = mixer
        self._recipe = recipe
        self._f = f
        self._warn = warn

    def train(self, step: int) -> Vector:
        """What the step's first exchange is about."""
        match self._recipe.exchanges[0].what:
            case "parameters":
                return _array(self.trainer.vector)
            case "gradient":
                return self._direction(step, None)
            case "model":
                return self._moved(step, lambda: self.trainer.step(step))

    def foresee(self, step: int, announced: Announced) -> None:
        """Take the gradient of this step's batch at what was announced in the step before."""
        self.trainer.foresee(step, torch.from_numpy(widen(announced)))

    def differentiate(self, step: int, model: Vector) -> Vector:
        """The gradient at a model that was agreed on."""
        return self._direction(step, torch.from_numpy(model))

    def descend(self, step: int, direction: Vector) -> Vector:
        """The model along a direction that was agreed on."""
        return self._moved(step, lambda: self.trainer.descend(step, torch.from_numpy(direction)))

    def mix(
        self, step: int, exchange: int, rows: Sequence[Announced], own: int | None
    ) -> tuple[Vector, tuple[int, ...]]:
        """The mixture of what was gathered for an exchange, and the rows it is made of; see `mix_gathered`."""
        rule, what = self._recipe.exchanges[exchange].rule, self._recipe.exchanges[exchange].what
        centre = self.trainer.vector if what == "model" and find(rule).wants_centre else None
        return self._mixer(rule, rows, self._f, own, centre, lambda why: self._warn("mixture", step, why), step)

    def _direction(self, step: int, at: Tensor | None) -> Vector:
        try:
            return _array(self.trainer.direction(step, at))
        except NonFinite as error:
            self._warn("update", step, str(error))
            return _array(self.trainer.vector.zero_())

    def _moved(self, step: int, move: Callable[[], Tensor]) -> Vector:
        try:
            return _array(move())
        except NonFinite as error:
            self._warn("update", step, str(error))
            return _array(self.trainer.vector)


def mix_gathered(
    rule: str,
    rows: Sequence[Announced],
    f: int,
    own: int | None,
    centre: Tensor | None,
    warn: Callable[[str], None],
    seed: int = 0,
) -> tuple[Vector, tuple[int, ...]]:
    """The mixture by a rule, and the rows it is made of; where it is not finite, one's own vector.

    Args:
        rule: a rule's name.
        rows: the vectors, (d,) each, as they were announced; float32 is read where it lies, all else widened to it.
        f: liars to tolerate.
        own: which of them is one's own. None where one proposed another before a crash and lost it: then the median is
            taken, since the rule may lean on one's own.
        centre: the model at which the round began, for rules that want it.
        warn: told why one's own is taken.
        seed: of what a rule draws by chance.
    """
    vectors = [torch.from_numpy(widen(row)) for row in rows]
    try:
        mixture = mix("median" if own is None else rule, vectors, f=f, own=own, centre=centre, seed=seed)
    except NonFinite as error:  # more peers lie, and more wildly, than the rule tolerates
        warn(str(error))
        return np.array(widen(rows[own or 0])), (own or 0,)
    return _array(mixture.vector), mixture.kept


def _array(vector: Tensor) -> Vector:
    array: Vector = vector.numpy()
    return np.ascontiguousarray(array)
