"""The options of which a genesis is made, and what they leave to the recipe and the task."""

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pnode.cli.console import say
from p2pnode.cli.options import (
    Alpha,
    Broadcast,
    Clip,
    DataDir,
    LocalBatch,
    LocalSteps,
    Lr,
    LrDecayEvery,
    Momentum,
    Rule,
    Staleness,
    Steps,
    SubRounds,
    Vectors,
    Wire,
)
from p2pnode.errors import ConfigError
from p2pnode.learning import catalogue
from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.source import names_code
from p2pnode.recipe import RECIPES

if TYPE_CHECKING:
    from p2pnode.assignment import Proposal


@dataclass(frozen=True)
class Exchange:
    """What a step exchanges in another way than its recipe says."""

    rule: Rule = None
    broadcast: Broadcast = None
    sub_rounds: SubRounds = None
    gather: Annotated[
        str | None,
        typer.Option(help="Wait for a quorum of n−f, or for all, as in synchronous settings.", show_default=False),
    ] = None
    redundancy: Annotated[int | None, typer.Option(help="Members that are not waited for, from f; default: f.")] = None
    local_steps: LocalSteps = None
    placement: Annotated[
        str | None, typer.Option(help="Momentum of one's own gradients (worker), or of agreed (update).")
    ] = None
    wire: Wire = None
    staleness: Staleness = None


@dataclass(frozen=True)
class Learning:
    """What is learned, and how."""

    task: Annotated[
        str,
        typer.Option(help=f"What is learned: {', '.join(TASKS)}; or your own code, as FILE.py:NAME or MODULE:NAME."),
    ] = "digits"
    data_dir: DataDir = None
    alpha: Alpha = None
    steps: Steps = None
    local_batch: LocalBatch = None
    momentum: Momentum = None
    lr: Lr = None
    lr_decay_every: LrDecayEvery = None
    clip: Clip = None
    vectors: Vectors = "tls"
    seed: Annotated[int, typer.Option(help="Seed of initial model, data split and batches.")] = 0
    start: Annotated[
        Path | None,
        typer.Option(help="A safetensors file of weights to begin with; default: the seed draws.", show_default=False),
    ] = None


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each parameter that is a dataclass spread into its fields, an option each."""
    signature = inspect.signature(command)
    annotated: dict[str, Any] = {name: each.annotation for name, each in signature.parameters.items()}
    groups: dict[str, Any] = {name: each for name, each in annotated.items() if is_dataclass(each)}

    @wraps(command)
    def gathered(**given: object) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    options = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in signature.parameters.items()
        for one in (inspect.signature(groups[name]).parameters.values() if name in groups else (each,))
    ]
    gathered.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    return gathered


def genesis_values(
    f: int, recipe: str, exchange: Exchange, learning: Learning, proposal: "Proposal | None" = None
) -> dict[str, Any]:
    """The genesis as options give it, what is None taken from the recipe or the task; tells what no guard can check."""
    named = RECIPES.get(recipe)
    if named is not None and named.note is not None:
        say("[yellow]note[/]", named.note)
    defaults = catalogue.find(learning.task) if proposal is None else proposal.defaults
    momentum = defaults.momentum if named is None or named.momentum is None else named.momentum

    def chosen(value: float | None, default: float) -> float:
        return default if value is None else value

    return {
        "seed": learning.seed,
        "f": f,
        "recipe": {"name": recipe, **asdict(exchange)},
        "vectors": learning.vectors,
        "training": {
            "task": defaults.name,
            "alpha": learning.alpha,
            "steps": chosen(learning.steps, defaults.steps),
            "local_batch": chosen(learning.local_batch, defaults.local_batch),
            "momentum": chosen(learning.momentum, momentum),
            "lr": chosen(learning.lr, defaults.lr),
            "lr_decay_every": chosen(learning.lr_decay_every, defaults.lr_decay_every),
            "clip": learning.clip,
            "model": None if proposal is None else proposal.model,
        },
    }


def proposal_of(learning: Learning) -> "Proposal | None":
    """What is to be said of the model of one's own task, or of given weights; a built-in task is known to all."""
    if not names_code(learning.task):
        data_folder(learning.task, learning.data_dir)
        if learning.start is None:
            return None
    from p2pnode.assignment import propose

    return propose(learning.task, learning.data_dir, learning.seed, learning.start)


def data_folder(task: str, data_dir: Path | None) -> str | None:
    """Where the task's data are, as a node must be told.

    Raises:
        ConfigError: if a task that reads files is given no folder.
    """
    if data_dir is None and not names_code(task) and catalogue.find(task).needs_data_dir:
        raise ConfigError(f"data-dir is missing: {task} reads its files from a folder. Remedy: add --data-dir FOLDER")
    return None if data_dir is None else str(data_dir.resolve())
