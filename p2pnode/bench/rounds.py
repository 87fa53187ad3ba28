"""What resilience costs a network: its steps per second beside those of plain averaging, and of torch's own DDP.

The networks are real ones, of processes on this machine with sockets, TLS and files. All take their turns again and
again, and of each the median counts.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from p2pnode.bench.app import BenchFailed, app
from p2pnode.driver import PHASES
from p2pnode.learning import catalogue
from p2pnode.testnet import Plan, Testnet, free_ports

Run = TypeVar("Run", bound=tuple[object, ...])

PLAIN, DDP = "dsgd", "ddp-gloo"

RUNS = (
    (PLAIN, 5, "tls"),
    ("trimmed", 5, "tls"),
    ("trimmed", 5, "plain"),
    (DDP, 5, "plain"),
    (PLAIN, 7, "tls"),
    ("trimmed", 7, "tls"),
    ("monna", 7, "tls"),
)
"""(recipe, n, how vectors travel), a plain average of every n under TLS; the resilient ones tolerate one liar."""

QUICK_RUNS = RUNS[:4]
STEPS, QUICK_STEPS = 60, 6
REPEATS, QUICK_REPEATS = 5, 1
STALL_S = 600.0
"""Long, for machines that do much else: a network that stalls is no result, however late it is noticed."""

POLL_S = 1.0
"""Nobody watches: what is measured is the network, not how often it is asked how it is."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recipe in a network of n.

    Args:
        recipe: its name, or `ddp-gloo`.
        n: nodes.
        vectors: whether they travel by TLS or in the clear.
        task: what they train.
        steps_per_second: of the whole network.
        ratio_to_plain: these, divided by those of plain averaging among as many, under TLS; 1 is as fast.
        phases: seconds of a node a step, by what it did; see `p2pnode.driver.PHASES`. Without the evaluation, which is
            of the final model; empty where there are none.
    """

    recipe: str
    n: int
    vectors: str
    task: str
    steps_per_second: float
    ratio_to_plain: float
    phases: dict[str, float]


@dataclass(frozen=True, slots=True)
class Timing:
    """One run: seconds of a step, and those of a node a step by phase."""

    step: float
    phases: dict[str, float]


@app.command("round")
def rounds(
    data_dir: Annotated[
        Path | None, typer.Option(help="MNIST's files, for its convolutional network; else the small digits task.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few steps, one repeat, five nodes.")] = False,
    steps: Annotated[int | None, typer.Option(min=2, help="Steps of a run.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Runs of each recipe.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Time steps of resilient recipes beside plain averaging and torch's DDP, in networks of real processes."""
    task = catalogue.find("digits" if data_dir is None else "mnist")
    rows = measure(
        task,
        None if data_dir is None else str(data_dir.resolve()),
        QUICK_RUNS if quick else RUNS,
        steps or (QUICK_STEPS if quick else STEPS),
        repeats or (QUICK_REPEATS if quick else REPEATS),
    )
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(asdict(row)) + "\n")
    else:
        console = Console()
        console.print(*_tables(rows, task), sep="\n")
        console.print("Medians of interleaved runs. Each moment counts for one phase: see p2pnode.driver.PHASES.")


def measure(
    task: catalogue.TaskDefaults, data_dir: str | None, runs: Sequence[tuple[str, int, str]], steps: int, repeats: int
) -> list[Row]:
    """The rows of all runs; progress goes to stderr.

    Raises:
        ConfigError: if a data file is wrong or missing.
        BenchFailed, TestnetFailed: if a run did not come to its end.
    """
    timings = interleaved(
        runs, repeats, lambda run: _run(task, data_dir, *run, steps), lambda run: f"{run[0]} n={run[1]}"
    )
    seconds = {run: statistics.median(timing.step for timing in taken) for run, taken in timings.items()}
    return [
        Row(recipe, n, vectors, task.name, 1 / step, seconds[PLAIN, n, "tls"] / step, _phases(taken))
        for ((recipe, n, vectors), step), taken in zip(seconds.items(), timings.values(), strict=True)
    ]


