"""What a rule costs: its time as a multiple of the mean's, which no rule can do without reading as much.

All rules take their turns again and again, and of each the median counts: so what else the machine does meets all
alike. On a CUDA device the bandwidth of a copy is measured too, for the fraction of it that a rule achieves.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from itertools import groupby
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from p2pnode.aggregation import RULES, aggregate
from p2pnode.bench.app import app
from p2pnode.bench.memory import forget_peak, peak
from p2pnode.errors import ConfigError, P2PNodeError

SIZES = ("10,2,5000000", "26,5,1000000", "64,15,300000")
QUICK_SIZES = ("10,2,100000", "26,5,50000")
REPEATS, QUICK_REPEATS = 15, 3

SECONDS_MAX = 60.0
"""Most that one rule takes at one size: a rule so slow gets fewer repeats, one at least."""

PIPELINES = ("nnm+mean", "nnm+trimmed-mean", "bucketing+median", "clip+mean", "arc+mean")
"""Pre-aggregations, each before a rule of little cost."""

BYZFL = {
    "mean": "Average",
    "median": "Median",
    "trimmed-mean": "TrMean",
    "minimum-diameter": "MDA",
    "geometric-median": "GeometricMedian",
    "krum": "Krum",
    "multi-krum": "MultiKrum",
    "mean-around-median": "Meamed",
    "covariance-filter": "CAF",
    "nearest-neighbour": "MoNNA",
}
"""Rules → the class in byzfl.aggregators that does the same."""

Call = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Row:
    """One rule at one size; `note` says why there are no figures, where there are none."""

    rule: str
    n: int
    f: int
    d: int
    device: str
    seconds: float | None = None
    ratio_to_mean: float | None = None
    scratch_bytes: int | None = None
    bandwidth_fraction: float | None = None
    note: str = ""


@app.command()
def rules(
    size: Annotated[list[str] | None, typer.Option(help="n,f,d: vectors, lies, coordinates; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, few repeats.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Time every aggregation rule beside torch.mean, torch.sort and, where it is installed, ByzFL."""
    torch.set_num_threads(threads)
    sizes = [parse_size(text) for text in size or (QUICK_SIZES if quick else SIZES)]
    rows = list(measure(sizes, QUICK_REPEATS if quick else REPEATS))
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(asdict(row)) + "\n")
    else:
        console = Console()
        console.print(*_tables(rows, threads), sep="\n")
        console.print("Medians of interleaved repeats. Extra: the most memory that a call held beside its inputs.")


def parse_size(text: str) -> tuple[int, int, int]:
    """n, f and d.

    Raises:
        ConfigError: if `text` is not three such numbers.
    """
    try:
        n, f, d = (int(part) for part in text.split(","))
    except ValueError:
        n, f, d = 0, 0, 0
    if not (n > f >= 0 and d > 0):
        raise ConfigError(f"--size {text}: not n,f,d with n > f ≥ 0 and d > 0. Remedy: write as 10,2,1000000")
    return n, f, d


def measure(sizes: Sequence[tuple[int, int, int]], repeats: int) -> Iterator[Row]:
    """The rows of all rules at all sizes, on the CPU and on a CUDA device if there is one; progress goes to stderr."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(devices) * len(sizes) * (repeats + 1))
        for device in devices:
            for n, f, d in sizes:
                progress.update(bar, description=f"n={n} f={f} d={d:,} {device}")
                yield from _measure_size(n, f, d, device, repeats, partial(progress.advance, bar))


def _measure_size(n: int, f: int, d: int, device: str, repeats: int, advance: Callable[[], Any]) -> Iterator[Row]:
    vectors = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).to(device)
    calls, notes, scratch, first = _calls(vectors, f), {}, {}, {}
    for name, call in list(calls.items()):
        try:
            first[name], scratch[name] = _first(call, device)
        except (P2PNodeError, torch.OutOfMemoryError) as error:
            notes[name] = str(error).splitlines()[0]
            del calls[name]
    advance()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats):
        for name, call in calls.items():
            if turn == 0 or turn * first[name] < SECONDS_MAX:
                times[name].append(_seconds(call, device))
        advance()
    median = {name: statistics.median(taken) for name, taken in times.items()}
    bandwidth = _copied_bytes_a_second(vectors) if device == "cuda" else None
    for name in [*calls, *notes]:
        if name in notes:
            yield Row(name, n, f, d, device, note=notes[name])
            continue
        touched = (vectors.numel() + d) * vectors.itemsize
        achieved = touched / median[name] / bandwidth if bandwidth else None
        ratio = median[name] / median["torch.mean"]
        yield Row(name, n, f, d, device, median[name], ratio, scratch[name], achieved)


def _calls(vectors: Tensor, f: int) -> dict[str, Call]:
    calls: dict[str, Call] = {
        "torch.mean": lambda: vectors.mean(dim=0),
        "torch.sort": lambda: vectors.sort(dim=0).values,
    }
    centre = vectors.mean(dim=0)
    calls |= {name: partial(aggregate, name, vectors, f=f, own=0, centre=centre) for name in (*RULES, *PIPELINES)}
    return calls | _byzfl_calls(vectors, f)


def _byzfl_calls(vectors: Tensor, f: int) -> dict[str, Call]:
    try:
        aggregators = import_module("byzfl").aggregators
    except (ImportError, AttributeError):
        return {}
    calls: dict[str, Call] = {}
    for name, counterpart in BYZFL.items():
        kind = getattr(aggregators, counterpart, None)
        if name not in RULES or kind is None:
            continue
        try:
            rule = kind(f=f)
        except TypeError:
            rule = kind()
        calls[f"byzfl {counterpart}"] = partial(rule, vectors)
    return calls


def _first(call: Call, device: str) -> tuple[float, int | None]:
    """The time of a second call, and the most memory that it held beside its inputs, where that can be found out."""
    call()  # compiles, and loads what it needs
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        taken = _seconds(call, device)
        return taken, torch.cuda.max_memory_allocated() - before
    resident = forget_peak()
    taken = _seconds(call, device)
    return taken, None if resident is None else max(0, peak() - resident)


def _seconds(call: Call, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _copied_bytes_a_second(vectors: Tensor) -> float:
    """Bytes that a copy on the device reads and writes in a second."""
    other = torch.empty_like(vectors)
    taken = [_seconds(lambda: other.copy_(vectors), "cuda") for _ in range(REPEATS)]
    return 2 * vectors.numel() * vectors.itemsize / statistics.median(taken)


def _tables(rows: Sequence[Row], threads: int) -> Iterator[Table]:
    """One table for each size and device."""
    for (n, f, d, device), group in groupby(rows, key=lambda row: (row.n, row.f, row.d, row.device)):
        where = device if device == "cuda" else f"{threads} CPU threads"
        table = Table(title=f"n={n} f={f} d={d:,}, {where}", title_justify="left")
        table.add_column("rule", no_wrap=True)
        for heading in ("ms", "× mean", "extra MiB", *(["of copy"] if device == "cuda" else [])):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("")
        for row in group:
            figures = [
                _figure(row.seconds, 1e3, ".2f"),
                _figure(row.ratio_to_mean, 1, ".2f"),
                _figure(row.scratch_bytes, 2**-20, ".1f"),
                *([_figure(row.bandwidth_fraction, 1, ".0%")] if device == "cuda" else []),
            ]
            table.add_row(row.rule, *figures, escape(row.note))
        yield table


def _figure(number: float | None, scale: float, style: str) -> str:
    return "" if number is None else format(number * scale, style)
