"""What a node learned: `export`, `evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from p2pnode.cli.console import answer
from p2pnode.cli.options import AsJson, DataDir, HomeFolder, Source
from p2pnode.errors import ConfigError
from p2pnode.home import Home
from p2pnode.observe import table

commands = typer.Typer()


@commands.command()
def export(
    home: HomeFolder,
    out: Annotated[Path, typer.Argument(help="The safetensors file to write.", show_default=False)],
    task: Source = None,
    as_json: AsJson = False,
) -> None:
    """Write the model of a home's checkpoint to a file: the weights by name, as its class takes them in.

    Example:

      p2pnode export a model.safetensors
    """
    from p2pnode.product import of_home

    told = of_home(Home(home), task).export(out)
    if as_json:
        print(json.dumps(told))
    else:
        answer.print(f"weights  {out}: {told['task']} after {told['step']} steps", soft_wrap=True, highlight=False)


@commands.command()
def evaluate(
    what: Annotated[Path, typer.Argument(help="A home, or a safetensors file of weights.", show_default=False)],
    task: Annotated[
        str | None,
        typer.Option(
            help="Of what task; your own as FILE.py:NAME. Default: the home's, or the file's.", show_default=False
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Annotated[str, typer.Option(help="Where: cpu, cuda, cuda:INDEX or auto.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a model on the whole test data of its task: that of a home's checkpoint, or of exported weights.

    Examples:

      p2pnode evaluate a

      p2pnode evaluate model.safetensors --task train.py:task
    """
    from p2pnode.product import of_file, of_home

    if what.is_dir():
        if data_dir is not None:
            raise ConfigError(f"data-dir: {Home(what).config} names it. Remedy: leave it out, or change it there")
        model = of_home(Home(what), task)
    else:
        model = of_file(what, task, data_dir, device)
    told = model.measured()
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        answer.print(table.evaluation(told))
