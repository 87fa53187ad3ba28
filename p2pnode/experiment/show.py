"""An experiment for people: its progress while it runs, its table when it is over."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich import box
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from p2pnode.experiment.engine import Began, Event, Stepped
from p2pnode.experiment.grid import Experiment, key_of, shown
from p2pnode.experiment.summary import Row, Spread
from p2pnode.simulation.trial import Trial

_LINE_EVERY_S = 5.0
"""Where no terminal shows bars, a line of progress so often."""

_LINE_CHARACTERS = 300
_LINES_MAX = 10
"""Mishaps shown to people; `--json` and the results tell all."""


class Watch:
    """Shows an experiment while it runs: on a terminal a bar for all steps and one for each running trial, elsewhere a
    line now and then.

    Args:
        console: where to.
        experiment: what is run.
        quiet: show lines, even on a terminal.
    """

    def __init__(self, console: Console, experiment: Experiment, *, quiet: bool) -> None:
        self._console = console
        self._labels = {
            key_of(trial): f"{cell.label}, seed {seed}"
            for cell in experiment.cells
            for seed, trial in cell.trials.items()
        }
        self._said = time.monotonic()
        self._ended = self._failed = 0
        self._steps: dict[int, int] = {}
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._all: TaskID | None = None
        self._running: dict[int, TaskID] = {}

    def __enter__(self) -> "Watch":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, trials: Sequence[Trial], event: Event) -> None:
        """This happened to one of the trials that are run."""
        trial = trials[event.index]
        if self._all is None:
            self._all = self._bars.add_task("", total=sum(trial.steps for trial in trials))
        if isinstance(event, Began):
            label = Text(self._labels[key_of(trial)]).markup
            self._running[event.index] = self._bars.add_task(f"  {label}", total=trial.steps)
        elif isinstance(event, Stepped):
            self._count(event.index, event.step)
        else:
            self._count(event.index, trial.steps)
            self._ended += 1
            self._failed += event.error is not None
            if (bar := self._running.pop(event.index, None)) is not None:
                self._bars.remove_task(bar)
        words = f"{self._ended} of {len(trials)} trials" + (f", {self._failed} failed" if self._failed else "")
        self._bars.update(self._all, completed=sum(self._steps.values()), description=f"{words}; steps")
        if self._bars.disable and time.monotonic() - self._said >= _LINE_EVERY_S:
            self._said = time.monotonic()
            share = sum(self._steps.values()) / sum(trial.steps for trial in trials)
            self._console.print(f"{words}, {share:.0%} of all steps", highlight=False)

    def _count(self, index: int, step: int) -> None:
        self._steps[index] = step
        if index in self._running:
            self._bars.update(self._running[index], completed=step)


def table(experiment: Experiment, rows: Sequence[Row]) -> Group:
    """What came of each cell: accuracies in per cent, the gap in points below the reference."""
    keys = list(rows[0].cell.choices)
    remarks = any(row.errors or row.violations for row in rows)
    grid = _table([shown(key) for key in keys], remarks)
    for row in rows:
        if row.cell.kind == "grid":
            grid.add_row(*(Text(row.cell.choices[key]) for key in keys), *_numbers(row)[: 4 + remarks])
    others = _table(["besides"], remarks)
    for row in rows:
        if row.cell.kind != "grid":
            others.add_row(
                Text(f"{'reference: ' if row.cell.kind == 'reference' else ''}{row.cell.label}"), *_numbers(row)
            )
    title = Text(f"{experiment.name}\n{experiment.setting}", style="italic")
    return Group(title, grid, *([others] if others.rows else []))


def mishaps(rows: Sequence[Row]) -> list[str]:
    """A line for each failed trial, and for each guarantee that did not hold: the first of them."""
    lines = []
    for row in rows:
        lines += [f"{row.cell.label}, seed {seed}: {error}" for seed, error in row.errors.items()]
        lines += [f"{row.cell.label}: {violation}" for violation in row.violations]
    more = len(lines) - _LINES_MAX
    shortened = [line.partition("\n")[0][:_LINE_CHARACTERS] for line in lines[:_LINES_MAX]]
    return shortened + ([f"and {more} more"] if more > 0 else [])


def _table(names: Sequence[str], remarks: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for name in ("seeds", "mean %", "worst %", "gap", *([""] if remarks else [])):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _numbers(row: Row) -> tuple[str | Text, ...]:
    return str(len(row.results)), _number(row.mean, 100), _number(row.worst, 100), _number(row.gap, 1), _remark(row)


def _remark(row: Row) -> Text:
    if row.errors:
        return Text(f"{len(row.errors)} failed", style="bold red")
    return Text("violation", style="yellow") if row.violations else Text("")


def _number(spread: Spread | None, factor: float) -> str:
    if spread is None:
        return "–"
    mean = f"{factor * spread.mean:z.1f}"
    return mean if spread.std is None else f"{mean} ± {factor * spread.std:.1f}"
