"""Grids of trials, and the page that sums up what ran: `experiment`, `report`."""

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from p2pnode.cli.console import EXIT_FAILED, answer, people, say
from p2pnode.cli.options import AsJson, DataDir, one_of

if TYPE_CHECKING:
    from p2pnode.experiment.grid import Experiment
    from p2pnode.experiment.store import Store

ENGINES = ("local", "ray", "testnet")

commands = typer.Typer()


@commands.command()
def experiment(
    file: Annotated[Path, typer.Argument(help="The experiment file.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder for results and plots; default: runs/NAME.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Trials at a time; 0: as many as there are cores.")] = 0,
    engine: Annotated[str, typer.Option(help=f"What runs the trials: {', '.join(ENGINES)}.")] = "local",
    data_dir: DataDir = None,
    device: Annotated[str | None, typer.Option(help="Where to train: cpu, cuda, cuda:1; default: the file's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run each trial of a grid once, side by side, and sum them up: table, heat map and curves.

    What is finished is kept: the same command goes on where it was stopped, and
    runs only what a changed file has anew. Exit code 1 if a trial failed.
    Trials are simulated; --engine testnet runs each as a network of real
    processes, one after another.

    Examples:

      p2pnode experiment examples/experiments/rules-digits.toml

      p2pnode experiment examples/experiments/monna-mnist.toml --data-dir data/mnist --workers 4
    """
    one_of("engine", engine, ENGINES)
    from p2pnode.experiment import grid, plot, show, summary
    from p2pnode.experiment.store import Store

    overrides = {"data_dir": None if data_dir is None else str(data_dir), "device": device}
    asked = grid.read(file, {key: value for key, value in overrides.items() if value is not None})
    folder = out or Path("runs") / (f"{asked.name}-testnet" if engine == "testnet" else asked.name)
    with Store(folder) as store:
        _conduct(asked, store, engine, workers, quiet=as_json)
        rows = summary.rows(asked, store.records)
    plots = plot.write(asked, rows, folder)
    if as_json:
        print(json.dumps(summary.machine(asked, rows) | {"plots": [str(path) for path in plots]}, indent=2))
    else:
        answer.print(show.table(asked, rows))
        for line in show.mishaps(rows):
            answer.print(line, markup=False, highlight=False, soft_wrap=True)
        answer.print("\n".join(map(str, [store.path, *plots])), soft_wrap=True, highlight=False)
    if any(row.errors for row in rows):
        raise typer.Exit(EXIT_FAILED)


def _conduct(asked: "Experiment", store: "Store", engine: str, workers: int, *, quiet: bool) -> None:
    """Run what has no result yet; Ctrl-C and a request to end leave what is finished, and say how to go on."""
    from p2pnode.experiment.cluster import on_ray
    from p2pnode.experiment.engine import conduct, local
    from p2pnode.experiment.real import on_testnets
    from p2pnode.experiment.show import Watch

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Watch(people, asked, quiet=quiet) as watch:
            conduct(asked, store, {"local": local, "ray": on_ray, "testnet": on_testnets}[engine], watch.show, workers)
    except KeyboardInterrupt:
        say("[yellow]interrupted[/]", f"{store.path} holds what is finished; the same command goes on from there")
        raise typer.Exit(EXIT_FAILED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@commands.command("report")
def make_report(
    folder: Annotated[Path, typer.Argument(help="What --out of a testnet or an experiment was.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: report.html in the folder.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make one HTML file of what a testnet or an experiment came to, with its plots; a browser needs nothing else.

    Example:

      p2pnode report runs/testnet
    """
    from p2pnode import report

    written = report.write(folder, out)
    if as_json:
        print(json.dumps({"report": str(written)}))
    else:
        answer.print(str(written), soft_wrap=True, highlight=False)
