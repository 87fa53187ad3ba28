"""What a network has learned, for who wants to use it: the model of a home, or of a file, written and measured."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from p2pnode.assignment import enrolled
from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError, P2PNodeError
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.learning import weights
from p2pnode.learning.own import built_own
from p2pnode.learning.source import names_code
from p2pnode.learning.task import Task, build
from p2pnode.learning.trainer import Evaluation, Trainer
from p2pnode.membership import index_of
from p2pnode.storage.checkpoint import load_checkpoint


@dataclass(frozen=True)
class Product:
    """A model that was learned.

    Args:
        where: the home or the file.
        task: the name of what it learned.
        step: after how many steps; None if nobody says.
        network: whose, in hexadecimal; None if nobody says.
        trainer: holds it, with the running statistics it is to be used with, if it keeps any.
    """

    where: Path
    task: str
    step: int | None
    network: str | None
    trainer: Trainer

    def export(self, out: Path) -> dict[str, Any]:
        """Write the weights by name to a safetensors file; what it says of them."""
        told = {"task": self.task, "step": self.step, "network": self.network}
        weights.write(out, self.trainer.module, {name: str(value) for name, value in told.items() if value is not None})
        return {"weights": str(out), **told}

    def measured(self) -> dict[str, Any]:
        """What it is worth on the whole test data."""
        found: Evaluation = self.trainer.measure()
        return {
            "model": str(self.where),
            "task": self.task,
            "step": self.step,
            "parameters": len(self.trainer.vector),
            "accuracy": found.accuracy if math.isfinite(found.accuracy) else None,
            "loss": found.loss if math.isfinite(found.loss) else None,
            "samples": found.samples,
        }


def of_home(home: Home, source: str | None = None) -> Product:
    """The model of a home's checkpoint; the node may be running.

    Args:
        home: the node's files.
        source: where its owner says the task's code is; None leaves it to `node.toml`.

    Raises:
        ConfigError: if something in the home is wrong, or nothing says where the task's code is.
        P2PNodeError: if there is no checkpoint that can be used.
    """
    config, genesis = NodeConfig.load(home.config), Genesis.load(home.genesis)
    data_dir = Path(config.data_dir) if config.data_dir else None
    given = None if source is None else _named(source, data_dir)
    trainer = enrolled(home, genesis, config, index_of(home, genesis, config.name), given)
    reasons: list[str] = []
    checkpoint = load_checkpoint(home.checkpoint, genesis.network, lambda path, why: reasons.append(why))
    if checkpoint is None:
        why = ", ".join(reasons) or "it is not there"
        raise P2PNodeError(f"{home.checkpoint}: {why}. Remedy: run the node until it has saved one, or take another's")
    trainer.restore({name: torch.from_numpy(array) for name, array in checkpoint.tensors.items()})
    trainer.calibrate()
    return Product(home.path, genesis.training.task, checkpoint.step, genesis.network.hex(), trainer)


def of_file(file: Path, text: str | None, data_dir: Path | None, device: str) -> Product:
    """The model of weights in a safetensors file, by name.

    Args:
        file: as `Product.export` writes it, or another program.
        text: the task; None: the one that the file names.
        data_dir: the folder of its files, if it needs any.
        device: where; see `resolve_device`.

    Raises:
        ConfigError: if the file, the task or the device is missing or wrong, or the weights are another model's.
    """
    tensors, about = weights.read(file)
    name = text or about.get("task")
    if name is None:
        raise ConfigError(f"{file}: does not say of what task it is. Remedy: add --task")
    task = _task_of(file, name, data_dir) if text is None else _named(name, data_dir)
    rows = torch.arange(1)  # of the training data it needs none
    trainer = Trainer(task.starting(tensors, file), rows, 0, 0, 1, 0.0, 1.0, 0, device)
    step = about.get("step", "")
    return Product(file, task.name, int(step) if step.isdecimal() else None, about.get("network"), trainer)


def _named(text: str, data_dir: Path | None) -> Task:
    """The task that its owner names."""
    return built_own(text, data_dir) if names_code(text) else build(text, data_dir)


def _task_of(file: Path, name: str, data_dir: Path | None) -> Task:
    """The task that a file names, which may be anybody's: it runs no code that is not installed."""
    try:
        return build(name, data_dir)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}; or name your own code by --task FILE.py:NAME") from error
