"""Local SGD with Polyak momentum: from the model agreed on to the vector that a node proposes next.

A recipe that exchanges models takes `step`; one whose nodes agree on a direction before they move takes its halves,
`direction` and `descend`.

Source:
    MoNNA (arXiv 2209.10931), the local half of a step: m ← βm + (1−β)g, from m = 0 and without bias correction, then
    θ − γ_t·m. The released code adds λ‖θ‖2 to the loss in a way that yields no gradient, so it is left out here.
    Collaborative learning (arXiv 2008.00742) agrees on the gradients (β = 0), steps along the outcome, and agrees on
    the models.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from p2pnode.errors import ConfigError, NonFinite, TrainingError
from p2pnode.learning.flat import FlatModel, calibrated, copied, require_like, statistics
from p2pnode.learning.partition import Stream, batch, grown, seed_sequence
from p2pnode.learning.task import Task, seeded

# Activations of a few hundred samples stay near the cores: 1,000 at a time took 1.5 times as long.
EVALUATION_BATCH = 200

CALIBRATION_BATCHES = 20
"""Batches that running statistics are taken of: the mean of so many has a fifth of the noise of one."""


@dataclass(frozen=True)
class Evaluation:
    """What the model is worth on the first `samples` test samples.

    Attributes:
        accuracy: Mean of the task's metric, for classifiers in [0, 1].
        loss: Mean of the task's loss.
        samples: How many were seen, ≥ 1.
    """

    accuracy: float
    loss: float
    samples: int


def step_size(lr: float, decay_every: int, t: int) -> float:
    """Return γ_t = lr / (1 + ⌊t / decay_every⌋), or lr itself for ever when decay_every is 0."""
    return lr / (1 + t // decay_every) if decay_every else lr


def resolve_device(name: str) -> torch.device:
    """Return the device of that name, an available one; a CUDA device carries its index.

    Args:
        name: `auto` (the first GPU if there is one, else the CPU), `cpu`, `cuda` or `cuda:INDEX`.

    Raises:
        ConfigError: The name is none of these, or there is no such GPU.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = {"cpu": "cpu", "auto": "cuda:0" if gpus else "cpu"}
    if gpus:
        devices |= {"cuda": "cuda:0"} | {f"cuda:{index}": f"cuda:{index}" for index in range(gpus)}
    if name not in devices:
        raise ConfigError(f"device: {name!r} is not available here; choose one of {', '.join(sorted(devices))}")
    return torch.device(devices[name])


def resolve_devices(names: str) -> list[torch.device]:
    """Return the devices of those names, in that order: available ones, of one kind.

    Args:
        names: One or more, with commas between; see `resolve_device`. `cpu` may come more than once, to try what
            several devices do where there are none.

    Raises:
        ConfigError: As `resolve_device`; or a GPU comes twice, or with the CPU.
    """
    devices = [resolve_device(name.strip()) for name in names.split(",")]
    kinds = {device.type for device in devices}
    if len(kinds) > 1 or (kinds == {"cuda"} and len(set(devices)) < len(devices)):
        raise ConfigError(
            f"device: {names!r} names a GPU twice, or one and the CPU, which would hold it up. "
            "Remedy: name each GPU once, as in cuda:0,cuda:1"
        )
    return devices


