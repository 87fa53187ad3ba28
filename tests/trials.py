"""What stands for training in tests of experiments: outcomes that follow from the trial alone, and mishaps."""

import os
import signal
from dataclasses import replace
from pathlib import Path

from p2pnode.experiment.grid import key_of, read
from p2pnode.simulation.trial import Outcome

RULES = """
name = "rules"
[base]
nodes = 13
byzantine = 2
steps = 20
[grid]
rule = ["median", "trimmed-mean"]
attack = ["none", "alie", "sign-flip"]
seed = [1, 2]
[reference]
recipe = "dsgd"
byzantine = 0
"""


def experiment(folder, text=RULES, **overrides):
    """The experiment of a text."""
    file = folder / "x.toml"
    file.write_text(text)
    return read(file, overrides)


def learned(trial, progress=None):
    """An outcome that is the trial's own."""
    chance = int(key_of(trial)[:4], 16) / 16**4 / 10
    mean = (0.9 if not trial.attack or trial.rule != "mean" else 0.2) + chance / 2
    worst = mean - 0.01
    for step in range(1, trial.steps + 1):
        if progress is not None:
            progress(step, trial.steps)
    curve = [(step, mean * step / trial.steps, worst * step / trial.steps) for step in range(0, trial.steps + 1, 10)]
    return Outcome({"n0": mean, "n1": worst}, mean, worst, 0.5, curve, 1.5, 1000, None)


def failing(trial, progress):
    """Two ways to fail, by the attack."""
    if trial.attack == ("sign-flip",):
        raise ValueError("lost the way")
    if trial.attack == ("alie",):
        return replace(learned(trial), mean=float("nan"))
    return learned(trial, progress)


def dying(trial, progress):
    """Ways to fail, and to take the worker along, as when memory runs out or something gives up, by the attack."""
    if trial.attack == ("random",):
        os.kill(os.getpid(), signal.SIGKILL)
    if trial.attack == ("zero",):
        raise SystemExit(3)
    return failing(trial, progress)


def telling_its_threads(trial, progress):
    import torch

    return replace(learned(trial, progress), deliveries=torch.get_num_threads())


def stuck_after_three(trial, progress):
    """Three trials as `learned`, by a count in the file that BEGUN names; the next never ends."""
    begun = Path(os.environ["BEGUN"])
    with begun.open("a") as file:
        file.write("x")
    if begun.stat().st_size > 3:
        signal.pause()
    return learned(trial, progress)
