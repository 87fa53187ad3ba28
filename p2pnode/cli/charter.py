"""What options say of a genesis, and what they leave to the recipe and the task."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pnode.cli.console import say
from p2pnode.errors import ConfigError
from p2pnode.learning import catalogue
from p2pnode.learning.source import names_code
from p2pnode.recipe import RECIPES

if TYPE_CHECKING:
    from p2pnode.assignment import Proposal


def choice_of(
    recipe: str,
    rule: str | None,
    broadcast: str | None,
    sub_rounds: int | None,
    gather: str | None,
    redundancy: int | None,
    local_steps: int | None,
    placement: str | None,
    wire: str | None,
    staleness: int | None,
) -> dict[str, Any]:
    """The `recipe` table of a genesis; tells what no guard can check of it."""
    if recipe in RECIPES and (note := RECIPES[recipe].note) is not None:
        say("[yellow]note[/]", note)
    return {
        "name": recipe,
        "broadcast": broadcast,
        "rule": rule,
        "sub_rounds": sub_rounds,
        "gather": gather,
        "redundancy": redundancy,
        "local_steps": local_steps,
        "placement": placement,
        "wire": wire,
        "staleness": staleness,
    }


def genesis_values(
    f: int,
    choice: dict[str, Any],
    task: str,
    alpha: float | None,
    steps: int | None,
    local_batch: int | None,
    momentum: float | None,
    lr: float | None,
    lr_decay_every: int | None,
    clip: float | None,
    vectors: str,
    seed: int,
    proposal: "Proposal | None" = None,
) -> dict[str, Any]:
    """The genesis as options give it; what is None comes from the recipe or the task."""
    defaults = catalogue.find(task) if proposal is None else proposal.defaults
    own = RECIPES[choice["name"]].momentum if choice["name"] in RECIPES else None

    def chosen(value: float | None, default: float) -> float:
        return default if value is None else value

    return {
        "seed": seed,
        "f": f,
        "recipe": choice,
        "vectors": vectors,
        "training": {
            "task": defaults.name,
            "alpha": alpha,
            "steps": chosen(steps, defaults.steps),
            "local_batch": chosen(local_batch, defaults.local_batch),
            "momentum": chosen(momentum, defaults.momentum if own is None else own),
            "lr": chosen(lr, defaults.lr),
            "lr_decay_every": chosen(lr_decay_every, defaults.lr_decay_every),
            "clip": clip,
            "model": None if proposal is None else proposal.model,
        },
    }


def proposal_of(task: str, data_dir: Path | None, seed: int, start: Path | None) -> "Proposal | None":
    """What is to be said of the model of one's own task, or of given weights; a built-in task is known to all."""
    if not names_code(task):
        data_dir_of(task, data_dir)
        if start is None:
            return None
    from p2pnode.assignment import propose

    return propose(task, data_dir, seed, start)


def data_dir_of(task: str, data_dir: Path | None) -> str | None:
    if data_dir is None and not names_code(task) and catalogue.find(task).needs_data_dir:
        raise ConfigError(f"data-dir is missing: {task} reads its files from a folder. Remedy: add --data-dir FOLDER")
    return None if data_dir is None else str(data_dir.resolve())
