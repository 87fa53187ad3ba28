"""One training of a whole network, some of its nodes lying: what is chosen, and what came out."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from ctypes import CDLL
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from p2pnode.genesis import Training
from p2pnode.learning.cohort import Cohort
from p2pnode.simulation.checks import Violation, diameter
from p2pnode.simulation.learner import Machine
from p2pnode.simulation.network import Network
from p2pnode.simulation.scenario import schooling
from p2pnode.simulation.sweep import Pace, Sweep
from p2pnode.storage.vectors import Vector
from protocols.header import PeerId


@dataclass(frozen=True)
class Trial:
    """What is chosen; where None may be, it is left to the recipe or the task.

    Attributes:
        task: a name in the catalogue.
        recipe: a key of `p2pnode.recipe.RECIPES`.
        nodes: n; the data are shared among all of them.
        byzantine: how many lie, if there is an attack: the last ones, and they collude.
        f: how many the protocols are told to tolerate.
        attack: what the liars do, as in `p2pnode.byzantine.ATTACKS`, and "twins". Empty: nobody lies.
        schedule: a key of `p2pnode.simulation.schedule.SCHEDULES`; by default delays, and now and then a message lost
            and sent again.
        rule, broadcast, sub_rounds: as in `p2pnode.recipe.choose`.
        options: its further choices, by name.
        alpha: Dirichlet concentration of labels a node; None: i.i.d. data.
        seed: of initial model, data split, batches, lies and schedule.
        steps: learning steps.
        local_batch, momentum, lr, lr_decay_every, clip: as in `p2pnode.genesis.Training`.
        device: as in `p2pnode.learning.trainer.resolve_device`.
        data_dir: folder of the task's files, if it has any.
        evaluate_every: steps between two points of the curve; 0: no curve.
        evaluate_samples: test samples that such a point is measured on; None: all.
        beyond_the_bound: run it also where no theorem covers it.
    """

    task: str
    recipe: str
    nodes: int
    byzantine: int
    f: int
    attack: tuple[str, ...] = ()
    schedule: str = "random"
    rule: str | None = None
    broadcast: str | None = None
    sub_rounds: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    alpha: float | None = None
    seed: int = 0
    steps: int = 1
    local_batch: int | None = None
    momentum: float | None = None
    lr: float | None = None
    lr_decay_every: int | None = None
    clip: float | None = None
    device: str = "cpu"
    data_dir: Path | None = None
    evaluate_every: int = 0
    evaluate_samples: int | None = None
    beyond_the_bound: bool = False

    def training(self) -> Training:
        """How it trains, with every choice made.

        Raises:
            ConfigError: for an unknown task, or a choice out of bounds.
        """
        chosen = {"alpha": self.alpha, "local_batch": self.local_batch, "momentum": self.momentum, "lr": self.lr}
        chosen |= {"lr_decay_every": self.lr_decay_every, "clip": self.clip}
        return schooling(self.task, self.recipe, self.steps, **chosen)

    def sweep(self) -> Sweep:
        """The trial as a sweep of one scenario.

        Raises:
            ConfigError: for a choice that is none, or that no theorem covers.
        """
        return Sweep(
            self.nodes,
            self.byzantine if self.attack else 0,
            self.f,
            self.recipe,
            (self.attack,),
            (self.schedule,),
            self.steps,
            self.broadcast,
            self.rule,
            self.sub_rounds,
            self.training(),
            self.data_dir,
            self.device,
            beyond_the_bound=self.beyond_the_bound,
            options=tuple(sorted(self.options.items())),
        ).checked()


@dataclass(frozen=True)
class Outcome:
    """What came out; `dataclasses.asdict` of it is JSON.

    Attributes:
        accuracies: of each honest node's last model on the whole test set, by the node's name.
        mean, worst: of the accuracies.
        honest_diameter: largest ‖x_i − x_j‖₂ of honest nodes' last models.
        curve: (steps taken, mean, worst accuracy of the honest nodes that adopted a model after so many).
        seconds: that it took, the measuring included.
        deliveries: what reached a node.
        violations: the guarantee that did not hold, where the run ended; None if all did.
    """

    accuracies: dict[str, float]
    mean: float
    worst: float
    honest_diameter: float
    curve: list[tuple[int, float, float]]
    seconds: float
    deliveries: int
    violations: str | None


def perform(trial: Trial, progress: Callable[[int, int], None] | None = None) -> Outcome:
    """Run a trial. Its outcome, but for the seconds, is a function of the trial.

    As many threads train side by side as torch is set to use; every operation has one, so that sums are the same
    whatever their number, and none waits for another that a busy machine does not run.

    Args:
        trial: what to run.
        progress: told how many steps every honest node has taken, and of how many.

    Raises:
        ConfigError: for a choice that is none, or that no theorem covers; or if the task's files are missing.
    """
    workers = torch.get_num_threads()
    torch.set_num_threads(1)
    _keep_freed_memory()
    try:
        return _perform(trial, workers, progress)
    finally:
        torch.set_num_threads(workers)


def _keep_freed_memory() -> None:
    """Let this process use again the memory of vectors that it freed, rather than give each back to the system.

    By default glibc gives back what is large, and a fresh page costs more than to fill it: with 26 nodes of 431,080
    parameters a step took 1.3 times as long. Elsewhere, nothing happens.
    """
    with suppress(OSError, AttributeError):
        mallopt = CDLL(None).mallopt
        for option, most in ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(option, most)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _perform(trial: Trial, workers: int, progress: Callable[[int, int], None] | None) -> Outcome:
    began = time.monotonic()
    sweep = trial.sweep()
    machine = Machine(trial.data_dir, trial.device, workers)
    network = Network(
        sweep.scenario(trial.seed), trial.seed, machine=machine, adopted=lambda *model: curve.adopted(*model)
    )
    assert network.school is not None
    curve = _Curve(trial, network.school.cohort, sweep.nodes - sweep.byzantine, progress)
    violations = None
    try:
        network.run()
    except Violation as violation:
        violations = str(violation)
    accuracies = network.accuracies()
    models = network.models()
    return Outcome(
        {f"node{member}": accuracy for member, accuracy in zip(models, accuracies, strict=True)},
        fmean(accuracies),
        min(accuracies),
        diameter([model.numpy() for model in models.values()]),
        curve.points(),
        round(time.monotonic() - began, 3),
        network.deliveries,
        violations,
    )


class _Curve:
    """Measures the honest models on the way."""

    def __init__(self, trial: Trial, cohort: Cohort, honest: int, progress: Callable[[int, int], None] | None) -> None:
        self._every = trial.evaluate_every
        self._samples = trial.evaluate_samples
        self._cohort = cohort
        self._honest = honest
        self._pace = Pace(honest, lambda steps: progress(steps, trial.steps) if progress is not None else None)
        self._models: dict[int, dict[PeerId, Vector]] = {}
        self._points: list[tuple[int, float, float]] = []

    def adopted(self, member: PeerId, steps: int, model: Vector) -> None:
        """As `Network` tells it."""
        if self._every and steps % self._every == 0:
            self._models.setdefault(steps, {})[member] = model
            if len(self._models[steps]) == self._honest:  # who is not at an earlier point by now was left behind
                self._measure(steps)
        self._pace.adopted(member, steps, model)

    def points(self) -> list[tuple[int, float, float]]:
        """The whole curve, in order of steps."""
        self._measure(max(self._models, default=0))
        return self._points

    def _measure(self, until: int) -> None:
        for steps in sorted(steps for steps in self._models if steps <= until):
            models = [torch.from_numpy(model) for _, model in sorted(self._models.pop(steps).items())]
            accuracies = [one.accuracy for one in self._cohort.evaluate(models, self._samples)]
            self._points.append((steps, fmean(accuracies), min(accuracies)))
