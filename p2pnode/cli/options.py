"""Options that several commands take, each spelled once, and how what they are given is read."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from p2pnode.aggregation import RULES
from p2pnode.errors import ConfigError
from p2pnode.learning.catalogue import TASKS
from p2pnode.passphrase import VARIABLE
from p2pnode.recipe import BROADCASTS, RECIPES, WIRES

Choice = TypeVar("Choice", bound=str)

# They become the genesis.
Recipe = Annotated[str, typer.Option(help=f"What a step exchanges: {', '.join(RECIPES)}.")]
Rule = Annotated[str | None, typer.Option(help=f"Mix by this instead of the recipe's: {', '.join(RULES)}.")]
Broadcast = Annotated[str | None, typer.Option(help=f"Exchange by this instead: {', '.join(BROADCASTS)}.")]
SubRounds = Annotated[int | None, typer.Option(help="Sub-rounds a step; default: enough to halve the spread.")]
LocalSteps = Annotated[int | None, typer.Option(help="Gradients that are followed between exchanges of models.")]
Wire = Annotated[
    str | None,
    typer.Option(
        help=f"What vectors are rounded to on the way: {', '.join(WIRES)}; default: float32.", show_default=False
    ),
]
Staleness = Annotated[
    int | None,
    typer.Option(
        help="1: take a step's gradient while the last one's models are exchanged; default: 0.", show_default=False
    ),
]
Listed = Annotated[str, typer.Option("--task", help=f"What is learned: {', '.join(TASKS)}.")]
Source = Annotated[
    str | None,
    typer.Option("--task", help="Your own code of the genesis' task: FILE.py:NAME or MODULE:NAME.", show_default=False),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the task's data files.")]
Alpha = Annotated[float | None, typer.Option(help="Dirichlet concentration of labels a node; default: i.i.d. data.")]
Steps = Annotated[int | None, typer.Option(help="Learning steps; default: the task's.")]
LocalBatch = Annotated[int | None, typer.Option(help="Samples a step and node; default: the task's.")]
Momentum = Annotated[float | None, typer.Option(help="β in m ← βm + (1−β)g; default: the task's.")]
Lr = Annotated[float | None, typer.Option(help="Step size; default: the task's.")]
LrDecayEvery = Annotated[
    int | None, typer.Option(help="Divide the step size by 2, 3, … every so many steps; 0: never.")
]
Clip = Annotated[float | None, typer.Option(help="Largest norm of a gradient; default: none.")]
Vectors = Annotated[str, typer.Option(help="How vectors travel: tls, or plain where nobody else can listen.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print for machines.")]
Written = Annotated[
    Path | None,
    typer.Option(help="Write what is learned to this folder, for TensorBoard; default: nowhere.", show_default=False),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help=f"Read the passphrase of the key from this file; default: {VARIABLE}, or it is typed.", show_default=False
    ),
]
HomeFolder = Annotated[Path, typer.Argument(help="The node's home folder.", show_default=False)]


def one_of(option: str, value: str, choices: Iterable[Choice]) -> Choice:
    """The choice that the value names.

    Raises:
        ConfigError: if it names none.
    """
    found = next((choice for choice in choices if choice == value), None)
    if found is None:
        kind = option.rpartition("-")[2]
        raise ConfigError(f"{option} = {value!r}: no such {kind}. Remedy: choose one of {', '.join(choices)}")
    return found


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(name.strip() for name in text.split(","))
