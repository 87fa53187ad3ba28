"""What one node costs, as n and d grow: bytes, messages, signatures, memory and time of a step.

The node is an ordinary one in a process of its own: its driver, links under TLS, files, signatures and rule are those
of users, and only its model is made up, of d parameters and a gradient of one pass. The n − 1 others are played by one
process (`p2pnode.bench.chorus`), which keeps the vectors of all in the memory of one: so a node of 32 is measured on a
machine that does not hold 32. They say what real ones say, and when real ones would that are as fast: they propose in a
slot when the node does. With a lead they are a slot ahead, which is what fast peers do to the memory of a slow node.

Bytes, messages, signatures and memory are so the node's own. Seconds a step are those of two processes that share this
machine: of the node's own work, and of sending and receiving what all others would.
"""

import asyncio
import json
import statistics
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from p2pnode.bench.app import BenchFailed, app
from p2pnode.bench.ends import HOST
from p2pnode.bench.soloist import READY
from p2pnode.genesis import Choice
from p2pnode.init import Place, found
from p2pnode.simulation.cost import Cost, quiet
from p2pnode.simulation.scenario import Scenario
from p2pnode.testnet import free_ports
from protocols.committee import Committee

MIB = 2**20

BASE_MIB = 300
"""What a node may hold of its own beside vectors: what torch and others make when they are loaded, the compiled rules,
and what lies in buffers."""

_WIDTH = 110
"""Of the tables, in columns, where there is no terminal to tell."""

ROOM_BYTES = 2**30
"""Left free for all else, and for the two processes beside their vectors."""


@dataclass(frozen=True, slots=True)
class Point:
    """What is measured.

    Args:
        broadcast: of `trimmed`, which mixes by trimmed mean.
        n: members.
        d: parameters.
        sub_rounds: of a step.
        lead: slots by which the others are ahead.
    """

    broadcast: str
    n: int
    d: int
    sub_rounds: int = 1
    lead: int = 0

    @property
    def f(self) -> int:
        """The most liars that trimmed mean tolerates over this broadcast."""
        return (self.n - 1) // (4 if self.broadcast == "signed-echo" else 3)

    @property
    def recipe(self) -> dict[str, Any]:
        return {"name": "trimmed", "broadcast": self.broadcast, "sub_rounds": self.sub_rounds}

    @property
    def bound_bytes(self) -> int:
        """What the node's memory must stay below: two slots of vectors, and four."""
        return (2 * self.n + 4) * 4 * self.d + BASE_MIB * MIB

    @property
    def needs_bytes(self) -> int:
        """Memory that is wanted before it is begun: the node's, and at the others the vector that each is sent."""
        return self.bound_bytes + (self.n + 1) * 4 * self.d + ROOM_BYTES

    def __str__(self) -> str:
        return f"{self.broadcast} n={self.n} d={self.d:,}"


POINTS = (
    *(Point("signed-echo", n, d) for d in (10**5, 10**6, 10**7) for n in (4, 7, 10, 16, 25, 32)),
    *(Point("signed-echo", n, 10**8) for n in (4, 7, 10, 16, 32)),
    *(Point("signed-echo", n, 10**7, lead=1) for n in (7, 16)),
    Point("signed-echo", 7, 10**7, sub_rounds=3),
    *(Point("reliable", n, d) for d in (10**6, 10**7) for n in (4, 10)),
)
QUICK_D = 5 * 10**4
QUICK_POINTS = (Point("signed-echo", 5, QUICK_D), Point("reliable", 4, QUICK_D))

