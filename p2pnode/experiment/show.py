"""An experiment for people: its progress while it runs, its table when it is over."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich import box
from rich.console import Console
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
            self._console.print(words, highlight=False)

    def _count(self, index: int, step: int) -> None:
        self._steps[index] = step
        if index in self._running:
            self._bars.update(self._running[index], completed=step)


def table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """What came of each cell: accuracies in per cent, the gap in points below the reference."""
    keys = list(rows[0].cell.choices)
    found = Table(title=f"{experiment.name}\n{experiment.setting}", title_justify="left", box=box.SIMPLE_HEAD)
    for key in keys or ["cell"]:
        found.add_column(shown(key), overflow="fold")
    for name in ("seeds", "mean %", "worst %", "gap", ""):
        found.add_column(name, justify="right", no_wrap=True)
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.cell.kind != row.cell.kind:
            found.add_section()
        named = row.cell.kind == "grid" and keys
        first = [row.cell.choices[key] for key in keys] if named else [row.cell.label, *[""] * (len(keys) - 1)]
        if row.cell.kind == "reference":
            first[0] = f"reference: {first[0]}"
        found.add_row(
            *map(Text, first),
            str(len(row.results)),
            _number(row.mean, 100),
            _number(row.worst, 100),
            _number(row.gap, 1),
            _remark(row),
        )
    return found


def errors(rows: Sequence[Row]) -> list[str]:
    """A line for each failed trial, and for each guarantee that did not hold."""
    lines = []
    for row in rows:
        lines += [f"{row.cell.label}, seed {seed}: {error}" for seed, error in row.errors.items()]
        lines += [f"{row.cell.label}: {violation}" for violation in row.violations]
    return [line.partition("\n")[0][:_LINE_CHARACTERS] for line in lines]


def _remark(row: Row) -> Text:
    if row.errors:
        return Text(f"{len(row.errors)} failed", style="bold red")
    return Text("violation", style="yellow") if row.violations else Text("")


def _number(spread: Spread | None, factor: float) -> str:
    if spread is None:
        return "–"
    mean = f"{factor * spread.mean:z.1f}"
    return mean if spread.std is None else f"{mean} ± {factor * spread.std:.1f}"
