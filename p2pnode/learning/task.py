"""A task: a model with its data, loss and metric under one name.

Built-in tasks have a row in `catalogue.TASKS` and a builder in `BUILDERS`; plug-ins bring both, as `catalogue` says.
Whatever builds a `Task` can also hand it straight to a `Trainer`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from p2pnode.errors import ConfigError
from p2pnode.learning import catalogue, weights
from p2pnode.learning.data import LABELS, Data, load
from p2pnode.learning.flat import exchanged
from p2pnode.learning.partition import Stream, part_size, partition, seed_sequence
from p2pnode.learning.regression import linear, regression_data, within_epsilon


@dataclass(frozen=True, eq=False)
class Task:
    """All that a node must know to train: every member of a network builds the same one.

    Attributes:
        name: Its name in the catalogue.
        factory: Makes the module, initialised from torch's global randomness, on the CPU.
        loss: (outputs, labels) → the mean loss over the batch, a scalar to differentiate.
        metric: (outputs, labels) → the mean quality over the batch, a scalar; for classifiers in [0, 1].
        data: The training and test sets.
        in_order: Whether node i holds the i-th of equal parts of the training set as it stands; else it is split as
            `partition` does.
        shared: Whether every node has the same training set, and a part of it each; else it is this node's alone.
        channels_last: Whether its features are images, (batch, channels, height, width), and the module takes them in
            whatever order their memory is: on a CPU, convolutions and pooling take two thirds of the time where each
            pixel's channels lie together. A module that calls `view` on what a convolution returns does not.
    """

    name: str
    factory: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], Tensor]
    data: Data
    in_order: bool = False
    shared: bool = True
    channels_last: bool = False

    def part(self, node: int, nodes: int, seed: int, alpha: float | None) -> Tensor:
        """Return the indices of one node's training samples; see `partition`.

        Raises:
            ConfigError: A number is out of its range.
        """
        if self.shared and not self.in_order:
            return partition(range(self.data.samples) if alpha is None else self.data.labels, node, nodes, seed, alpha)
        if alpha is not None:
            raise ConfigError(f"alpha: {self.name} gives each node its own samples, of no labels; leave it out")
        if not self.shared:
            return torch.arange(self.data.samples)
        size = part_size(self.data.samples, node, nodes)
        return torch.arange(node * size, (node + 1) * size)

    def model(self, seed: int) -> nn.Module:
        """Return the common initial model; see `initial`."""
        return initial(self.factory, seed)

    def starting(self, given: Mapping[str, Tensor], source: str | Path) -> "Task":
        """The same task, whose models begin with these weights, of that source; see `weights.fill`."""
        return replace(self, factory=lambda: weights.fill(self.factory(), given, source))

    @cached_property
    def dimension(self) -> int:
        """d, the number of parameters that are exchanged."""
        return sum(parameter.numel() for parameter in exchanged(self.model(seed=0)).values())


_RANDOMNESS = RLock()
"""Held by who draws from torch's global randomness."""


@contextmanager
def seeded(seed: np.random.SeedSequence, device: torch.device) -> Iterator[None]:
    """Make torch's global randomness inside a function of the seed, and leave that outside as it was.

    One thread at a time: there is one such randomness for all. Torch guards it by a lock of its own and, holding that,
    may wait for Python's: so two threads in it at once can wait for each other.

    Args:
        seed: What to draw from.
        device: Whose generator to seed besides the CPU's; a CUDA device must carry its index.
    """
    number = int(seed.generate_state(1, np.uint64)[0])
    on_cuda = device.type == "cuda"
    with _RANDOMNESS, torch.random.fork_rng(devices=[device] if on_cuda else []):
        # torch.manual_seed would reseed every GPU of the machine, also those not restored.
        torch.default_generator.manual_seed(number)
        if on_cuda:
            torch.cuda.default_generators[device.index].manual_seed(number)
        yield


def initial(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return what the factory makes, bit for bit the same in every process, on the CPU.

    Global randomness is neither used nor disturbed.

    Args:
        factory: Makes a module, initialised from torch's global randomness.
        seed: The genesis seed, ≥ 0.
    """
    with seeded(seed_sequence(seed, Stream.INITIALISATION), torch.device("cpu")):
        return factory()


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the fraction of rows whose largest output is at the label, in float64 so that sums of it stay exact.

    Args:
        outputs: (batch, classes) float32.
        labels: (batch,) int64.
    """
    return (outputs.argmax(dim=1) == labels).double().mean()


def digits_network() -> nn.Module:
    """Return the 64-64-10 perceptron with ReLU for `digits`: 4,810 parameters, (batch, 64) → (batch, 10) logits."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, LABELS))


def lenet() -> nn.Module:
    """Return the convolutional network of MoNNA's MNIST experiments: 431,080 parameters.

    (batch, 1, 28, 28) → (batch, 10) logits. The published code ends in log-softmax and trains on the negative
    log-likelihood: the cross-entropy of these logits is the same number. It rectifies before pooling; as max and ReLU
    commute, pooling first gives the same outputs and gradients with a quarter of the rectifications.

    Source:
        MoNNA (arXiv 2209.10931), released experiments: conv 20@5x5, pool, conv 50@5x5, pool, fc 500, fc 10.
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, kernel_size=5),  # 28x28 → 24x24
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(20, 50, kernel_size=5),  # 12x12 → 8x8
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),  # 50 channels of 4x4
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, LABELS),
    )


def perceptron() -> nn.Module:
    """Return the 784-100-10 perceptron of the distributed momentum experiments: 79,510 parameters.

    (batch, 1, 28, 28) → (batch, 10) logits.

    Source:
        Distributed momentum (arXiv 2003.00010), released experiments.
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, LABELS))


def _classifier(
    name: str, factory: Callable[[], nn.Module], images: str | None = None, *, channels_last: bool = False
) -> Callable[[Path | None], Task]:
    def build(data_dir: Path | None) -> Task:
        data = load(images or name, data_dir)
        return Task(name, factory, functional.cross_entropy, accuracy, data, channels_last=channels_last)

    return build


def _regression(_data_dir: Path | None) -> Task:
    return Task("regression", linear, functional.mse_loss, within_epsilon, regression_data(), in_order=True)


BUILDERS: dict[str, Callable[[Path | None], Task]] = {
    "digits": _classifier("digits", digits_network),
    "mnist": _classifier("mnist", lenet, channels_last=True),
    "mnist-mlp": _classifier("mnist-mlp", perceptron, images="mnist"),
    "fashion-mnist": _classifier("fashion-mnist", lenet, channels_last=True),
    "regression": _regression,
}


@cache
def build(name: str, data_dir: Path | None) -> Task:
    """Return the task of that name with its data loaded, once a process: forked nodes share what was loaded before.

    Args:
        name: A key of `BUILDERS`, or the name of a plug-in task.
        data_dir: The folder of its files, if it needs any.

    Raises:
        ConfigError: There is no such task, or its data are missing or damaged.
    """
    if name in BUILDERS:
        return BUILDERS[name](data_dir)
    catalogue.find(name)
    task = catalogue.plugin(name).build(data_dir)
    if not isinstance(task, Task):
        raise ConfigError(
            f"{catalogue.GROUP}: the plug-in {name!r} built a {type(task).__name__}, no Task. "
            "Remedy: mend or uninstall it"
        )
    return task