STEPS = {QUICK_D: 4, 10**5: 68, 10**6: 20, 10**7: 5, 10**8: 4}
"""By d. The first step is not counted, and memory is full when as many as a node retains are behind it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One point. Figures are of one node and one step, after the first; `note` says why there are none.

    Args:
        broadcast, n, f, d, sub_rounds, lead: as in `Point`.
        bytes_sent, bytes_received: of words and vectors, TLS not counted.
        bytes_by_formula: that it sends in a quiet network, and receives.
        messages_sent, messages_received: of the protocol; vectors are not counted.
        messages_by_formula: that it sends in a quiet network, and receives.
        signed, checked: statements, of which several may be under one signature.
        seconds: the median.
        peak_mib: the most memory that the process held, over the whole run.
        own_mib: of that, all but the code and tables of libraries as they were before there was a model: the kernel has
            them once for all processes, and may drop them.
        above_idle_mib: the same, above what a node holds with everything loaded and no model yet.
        vectors: as many vectors is that.
        bound_mib: what its own must stay below, see `Point.bound_bytes`.
    """

    broadcast: str
    n: int
    f: int
    d: int
    sub_rounds: int
    lead: int
    bytes_sent: float | None = None
    bytes_received: float | None = None
    bytes_by_formula: float | None = None
    messages_sent: float | None = None
    messages_received: float | None = None
    messages_by_formula: float | None = None
    signed: float | None = None
    checked: float | None = None
    seconds: float | None = None
    peak_mib: float | None = None
    own_mib: float | None = None
    above_idle_mib: float | None = None
    vectors: float | None = None
    bound_mib: float | None = None
    note: str = ""


