"""The gradients of many nodes' steps computed together, for those who run a whole network in one process.

Small models, and all models on a GPU, go as one batch: vmap(grad) over their stacked parameters. There the time goes
into calling operations, and n nodes call no more of them than one does. On a CPU the operations of a large model fill
the caches by themselves, and batching convolutions of unlike weights gains nothing: such models go side by side, one
node a thread. Measured on two cores with torch 2.13, milliseconds for the gradients of all nodes:

    nodes, model               one after another, 2 threads   side by side   vmap(grad)   unfold and bmm
    26, 64-64-10 perceptron                              26            9.5          2.4                –
    21, LeNet of 431,080                                245            170          247              423
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from p2pnode.learning.flat import FlatModel, exchanged
from p2pnode.learning.task import Task, seeded
from p2pnode.learning.trainer import Evaluation, Trainer, resolve_device

BATCHED_PARAMETERS_MAX = 2**16
"""Parameters of the largest model that goes as a batch on a CPU: a layer of it then fits into a core's own cache."""

CHUNK_NUMBERS_MAX = 2**28
"""Numbers that a batch holds at once: 1 GiB of parameters, gradients and activations. Larger ones go in chunks."""

_CALIBRATION_BATCH = 64
"""Samples of a batch that running statistics are taken of."""

_ACTIVATIONS_PER_FEATURE = 64
"""What layers keep for the way back, at most; LeNet keeps 60 numbers, unfolded images among them."""