def interleaved(
    runs: Sequence[Run], repeats: int, taken: Callable[[Run], Timing], describe: Callable[[Run], str]
) -> dict[Run, list[Timing]]:
    """What each run took, in turn with the others, so that a machine that grows slower is held against none."""
    timings: dict[Run, list[Timing]] = {run: [] for run in runs}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=repeats * len(runs))
        for _ in range(repeats):
            for run in runs:
                progress.update(bar, description=describe(run))
                timings[run].append(taken(run))
                progress.advance(bar)
    return timings


def _run(task: catalogue.TaskDefaults, data_dir: str | None, recipe: str, n: int, vectors: str, steps: int) -> Timing:
    if recipe == DDP:
        return _ddp(task, data_dir, n, steps)
    return network_of(task, data_dir, recipe, n, steps, f=0 if recipe == PLAIN else 1, vectors=vectors)


def network_of(
    task: catalogue.TaskDefaults,
    data_dir: str | None,
    recipe: str,
    n: int,
    steps: int,
    f: int,
    vectors: str = "tls",
    silent: int = 0,
    kind: type[Testnet] = Testnet,
) -> Timing:
    """One run of a network of real processes.

    Args:
        task, data_dir: what is trained.
        recipe, n, f, steps: of the network.
        vectors: how they travel.
        silent: how many of its members say nothing.
        kind: what runs it.
    """
    training = {
        "task": task.name,
        "steps": steps,
        "local_batch": task.local_batch,
        "momentum": task.momentum,
        "lr": task.lr,
        "lr_decay_every": task.lr_decay_every,
    }
    values = {"f": f, "recipe": {"name": recipe}, "vectors": vectors, "training": training}

    async def run(out: Path) -> list[dict[str, Any]]:
        plan = Plan(out, values, n, silent, ("silent",), data_dir, STALL_S, evaluations=0, poll_s=POLL_S)
        net = kind(plan, time.time(), lambda _: None)
        await net.run()
        return [node.result for node in net.honest if node.result is not None]

    with TemporaryDirectory(prefix="p2pnode-") as folder:
        results = asyncio.run(run(Path(folder) / "net"))
    began, ended = (max(result[when] for result in results) for when in ("first_step_at", "last_step_at"))
    phases = {
        phase: statistics.mean(result["phases"].get(phase, 0.0) for result in results) / steps  # some never wait
        for phase in (*PHASES, "wire", "idle")
        if phase != "evaluation"
    }
    return Timing((ended - began) / (steps - 1), phases)


def _ddp(task: catalogue.TaskDefaults, data_dir: str | None, n: int, steps: int) -> Timing:
    numbers = (n, task.local_batch, steps, free_ports(1)[0])
    command = [sys.executable, "-m", "p2pnode.bench.ddp", task.name, data_dir or "", *map(str, numbers)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode != 0:
        raise BenchFailed(f"torch's DDP failed with exit code {ended.returncode}; what it said stands above")
    return Timing(float(ended.stdout), {})


def _phases(taken: Sequence[Timing]) -> dict[str, float]:
    return {phase: statistics.median(timing.phases[phase] for timing in taken) for phase in taken[0].phases}


def _tables(rows: Sequence[Row], task: catalogue.TaskDefaults) -> Iterator[Table]:
    """How fast, and where the time goes."""
    title = f"{task.name}, {task.parameters:,} parameters, batches of {task.local_batch}"
    speed = Table(title=title, title_justify="left")
    speed.add_column("recipe", no_wrap=True)
    for heading in ("n", "vectors", "steps/s", "× plain"):
        speed.add_column(heading, justify="right")
    for row in rows:
        speed.add_row(row.recipe, str(row.n), row.vectors, f"{row.steps_per_second:.2f}", f"{row.ratio_to_plain:.2f}")
    yield speed
    networks = [row for row in rows if row.phases]
    spent = Table(title="Where a node's time goes, ms a step", title_justify="left")
    spent.add_column("", no_wrap=True)
    for row in networks:
        spent.add_column(f"{row.recipe} {row.n} {row.vectors}", justify="right")
    for phase in networks[0].phases:
        spent.add_row(phase, *(f"{1e3 * row.phases[phase]:.1f}" for row in networks))
    yield spent
