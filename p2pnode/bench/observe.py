"""What it costs a node to look at its peers' vectors for its page: steps with `observe` on beside steps with it off.

The node is that of `scripts/bench scale`: an ordinary one among played ones, whose model is made up and whose gradient
is one pass over it. So a step is as short as steps get, and what looking adds is not hidden behind learning. Runs with
and without take turns, because a machine's speed drifts; and the phase `observe` of the runs with it says what looking
takes of the worker, where the difference of two steps drowns in their noise.
"""

import asyncio
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from p2pnode.bench.app import app
from p2pnode.bench.scale import QUICK_D, Point, play
from p2pnode.config import NodeConfig

POINTS = tuple(Point("signed-echo", n, d) for d in (10**5, 431_080, 10**7) for n in (7, 16))
QUICK_POINTS = (Point("signed-echo", 5, QUICK_D),)
STEPS = {10**5: 200, 431_080: 100, 10**7: 10, QUICK_D: 30}
"""By d; the first step, in which all is loaded, is not counted."""

PAIRS, QUICK_PAIRS = 3, 1

ON: float = NodeConfig.model_fields["observe"].default
"""The share of the time that a node looks, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Row:
    """One size.

    Args:
        n: members.
        d: parameters.
        on_ms: of a step with observing on, the median.
        off_ms: the same with it off.
        ratio: of the two, the median of the pairs of runs.
        observe_ms: that a step spent looking, the mean; those that were not looked at count.
        share: of all the time that a step took, with observing on.
    """

    n: int
    d: int
    on_ms: float
    off_ms: float
    ratio: float
    observe_ms: float
    share: float


@app.command()
def observe(
    quick: Annotated[bool, typer.Option("--quick", help="One small network, few steps.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Measure what it costs a node to look at its peers' vectors."""
    rows = []
    for row in measure(QUICK_POINTS if quick else POINTS, QUICK_PAIRS if quick else PAIRS):
        rows.append(row)
        if as_json:
            sys.stdout.write(json.dumps(asdict(row)) + "\n")
            sys.stdout.flush()
    if not as_json:
        Console().print(_table(rows))


def measure(points: Sequence[Point], pairs: int) -> Iterator[Row]:
    """The rows of all sizes; progress goes to stderr.

    Raises:
        BenchFailed: if a run did not come to its end.
    """
    for point in track(points, "observing", console=Console(stderr=True), transient=True):
        yield _row(point, [(_run(point, ON), _run(point, 0.0)) for _ in range(pairs)])


@dataclass(frozen=True, slots=True)
class _Run:
    """Of one run, after its first step: seconds of a step, the median and the mean, and of those looked, the mean."""

    median_s: float
    mean_s: float
    looked_s: float


def _run(point: Point, share: float) -> _Run:
    steps = STEPS[point.d]
    return _steps(asyncio.run(play(point, steps, observe=share)))


def _steps(account: dict[str, Any]) -> _Run:
    at = [tally["at"] for tally in account["tallies"]]
    seconds = [later - earlier for earlier, later in pairwise(at)]
    return _Run(statistics.median(seconds), statistics.fmean(seconds), account["phases"]["observe"] / len(at))


def _row(point: Point, runs: Sequence[tuple[_Run, _Run]]) -> Row:
    on = [with_it for with_it, _ in runs]
    looked = statistics.fmean(run.looked_s for run in on)
    return Row(
        point.n,
        point.d,
        1e3 * statistics.median(run.median_s for run in on),
        1e3 * statistics.median(without.median_s for _, without in runs),
        statistics.median(with_it.median_s / without.median_s for with_it, without in runs),
        1e3 * looked,
        looked / statistics.fmean(run.mean_s for run in on),
    )


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title=f"Steps with observe = {ON:g} beside steps with observe = 0", title_justify="left")
    for heading in ("n", "d", "ms on", "ms off", "ratio", "ms looking", "share"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = (f"{row.on_ms:.2f}", f"{row.off_ms:.2f}", f"{row.ratio:.3f}")
        table.add_row(str(row.n), f"{row.d:,}", *figures, f"{row.observe_ms:.3f}", f"{row.share:.2%}")
    return table
