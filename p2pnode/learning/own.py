"""A user's own model, data and loss as a task, none of them changed.

Batches are drawn by the genesis' seed, so that a node that restarts draws what it drew before. So of a `DataLoader` its
data set and the way it makes batches of samples are taken, while its order and its batch size are the network's.
"""

import copy
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from p2pnode.errors import ConfigError
from p2pnode.learning.catalogue import TASKS, TaskDefaults
from p2pnode.learning.source import summon
from p2pnode.learning.task import Task

Measure: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(outputs, labels) → the mean over the batch, a scalar."""

_PIECE = 1000
"""Samples that are read at a time for their labels."""

_PLAIN_SAMPLERS = (RandomSampler, SequentialSampler)


@dataclass(frozen=True, eq=False)
class OwnTask:
    """What a user calls a task: `defaults` and `build`, as plug-ins have, and `model` alone, which needs no data.

    Args:
        defaults: its name, and how it trains well.
        factory: makes the module, initialised from torch's global randomness.
        loss, metric: as in `Task`; no metric: `accuracy_of_classes`.
        train, test: as in `task`; no test: the training data. No training data and no loss: there is a model only.
        shared: as in `Task`.
    """

    defaults: TaskDefaults
    factory: Callable[[], nn.Module]
    loss: Measure | None = None
    metric: Measure | None = None
    train: object = None
    test: object = None
    shared: bool = True

    def build(self, data_dir: Path | None) -> Task:
        """The task with its data loaded.

        Raises:
            ConfigError: if there is a model only, or the data are none that a node can train on.
        """
        if self.loss is None or self.train is None:
            raise ConfigError(
                f"task {self.defaults.name}: it is a model without data and loss. Remedy: run this node by "
                "p2pnode.fit(model, data, loss, home), or name a p2pnode.task(model, data, loss)"
            )
        test = None if self.test is None else _loaded(self.test, data_dir)
        return assembled(
            self.defaults.name,
            self.factory,
            _loaded(self.train, data_dir),
            self.loss,
            test=test,
            metric=self.metric,
            shared=self.shared,
        )


def assembled(
    name: str,
    factory: Callable[[], nn.Module],
    data: object,
    loss: Measure,
    *,
    test: object = None,
    metric: Measure | None = None,
    shared: bool = False,
) -> Task:
    """The task of these parts.

    Args:
        name: in the genesis.
        factory: makes the module.
        data, loss, test, metric, shared: as in `task`, but for functions of the data folder.

    Raises:
        ConfigError: if the data are none that a node can train on, or have no accuracy and no metric.
    """
    train = Samples(data, "data")
    tested = train if test is None else Samples(test, "test")
    if metric is None and tested.first[1].is_floating_point():
        raise ConfigError(
            "metric is missing: labels that are no classes have no accuracy. Remedy: add metric=, a function of "
            "(outputs, labels) that returns a mean, the greater the better"
        )
    return Task(name, factory, loss, metric or accuracy_of_classes, OwnData(train, tested), shared=shared)


def task(
    model: nn.Module | Callable[[], nn.Module],
    data: object,
    loss: Measure,
    *,
    test: object = None,
    metric: Measure | None = None,
    name: str | None = None,
    shared: bool = True,
    steps: int = 200,
    local_batch: int = 32,
    momentum: float = 0.9,
    lr: float = 0.1,
    lr_decay_every: int = 0,
) -> OwnTask:
    """A task of one's own, for `p2pnode init`, `run` and `testnet --task FILE.py:NAME`.

    Args:
        model: a module's class, or a function that makes one; or a module.
        data: training data: a `DataLoader`, a data set with a length, or a pair of tensors (features, labels). Or a
            function that returns one: of nothing, or of the data folder, None if none was named.
        loss: (outputs, labels) → the mean loss over the batch, a scalar to differentiate.
        test: test data, in the same way; None: the training data.
        metric: (outputs, labels) → the mean quality over the batch; None: the fraction of labels that are guessed.
        name: what the genesis calls it; None: as the model.
        shared: whether all nodes have these same data, and a part of them each; else they are the node's own.
        steps, local_batch, momentum, lr, lr_decay_every: what the genesis says unless its maker says otherwise.

    Raises:
        ConfigError: if a built-in task has that name.
    """
    name = _kebab(getattr(model, "__name__", type(model).__name__)) if name is None else name
    if name in TASKS or not re.fullmatch(r"[\w.-]{1,64}", name):
        raise ConfigError(f"name = {name!r}: built in, or no name. Remedy: choose another, of letters, digits and '-'")
    defaults = TaskDefaults(name, "a task of one's own", False, steps, local_batch, momentum, lr, lr_decay_every)
    return OwnTask(defaults, _factory(model), loss, metric, data, test, shared)


def own(text: str) -> OwnTask:
    """The task, or the model alone, that its owner's code defines under that name; runs that code.

    Raises:
        ConfigError: if it is neither, or does not run.
    """
    found = summon(text)
    if isinstance(found, OwnTask):
        return found
    if isinstance(found, nn.Module) or callable(found):
        return replace(task(found, None, _no_loss), loss=None)
    raise ConfigError(
        f"task = {text!r}: a {type(found).__name__}. Remedy: name a p2pnode.task(model, data, loss), or a model alone"
    )


@cache
def built_own(text: str, data_dir: Path | None) -> Task:
    """The task that its owner's code defines under that name, with its data loaded, once a process.

    Raises:
        ConfigError: if it is none, does not run, or its data are none.
    """
    return own(text).build(data_dir)


class OwnData:
    """A user's training and test samples, read when they are needed; see `p2pnode.learning.data.Data`."""

    def __init__(
        self, train: "Samples", test: "Samples", turn: Callable[[Tensor], Tensor] = lambda labels: labels
    ) -> None:
        self._train = train
        self._test = test
        self._turn = turn

    @property
    def draws(self) -> bool:
        return self._train.draws

    @property
    def labels(self) -> Tensor:
        return self._turn(self._train.labels)

    @property
    def samples(self) -> int:
        return len(self._train)

    @property
    def tests(self) -> int:
        return len(self._test)

    def train(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        features, labels = self._train.take(rows)
        return features, self._turn(labels)

    def test(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        return self._test.take(torch.arange(begin, end))

    def relabelled(self, turn: Callable[[Tensor], Tensor]) -> "OwnData":
        return OwnData(self._train, self._test, lambda labels: turn(self._turn(labels)))


class Samples:
    """One set of samples, whatever it was given as.

    Args:
        given: a `DataLoader`, a data set with a length, or a pair of tensors.
        what: its name in messages.

    Raises:
        ConfigError: if it is none of these, is empty, or its batches are no pairs of tensors.
    """

    def __init__(self, given: object, what: str) -> None:
        self._what = what
        self._collate: Callable[[list[Any]], Any] = default_collate
        if isinstance(given, DataLoader):
            self._refuse_own_order(given)
            self._collate, given = given.collate_fn, given.dataset
        if isinstance(given, IterableDataset) or not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
            raise ConfigError(
                f"{what}: a {type(given).__name__} has no samples by number, and a node that restarts must draw those "
                "it drew before. Remedy: give a data set with __getitem__ and __len__, or a pair of tensors"
            )
        self._dataset: Any = given
        self._tensors = _pair(given) if self._collate is default_collate else None
        if not len(self):
            raise ConfigError(f"{what}: there is no sample in it. Remedy: give at least one")
        self.first = self.take(torch.arange(1))

    def __len__(self) -> int:
        return len(self._dataset if self._tensors is None else self._tensors[1])

    @property
    def draws(self) -> bool:
        return self._tensors is None

    @cached_property
    def labels(self) -> Tensor:
        """All labels; reads every sample, where they are not tensors already."""
        if self._tensors is not None:
            return self._tensors[1]
        return torch.cat([self.take(rows)[1] for rows in torch.split(torch.arange(len(self)), _PIECE)])

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Features and labels of these samples, in that order."""
        if self._tensors is not None:
            return self._tensors[0][rows], self._tensors[1][rows]
        numbers: list[int] = rows.tolist()
        many = getattr(self._dataset, "__getitems__", None)
        made = self._collate([self._dataset[number] for number in numbers] if many is None else many(numbers))
        match made:
            case [Tensor() as features, Tensor() as labels] if len(features) == len(labels) == len(numbers):
                return features, labels
        raise ConfigError(
            f"{self._what}: a batch of it is {_told(made)}, no pair of tensors (features, labels) with a row a sample. "
            "Remedy: give a DataLoader whose collate_fn makes one"
        )

    def _refuse_own_order(self, loader: "DataLoader[Any]") -> None:
        if isinstance(loader.dataset, IterableDataset):
            return  # refused as such
        plain = type(loader.sampler) in _PLAIN_SAMPLERS and type(loader.batch_sampler) in (BatchSampler, type(None))
        if not plain:
            raise ConfigError(
                f"{self._what}: its DataLoader draws by a {type(loader.sampler).__name__}, and nodes draw by the "
                "genesis' seed. Remedy: give the data set alone, with what shall come more often in it more often"
            )


def accuracy_of_classes(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the fraction of labels at which the outputs are largest, in float64 so that sums of it stay exact.

    Args:
        outputs: (*shape, classes), or as torch's cross-entropy has it (batch, classes, *more).
        labels: (*shape) or (batch, *more), integers.

    Raises:
        ConfigError: They have other shapes.
    """
    for dimension in (-1, 1):
        if outputs.dim() > 1 and (guess := outputs.argmax(dimension)).shape == labels.shape:
            return (guess == labels).double().mean()
    raise ConfigError(
        f"metric is missing: outputs of shape {tuple(outputs.shape)} name no classes for labels of shape "
        f"{tuple(labels.shape)}. Remedy: add metric=, a function of (outputs, labels) that returns a mean"
    )


def _pair(given: object) -> tuple[Tensor, Tensor] | None:
    """The tensors themselves, where the samples are the rows of two."""
    tensors: Sequence[object] = given.tensors if isinstance(given, TensorDataset) else ()
    if isinstance(given, tuple | list):
        tensors = given
    match list(tensors[:3]):
        case [Tensor() as features, Tensor() as labels] if len(features) == len(labels):
            return features.cpu(), labels.cpu()
    return None


def _loaded(given: object, data_dir: Path | None) -> object:
    if not callable(given):
        return given
    return given(data_dir) if inspect.signature(given).parameters else given()


def _factory(model: object) -> Callable[[], nn.Module]:
    """Makes a new module each time."""
    if isinstance(model, nn.Module):
        return lambda: copy.deepcopy(model)

    def make() -> nn.Module:
        assert callable(model)
        module = model()
        if not isinstance(module, nn.Module):
            raise ConfigError(f"model: {model!r} makes a {type(module).__name__}, no torch.nn.Module. Remedy: mend it")
        return module

    return make


def _kebab(name: str) -> str:
    """LeNet5 → le-net5"""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower().replace("_", "-").strip("-")


def _told(made: object) -> str:
    if isinstance(made, list | tuple):
        return f"a {type(made).__name__} of {', '.join(type(part).__name__ for part in made)}"
    return f"a {type(made).__name__}"


def _no_loss(_outputs: Tensor, _labels: Tensor) -> Tensor:
    raise AssertionError("a model alone is not trained")
