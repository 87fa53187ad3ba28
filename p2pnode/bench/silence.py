"""What silent peers cost the others: steps per second with f of n silent, beside the same network with all speaking.

Two kinds of silence, which a network must not tell apart. Who is mute is connected, takes all it is sent and trains,
and says nothing; who is absent was never started. A mute one takes its share of the machine as all do, so that what is
left to see is who waits for it. An absent one leaves its share to the others, and makes them knock in vain.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from p2pnode.bench.app import app
from p2pnode.bench.rounds import Timing, interleaved, network_of
from p2pnode.learning import catalogue
from p2pnode.testnet import NodeView, Testnet

RECIPE = "trimmed"
COMMITTEES = ((5, 1), (9, 2))
"""(n, f): one liar and two, as many as the recipe tolerates."""

QUICK_COMMITTEES = ((5, 1),)
STEPS, QUICK_STEPS = 100, 6
REPEATS, QUICK_REPEATS = 5, 1

NOBODY, MUTE, ABSENT = "nobody", "mute", "absent"


class Deserted(Testnet):
    """A testnet whose liars are never started."""

    def _start(self, node: NodeView) -> None:
        if node.honest:
            super()._start(node)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of silence in a network of n.

    Args:
        n: members.
        f: how many of them are tolerated, and silent.
        silent: `nobody`, or how the f are silent: `mute`, `absent`.
        task: what they train.
        steps_per_second: of the whole network.
        ratio: seconds of a step, divided by those of the same network with nobody silent; 1 is as fast.
    """

    n: int
    f: int
    silent: str
    task: str
    steps_per_second: float
    ratio: float


@app.command()
def silence(
    data_dir: Annotated[
        Path | None, typer.Option(help="MNIST's files, for its convolutional network; else the small digits task.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few steps, one repeat, five nodes.")] = False,
    steps: Annotated[int | None, typer.Option(min=2, help="Steps of a run.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Runs of each kind.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Time steps of networks of which f are silent beside the same with all speaking, in real processes."""
    rows = measure(
        catalogue.find("digits" if data_dir is None else "mnist"),
        None if data_dir is None else str(data_dir.resolve()),
        QUICK_COMMITTEES if quick else COMMITTEES,
        steps or (QUICK_STEPS if quick else STEPS),
        repeats or (QUICK_REPEATS if quick else REPEATS),
    )
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(asdict(row)) + "\n")
    else:
        console = Console()
        console.print(_table(rows))
        console.print("Medians of interleaved runs.")


def measure(
    task: catalogue.TaskDefaults, data_dir: str | None, committees: Sequence[tuple[int, int]], steps: int, repeats: int
) -> list[Row]:
    """The rows of all committees; progress goes to stderr.

    Raises:
        ConfigError: if a data file is wrong or missing.
        TestnetFailed: if a run did not come to its end.
    """
    runs = [(n, f, silent) for n, f in committees for silent in (NOBODY, MUTE, ABSENT)]

    def time(run: tuple[int, int, str]) -> Timing:
        n, f, silent = run
        kind = Deserted if silent == ABSENT else Testnet
        return network_of(task, data_dir, RECIPE, n, steps, f, silent=0 if silent == NOBODY else f, kind=kind)

    taken = interleaved(runs, repeats, time, lambda run: f"n={run[0]}, {run[2]} silent")
    step = {run: statistics.median(timing.step for timing in timings) for run, timings in taken.items()}
    return [
        Row(n, f, silent, task.name, 1 / step[n, f, silent], step[n, f, silent] / step[n, f, NOBODY])
        for n, f, silent in runs
    ]


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title=f"{RECIPE} on {rows[0].task}, f of n silent", title_justify="left")
    for heading in ("n", "f", "silent", "steps/s", "× nobody"):
        table.add_column(heading, justify="left" if heading == "silent" else "right")
    for row in rows:
        table.add_row(str(row.n), str(row.f), row.silent, f"{row.steps_per_second:.2f}", f"{row.ratio:.2f}")
    return table