@app.command()
def scale(
    quick: Annotated[bool, typer.Option("--quick", help="Two small networks, few steps.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Measure what one node costs as n and d grow: bytes, messages, signatures, memory and time of a step."""
    rows = []
    for row in measure(QUICK_POINTS if quick else POINTS):
        rows.append(row)
        if as_json:
            sys.stdout.write(json.dumps(asdict(row)) + "\n")
            sys.stdout.flush()
    if not as_json:
        console = Console(width=None if sys.stdout.isatty() else _WIDTH)
        console.print(*_tables(rows), sep="\n")
        console.print(*(f"{_name(row)}: {row.note}" for row in rows if row.note), sep="\n")
        console.print("Of one node and one step. Own: without the code of libraries, which processes share.")
        console.print("Bound: (2n+4) vectors and 300 MiB of its own. Idle: loaded, and without a model.")


def measure(points: Sequence[Point]) -> Iterator[Row]:
    """The rows of all points; progress goes to stderr.

    Raises:
        BenchFailed: if a run did not come to its end.
    """
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(points))
        for point in points:
            progress.update(bar, description=str(point))
            yield _measure_point(point)
            progress.advance(bar)


def _measure_point(point: Point) -> Row:
    of_point = (point.broadcast, point.n, point.f, point.d, point.sub_rounds, point.lead)
    free = _free_bytes()
    if free is not None and point.needs_bytes > free:
        return Row(*of_point, note=f"needs {point.needs_bytes / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are free")
    account = asyncio.run(play(point, STEPS[point.d]))
    first, *_, last = account["tallies"]
    spent = {what: (last[what] - first[what]) / (len(account["tallies"]) - 1) for what in first}
    seconds = [later["at"] - earlier["at"] for earlier, later in pairwise(account["tallies"])]
    formula = _by_formula(point)
    idle, peak = account["idle_bytes"], account["peak_bytes"]
    return Row(
        *of_point,
        spent["bytes_sent"],
        spent["bytes_received"],
        formula.bytes / point.n,
        spent["messages_sent"],
        spent["messages_received"],
        formula.messages / point.n,
        spent["signed"],
        spent["checked"],
        statistics.median(seconds),
        None if peak is None else peak / MIB,
        None if peak is None else (peak - account["library_bytes"]) / MIB,
        None if peak is None else (peak - idle) / MIB,
        None if peak is None else (peak - idle) / (4 * point.d),
        point.bound_bytes / MIB,
    )


def _by_formula(point: Point) -> Cost:
    """What all nodes send in a step of a quiet network."""
    recipe = Choice(**point.recipe).recipe(Committee(point.n, point.f))
    one, two = (quiet(Scenario(point.n, 0, point.f, recipe, (), (), "random", steps), point.d) for steps in (1, 2))
    return Cost(two.messages - one.messages, two.bytes - one.bytes)


async def play(point: Point, steps: int, **settings: object) -> dict[str, Any]:
    """Run the node among all others; what it cost, as a `p2pnode.bench.soloist.Account`.

    Args:
        point: among how many, and with how much.
        steps: how many.
        settings: of all nodes, beside those by which they are measured.

    Raises:
        BenchFailed: if the run did not come to its end.
    """
    with TemporaryDirectory(prefix="p2pnode-") as folder:
        _found(Path(folder), point, steps, settings)
        home = Path(folder) / f"node{point.n - 1}"
        soloist = await _start("soloist", str(home), str(point.d))
        chorus = await _start("chorus", folder, str(point.d), str(point.lead))
        try:
            for process in (soloist, chorus):
                assert process.stdout is not None
                if await process.stdout.readline() != READY:
                    raise BenchFailed(f"{point}: a process ended before it began; what it said stands above")
            told = asyncio.create_task(_begin(soloist))
            assert chorus.stdin is not None
            chorus.stdin.write(b"\n")
            await asyncio.wait([told, asyncio.create_task(chorus.wait())], return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                raise BenchFailed(f"{point}: who plays the others failed; what it said stands above")
            account = told.result()
        finally:
            for process in (soloist, chorus):
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if not account:
            raise BenchFailed(f"{point}: the node failed; what it said stands above")
        told_account: dict[str, Any] = json.loads(account)
        return told_account


def _found(folder: Path, point: Point, steps: int, more: dict[str, object]) -> None:
    """A network that keeps what is measured apart from what only happens now and then."""
    settings = {
        **more,
        "handshake_s": 60.0,
        # The others' links to each other are played, and tried at most once in this time.
        "reconnect_s": 600.0,
        "linger_s": 0.0,
        "device": "cpu",
    }
    ports = free_ports(point.n)
    places = [Place(f"node{i}", f"{HOST}:{port}", settings) for i, port in enumerate(ports)]
    training = {"task": "digits", "steps": steps, "local_batch": 1, "momentum": 0.9, "lr": 0.001}
    found(folder, places, {"f": point.f, "recipe": point.recipe, "training": training})


async def _start(module: str, *arguments: str) -> Process:
    command = (sys.executable, "-m", f"p2pnode.bench.{module}", *arguments)
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)


async def _begin(process: Process) -> bytes:
    """Say that both are ready, and wait for the end; what the process said then."""
    out, _ = await process.communicate(b"\n")
    return out


def _free_bytes() -> int | None:
    """Memory that Linux can give away; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _tables(rows: Sequence[Row]) -> Iterator[Table]:
    """What a node says and does, and what it holds."""
    spent = Table(title="What a node sends, receives, signs and checks", title_justify="left")
    held = Table(title="What a node holds, and how long a step takes", title_justify="left")
    for table, headings in (
        (spent, ("MB out", "MB in", "words out", "words in", "signed", "checked")),
        (held, ("peak MiB", "own", "above idle", "vectors", "bound", "s a step")),
    ):
        table.add_column("trimmed over", no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if row.note:
            continue
        what = _name(row)
        spent.add_row(
            what,
            *(_figure(number, 1e-6, ".2f") for number in (row.bytes_sent, row.bytes_received)),
            *(_figure(number, 1, ".1f") for number in (row.messages_sent, row.messages_received)),
            *(_figure(number, 1, ".1f") for number in (row.signed, row.checked)),
        )
        held.add_row(
            what,
            *(_figure(number, 1, ".0f") for number in (row.peak_mib, row.own_mib, row.above_idle_mib)),
            _figure(row.vectors, 1, ".1f"),
            _figure(row.bound_mib, 1, ".0f"),
            _figure(row.seconds, 1, ".3f"),
        )
    yield spent
    yield held


def _name(row: Row) -> str:
    """What was measured, in short."""
    more = "".join([f" K={row.sub_rounds}" * (row.sub_rounds > 1), f" lead={row.lead}" * (row.lead > 0)])
    return f"{row.broadcast} n={row.n} f={row.f} d={row.d:.0e}{more}".replace("e+0", "e")


def _figure(number: float | None, scale: float, style: str) -> str:
    return "" if number is None else format(number * scale, style)
