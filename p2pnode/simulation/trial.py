"""One simulated training run, from what is chosen to what came out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Trial:
    """What is run."""

    task: str
    recipe: str
    nodes: int
    byzantine: int
    f: int
    attack: tuple[str, ...]
    schedule: str
    rule: str | None
    broadcast: str | None
    sub_rounds: int | None
    options: Mapping[str, Any]
    alpha: float | None
    seed: int
    steps: int
    local_batch: int | None
    momentum: float | None
    lr: float | None
    lr_decay_every: int | None
    clip: float | None
    device: str
    data_dir: Path | None
    evaluate_every: int
    evaluate_samples: int | None
    beyond_the_bound: bool


@dataclass(frozen=True)
class Outcome:
    """What came out."""

    accuracies: dict[str, float]
    mean: float
    worst: float
    honest_diameter: float
    curve: list[tuple[int, float, float]]
    seconds: float
    deliveries: int
    violations: str | None


def perform(trial: Trial, progress: Callable[[int, int], None] | None) -> Outcome:
    """Run it."""
    raise NotImplementedError