class Trainer:
    """One node's training: its model θ, its momentum m and its part of the data.

    On a CPU with a given number of threads, every vector is a function of the arguments and the steps taken, bit for
    bit. Calls come one at a time, from whichever thread.
    """

    def __init__(
        self,
        task: Task,
        indices: Tensor,
        seed: int,
        node: int,
        local_batch: int,
        momentum: float,
        lr: float,
        lr_decay_every: int,
        device: str = "auto",
        batch_grows: bool = False,
        local_steps: int = 1,
        placement: Literal["worker", "update"] = "worker",
        clip: float | None = None,
        autocast: bool = False,
        pieces: int = 1,
    ) -> None:
        """Start from the common initial model with zero momentum.

        Args:
            task: What to learn.
            indices: (s,) int64, the node's part of the training set. Samples are read through it, never copied whole.
            seed: The genesis seed, ≥ 0.
            node: Index of this node, ≥ 0; gives it batches of its own.
            local_batch: Samples in a mini-batch, 1 ≤ local_batch ≤ s.
            momentum: β in [0, 1).
            lr: γ_0 > 0.
            lr_decay_every: Steps between decays of γ, ≥ 0; see `step_size`.
            device: See `resolve_devices`. Of several, the first holds all of this; each of the others has a copy of the
                model for its part of every batch.
            batch_grows: Whether local_batch is only the least, and batches grow with t; see `grown`.
            local_steps: Gradients that one `step` follows, ≥ 1, each of a batch of its own.
            placement: Whose momentum it is. "worker": of the node's gradients. "update": of the directions it descends.
            clip: Largest Euclidean norm of a gradient, > 0; longer ones are scaled down to it before all else.
            autocast: Whether gradients are computed by torch's mixed precision, in bfloat16 where it is safe. float16
                would need its losses scaled.
            pieces: In how many parts a batch goes through the model, ≥ 1, one after another, so that the activations
                of one are held at a time. The gradient is that of the whole, if the loss is the mean over samples.

        Raises:
            ConfigError: A device is not there, or the batch is larger than the part; or of several devices one would
                have a single sample where BatchNorm needs two, or the model cannot be copied.
            TrainingError: The model cannot be one vector; see `FlatModel`.
        """
        assert pieces >= 1, f"a batch in {pieces} pieces"
        if not 1 <= local_batch <= len(indices):
            raise ConfigError(
                f"local_batch: {local_batch} samples cannot be drawn from this node's {len(indices)}; "
                "use a smaller batch, fewer nodes, or more data"
            )
        self._task = task
        self._indices = indices
        self._seed = seed
        self._node = node
        self._local_batch = local_batch
        self._batch_grows = batch_grows
        self._local_steps = local_steps
        self._placement = placement
        self._clip = clip
        self._autocast = autocast
        self._pieces = pieces
        self._beta = momentum
        self._lr = lr
        self._lr_decay_every = lr_decay_every
        self._device, *others = resolve_devices(device)
        module = task.model(seed)
        smallest = len(torch.arange(local_batch).chunk(pieces)[-1])
        if others and statistics(module) and smallest < 2 * (1 + len(others)):
            raise ConfigError(
                f"device: {1 + len(others)} devices leave one with a single sample of a batch, of which BatchNorm has "
                "no statistics. Remedy: name fewer devices, or choose fewer pieces or a larger local_batch"
            )
        self._copies = [FlatModel(copied(module), other) for other in others]
        self._model = FlatModel(module, self._device)
        self._momentum = torch.zeros_like(self._model.vector)
        self._next_momentum = self._momentum
        self._supplied: dict[int, Tensor] = {}
        self._batch_loss: Tensor | None = None

    @property
    def module(self) -> nn.Module:
        """The model itself, live, at θ."""
        return self._model.module

    @property
    def batch_loss(self) -> float | None:
        """The loss of the batch whose gradient was computed last; None before the first."""
        return None if self._batch_loss is None else float(self._batch_loss)

    @property
    def vector(self) -> Tensor:
        """A copy of θ, (d,) float32 on the CPU."""
        return self._model.vector.to("cpu", copy=True)

    def step(self, t: int) -> Tensor:
        """Return where `local_steps` steps θ ← θ − γ_t·m lead, each with m advanced by a gradient; θ does not move.

        The step counts once `adopt` ends it: until then `state` is that of before, and the same step may be done again.

        Batch and layer noise (dropout) are functions of (seed, node, t) alone, so a node that restarts at step t from
        the checkpoint before it returns the same vector, and no data cursor is needed.

        Args:
            t: The step, ≥ 0.

        Returns:
            (d,) float32 on the CPU, the caller's own.

        Raises:
            NonFinite: The vector would hold NaN or infinity; the momentum is unchanged.
        """
        start = self._model.vector.clone() if self._local_steps > 1 else self._model.vector
        momentum = self._momentum
        try:
            for k in range(self._local_steps):
                momentum = self._advanced(momentum, self._gradient(t * self._local_steps + k))
                vector = self._descended(t, momentum)
                if k + 1 < self._local_steps:
                    self._model.load(vector)
        finally:
            if start is not self._model.vector:
                self._model.load(start)
        self._next_momentum = momentum
        return _fetched(vector)

    def direction(self, t: int, at: Tensor | None = None) -> Tensor:
        """Return the momentum m advanced by the gradient of batch t, without the way along it; θ does not move.

        For β = 0, and where the momentum is the update's, this is the gradient itself. As with `step`, it is a function
        of (seed, node, t) and the state, the momentum counts once `adopt` ends the step, and until then the same
        direction may be asked for again.

        Args:
            t: The step, ≥ 0.
            at: (d,) float32, the model to take the gradient at. None: θ.

        Returns:
            (d,) float32 on the CPU, the caller's own.

        Raises:
            ShapeMismatch: `at` has another shape or dtype.
            NonFinite: The direction would hold NaN or infinity; the momentum is unchanged.
        """
        with nullcontext() if at is None else self._standing_at(at):
            gradient = self._gradient(t)
        direction = gradient if self._placement == "update" else self._advanced(self._momentum, gradient)
        _require_finite(direction, t)
        if self._placement == "worker":
            self._next_momentum = direction
        return _fetched(direction) if direction.is_cuda else direction.clone()

    def descend(self, t: int, direction: Tensor) -> Tensor:
        """Return θ − γ_t·direction, or where the momentum is the update's θ − γ_t·m with m advanced by the direction.

        Neither θ nor the momentum moves: it counts once `adopt` ends the step. With `direction(t)` this is `step(t)`,
        on a CPU bit for bit. Where the momentum is the worker's, an agreed direction replaces one's own in θ only.

        Args:
            t: The step, ≥ 0; it sets γ_t.
            direction: (d,) float32, on any device.

        Returns:
            (d,) float32 on the CPU, the caller's own.

        Raises:
            ShapeMismatch: The direction has another shape or dtype.
            NonFinite: The vector would hold NaN or infinity.
        """
        require_like(direction, self._model.vector)
        direction = direction.to(self._device)
        if self._placement == "worker":
            return _fetched(self._descended(t, direction))
        momentum = self._advanced(self._momentum, direction)
        vector = self._descended(t, momentum)
        self._next_momentum = momentum
        return _fetched(vector)

    def adopt(self, vector: Tensor) -> None:
        """End the step: θ ← vector. The momentum is this node's own, as momenta are not exchanged.

        Args:
            vector: (d,) float32.

        Raises:
            ShapeMismatch: It has another shape or dtype; θ is unchanged.
        """
        self._model.load(vector)
        if self._next_momentum is self._model.gradient:
            self._momentum.copy_(self._next_momentum)
            self._next_momentum = self._momentum
        self._momentum = self._next_momentum

    def evaluate(self, limit: int | None = None, abort: Callable[[], bool] = lambda: False) -> Evaluation:
        """Measure θ on the test set, with dropout off, and by running statistics of the node's own data if it has any.

        Args:
            limit, abort: as in `measure`.
        """
        self.calibrate()
        return self.measure(limit, abort)

    def measure(self, limit: int | None = None, abort: Callable[[], bool] = lambda: False) -> Evaluation:
        """Measure θ on the test set, with dropout off, and by the running statistics that the module has.

        Args:
            limit: Look at the first so many samples, ≥ 1. None: at all.
            abort: Asked after every batch of `EVALUATION_BATCH`; true ends the evaluation with what was seen so far.
        """
        assert limit is None or limit >= 1, f"limit={limit} leaves nothing to evaluate"
        data, end = self._task.data, min(limit or self._task.data.tests, self._task.data.tests)
        totals = torch.zeros(2, dtype=torch.float64, device=self._device)
        samples = 0
        self._model.module.eval()
        with torch.inference_mode():
            for begin in range(0, end, EVALUATION_BATCH):
                features, labels = data.test(begin, min(end, begin + EVALUATION_BATCH))
                totals += self._score(features, labels) * len(labels)
                samples += len(labels)
                if abort():
                    break
        accuracy, loss = (totals / samples).tolist()
        return Evaluation(accuracy, loss, samples)

    def calibrate(self) -> None:
        """Take the model's running statistics, if it keeps any, of the first `CALIBRATION_BATCHES` steps' batches.

        So what BatchNorm does when it is evaluated is a function of θ and the node's own data, and no peer has a say
        in it.
        """
        if not statistics(self._model.module):
            return
        noise = seeded(seed_sequence(self._seed, Stream.LAYERS, self._node), self._device)
        with noise, calibrated(self._model.module):
            for t in range(CALIBRATION_BATCHES):
                self._model.module(self.minibatch(t)[0])

    def state(self, *, copied: bool = True) -> dict[str, Tensor]:
        """Return all that steps change: `model` and `momentum`, (d,) float32 on the CPU.

        Args:
            copied: False spares the memory of copies, for who is done with them before the next call.
        """
        live = {"model": self._model.vector, "momentum": self._momentum}
        return {name: tensor.to("cpu", copy=copied) for name, tensor in live.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to a `state()`; the steps after it come out as they did then.

        Raises:
            TrainingError: It lacks a tensor.
            ShapeMismatch: A tensor has another shape or dtype. Nothing is changed in either case.
        """
        if missing := {"model", "momentum"} - state.keys():
            raise TrainingError(f"the training state lacks {', '.join(sorted(missing))}; take another checkpoint")
        require_like(state["momentum"], self._momentum)
        self._model.load(state["model"])
        self._supplied = {}
        self._momentum = self._next_momentum = state["momentum"].to(self._device, copy=True)

    def _advanced(self, momentum: Tensor, gradient: Tensor) -> Tensor:
        """Return βm + (1−β)g, on the device, that may not be finite.

        It takes the place of the model's own gradient, which serves for nothing more, unless another one is to come
        before the step ends; else it is a new vector.
        """
        spent = gradient is self._model.gradient and self._local_steps == 1
        return torch.lerp(momentum, gradient, 1 - self._beta, out=gradient if spent else None)

    def _descended(self, t: int, direction: Tensor) -> Tensor:
        """Return θ − γ_t·direction, a new vector on the device, finite; the direction is there too.

        What is not finite in the direction is not finite in the outcome, so that `step` needs to look once only.
        """
        vector = torch.sub(self._model.vector, direction, alpha=step_size(self._lr, self._lr_decay_every, t))
        _require_finite(vector, t)
        return vector

    def minibatch(self, t: int) -> tuple[Tensor, Tensor]:
        """Return the features and labels of step t's batch, on the device."""
        part = len(self._indices)
        size = grown(part, self._local_batch, t) if self._batch_grows else self._local_batch
        rows = self._indices[batch(part, size, self._seed, self._node, t)]
        data = self._task.data
        noise = seeded(seed_sequence(self._seed, Stream.SAMPLES, self._node, t), torch.device("cpu"))
        with noise if data.draws else nullcontext():
            features, labels = data.train(rows)
        return self._features(features), labels.to(self._device)

    def _features(self, features: Tensor) -> Tensor:
        """Return the features on the device, in the order of memory that the model is quickest with."""
        on_cpu = self._device.type == "cpu"
        return _channels_last(features) if on_cpu and self._task.channels_last else features.to(self._device)

    def supply(self, t: int, gradient: Tensor) -> None:
        """Take the gradient of step t's batch at θ from who computed those of many nodes at once.

        It serves the next `step` or `direction` of this t, which would else compute it.

        Args:
            t: The step, ≥ 0.
            gradient: (d,) float32 on the device; not copied.
        """
        require_like(gradient, self._model.vector)
        self._supplied = {t: gradient}

    def foresee(self, t: int, at: Tensor) -> None:
        """Supply the gradient of step t's batch at another model than θ, which does not move; see `supply`.

        It is no part of the state: who restarts takes the gradient of its next step at θ.

        Args:
            t: The step, ≥ 0.
            at: (d,) float32, on any device.

        Raises:
            ShapeMismatch: `at` has another shape or dtype.
        """
        if self._next_momentum is self._model.gradient:  # of the step under way, which ends later
            self._next_momentum = self._next_momentum.clone()
        with self._standing_at(at):
            self.supply(t, self._computed(t).clone())

    def _gradient(self, t: int) -> Tensor:
        """Return the gradient of step t's batch at θ: supplied, or the live vector filled with it."""
        if t in self._supplied:
            return self._clipped(self._supplied.pop(t))
        if self._next_momentum is self._model.gradient:  # of a step that was not adopted
            self._next_momentum = self._momentum
        return self._clipped(self._computed(t))

    def _computed(self, t: int) -> Tensor:
        """Return the live vector, filled with the gradient of step t's batch at θ."""
        features, labels = self.minibatch(t)
        for model in (self._model, *self._copies):
            model.module.train()
        for other in self._copies:
            other.load(self._model.vector)
        # Costs under 0.1 ms, of 19 for the convolutional network: too little to ask which models have dropout.
        with self._layer_noise(t):
            self._batch_loss = self._model.accumulate(self._losses(features, labels), self._copies)
        return self._model.gradient

    @contextmanager
    def _layer_noise(self, t: int) -> Iterator[None]:
        """Let what layers draw be a function of (seed, node, t), and another one on each device."""
        with ExitStack() as noises:
            for number, other in enumerate(self._copies, 1):
                sequence = seed_sequence(self._seed, Stream.LAYERS, self._node, t, number)
                noises.enter_context(seeded(sequence, other.vector.device))
            # Last, as it is whoever comes last that seeds the CPU's.
            noises.enter_context(seeded(seed_sequence(self._seed, Stream.LAYERS, self._node, t), self._device))
            yield

    def _losses(self, features: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """Yield the losses of the batch's pieces, each by its share, so that they add up to the mean over the batch."""
        pieces = min(self._pieces, len(labels))
        for some, theirs in zip(features.chunk(pieces), labels.chunk(pieces), strict=True):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
                loss = self._task.loss(self._outputs(some), theirs)
            yield loss if pieces == 1 else loss * (len(theirs) / len(labels))

    def _outputs(self, features: Tensor) -> Tensor:
        """Return what the model makes of the features, on the first device, each device having computed its part.

        The loss is taken of all outputs at once, so that parts need no weights and the loss may be any. The devices are
        called in turn by one thread: GPUs compute what they were called for side by side, forth and back, and draws
        keep their order. torch.nn.parallel replicates by CUDA's means alone and could not be tested without GPUs.

        Raises:
            ConfigError: Outputs of several devices are no tensor with a row a sample.
        """
        if not self._copies:
            outputs: Tensor = self._model.module(features)
            return outputs
        models = (self._model, *self._copies)
        parts = features.tensor_split(min(len(models), len(features)))
        made = []
        for model, part in zip(models, parts, strict=False):
            # Kernels of Triton, and tensors that a layer makes on "cuda", go to the current device.
            with torch.cuda.device_of(model.vector):  # type: ignore[no-untyped-call]
                made.append(output := model.module(part.to(model.vector.device)))
            if not isinstance(output, Tensor) or output.shape[:1] != part.shape[:1]:
                raise ConfigError(
                    "device: the model's outputs are no tensor with a row a sample, so those of several devices "
                    "cannot be joined. Remedy: name one device, or let the model return such a tensor"
                )
        return torch.cat([output.to(self._device) for output in made])

    def _clipped(self, gradient: Tensor) -> Tensor:
        """Return the gradient, scaled to a norm of `clip` at most."""
        if self._clip is None:
            return gradient
        norm = torch.linalg.vector_norm(gradient)
        return gradient.mul((self._clip / norm).clamp(max=1.0))  # of a zero gradient: infinity, clamped to 1

    @contextmanager
    def _standing_at(self, vector: Tensor) -> Iterator[None]:
        """Let θ be another model meanwhile."""
        own = self._model.vector.clone()
        self._model.load(vector)
        try:
            yield
        finally:
            self._model.load(own)

    def _score(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return (metric, loss) of one test batch."""
        labels = labels.to(self._device)
        outputs = self._model.module(self._features(features))
        return torch.stack([self._task.metric(outputs, labels), self._task.loss(outputs, labels)])


def _fetched(vector: Tensor) -> Tensor:
    """Return the vector in the machine's memory: itself, or a copy of a GPU's.

    The copy is pinned. So a GPU writes it at once, and torch keeps its memory for the next one: of 10 million numbers
    it takes 0.7 ms on an H100, and 24 ms into new memory, most of them to have it.
    """
    if not vector.is_cuda:
        return vector
    return torch.empty_like(vector, device="cpu", pin_memory=True).copy_(vector)


def _channels_last(images: Tensor) -> Tensor:
    """Return the same images with the channels of a pixel side by side, and strides that say so for a single channel,
    too: layers choose their kernels by them.

    Args:
        images: (batch, channels, height, width).
    """
    _, channels, height, width = images.shape
    strides = (height * width * channels, 1, width * channels, channels)
    return images.contiguous(memory_format=torch.channels_last).as_strided(images.shape, strides)


def _require_finite(vector: Tensor, t: int) -> None:
    """Return if what step t came to is finite throughout.

    Raises:
        NonFinite: It holds NaN or infinity.
    """
    # aminmax passes NaN on and takes one pass; isfinite().all() takes 25 times as long on a CPU.
    if not torch.stack(torch.aminmax(vector)).isfinite().all():
        raise NonFinite(f"step {t} leads to NaN or infinity; a smaller lr may keep it finite")