Tool = TypeVar("Tool")
Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What one gradient is of: (d,) parameters, (batch, *shape) features, (batch,) labels."""

    vector: Tensor
    features: Tensor
    labels: Tensor


class Cohort:
    """Computes for the trainers of one task, whatever their node, seed and data.

    As a batch, gradients are those of a `Trainer` but for rounding: within 1e-6 of the largest element. Side by side
    they are, bit for bit, those of a `Trainer` on one thread, however many workers there are.

    Args:
        task: what all of them learn.
        device: where, as their trainers; see `resolve_device`.
        workers: threads that compute side by side, ≥ 1.
    """

    def __init__(self, task: Task, device: str = "cpu", workers: int = 1) -> None:
        self._task = task
        self._device = resolve_device(device)
        self._workers = workers
        small = self._device.type != "cpu" or task.dimension <= BATCHED_PARAMETERS_MAX
        rounded = any(each.dtype != torch.float32 for each in exchanged(task.model(seed=0)).values())
        self._batched = small and not rounded
        self._draws: bool | None = None
        self._replicas = _pool(lambda: FlatModel(task.model(seed=0), self._device), workers)
        everything = torch.arange(task.data.samples)  # running statistics, if the model keeps any, are those of all
        size = min(_CALIBRATION_BATCH, len(everything))
        self._judges = _pool(lambda: Trainer(task, everything, 0, 0, size, 0.0, 1.0, 0, device), workers)

    def supply(self, asked: Sequence[tuple[Trainer, int]], at: Mapping[Trainer, Tensor] | None = None) -> None:
        """Give each trainer the gradient of its step at its model, for its next `step` or `direction` of that step.

        A model that draws in training, as dropout does, is left to its trainer, which knows what to draw from.

        Args:
            asked: trainers, each once, and the step that each will take.
            at: (d,) float32, the model to take the gradient at, for those for which it is not their own.
        """
        at = at or {}
        lessons = [
            _Lesson(at.get(trainer, trainer.vector).to(self._device), *trainer.minibatch(t)) for trainer, t in asked
        ]
        if not lessons:
            return
        if self._draws_noise(lessons[0]):
            for trainer, t in asked:
                if trainer in at:
                    trainer.foresee(t, at[trainer])
            return
        for (trainer, t), gradient in zip(asked, self._gradients(lessons), strict=True):
            trainer.supply(t, gradient)

    def evaluate(self, vectors: Sequence[Tensor], limit: int | None = None) -> list[Evaluation]:
        """Measure each model as `Trainer.evaluate` does.

        Args:
            vectors: (d,) float32 each.
            limit: look at the first so many test samples; None: at all.
        """

        def judged(judge: Trainer, vector: Tensor) -> Evaluation:
            judge.adopt(vector)
            return judge.evaluate(limit)

        return self._share(self._judges, judged, vectors)

    def _draws_noise(self, lesson: _Lesson) -> bool:
        """Whether the model draws from torch's global randomness when it trains."""
        if self._draws is None:
            replica = self._replicas.get()
            replica.module.train()
            with seeded(np.random.SeedSequence(0), self._device), torch.no_grad():
                before = _random_state(self._device)
                replica.module(lesson.features)
                self._draws = not torch.equal(before, _random_state(self._device))
            self._replicas.put(replica)
        return self._draws

    def _gradients(self, lessons: list[_Lesson]) -> Sequence[Tensor]:
        if self._batched:
            try:
                return self._as_batches(lessons)
            except RuntimeError:  # a layer that vmap cannot map, or too little memory: neither gets better
                self._batched = False
        return self._share(self._replicas, self._gradient, lessons)

    def _gradient(self, replica: FlatModel, lesson: _Lesson) -> Tensor:
        replica.load(lesson.vector)
        replica.module.train()
        replica.backward(self._task.loss(replica.module(lesson.features), lesson.labels))
        return replica.gradient.clone()

    def _as_batches(self, lessons: list[_Lesson]) -> list[Tensor]:
        """One batch for each shape that mini-batches have."""
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, lesson in enumerate(lessons):
            alike[tuple(lesson.features.shape)].append(index)
        gradients: dict[int, Tensor] = {}
        for indices in alike.values():
            gradients.update(zip(indices, self._as_batch([lessons[index] for index in indices]), strict=True))
        return [gradients[index] for index in range(len(lessons))]

    def _as_batch(self, lessons: list[_Lesson]) -> tuple[Tensor, ...]:
        replica = self._replicas.get()
        module = replica.module.train()
        names, shapes = zip(*((name, parameter.shape) for name, parameter in exchanged(module).items()), strict=True)
        sizes = [shape.numel() for shape in shapes]

        def loss(vector: Tensor, features: Tensor, labels: Tensor) -> Tensor:
            parts = (part.view(shape) for part, shape in zip(torch.split(vector, sizes), shapes, strict=True))
            return self._task.loss(functional_call(module, dict(zip(names, parts, strict=True)), (features,)), labels)

        held = 3 * replica.vector.numel() + _ACTIVATIONS_PER_FEATURE * lessons[0].features.numel()
        of_all = vmap(grad(loss), chunk_size=max(1, CHUNK_NUMBERS_MAX // held))
        stacked = [torch.stack([getattr(one, part) for one in lessons]) for part in ("vector", "features", "labels")]
        try:
            gradients: Tensor = of_all(*stacked)
        finally:
            self._replicas.put(replica)
        return gradients.unbind()

    def _share(
        self, tools: "SimpleQueue[Tool]", work: Callable[[Tool, Given], Made], given: Sequence[Given]
    ) -> list[Made]:
        """What `work` makes of each, side by side, each worker with a tool of its own and one torch thread."""

        def with_a_tool(one: Given) -> Made:
            tool = tools.get()
            try:
                return work(tool, one)
            finally:
                tools.put(tool)

        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self._workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return list(pool.map(with_a_tool, given))
        finally:
            torch.set_num_threads(threads)  # the workers' setting is the whole process's


def _pool(make: Callable[[], Tool], count: int) -> "SimpleQueue[Tool]":
    tools: SimpleQueue[Tool] = SimpleQueue()
    for _ in range(count):
        tools.put(make())
    return tools


def _random_state(device: torch.device) -> Tensor:
    cpu = torch.get_rng_state()
    return torch.cat([cpu, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else cpu
