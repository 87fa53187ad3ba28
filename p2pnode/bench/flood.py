"""What a flood costs the honest: their steps per second under it, beside those of the same network left alone.

Five nodes, one of them the flooder and four real processes under the settings of users, who ban: the flooder is member
0 of a network that tolerates one liar, and it floods one of the four, whom the other three wait for. In one network it
floods and leaves in turn; each stretch of flooding stands beside the two around it, and the ratios' median counts.

The flooder runs at the lowest priority, since it would have a machine of its own. On few cores it takes some of them
all the same. So beside how fast the honest are it is told what the flood takes of the processor at its victim, which no
priority hides; and what the flooder is rid of says how much of a flood it was.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from p2pnode.bench.app import app
from p2pnode.bench.flooders import FLOODS, OFF, ON
from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError
from p2pnode.learning import catalogue
from p2pnode.testnet import Ask, NodeView, Plan, Testnet

NODES, VICTIM = 5, 1
STRETCHES, QUICK_STRETCHES = 4, 1
STRETCH_S, QUICK_STRETCH_S = 4.0, 0.5
QUICK_FLOODS = ("tiny frames", "half open links")

_STEPS = 10**6
_FIRST_STEPS = 3
_POLL_S = 0.05
_USER_TIME = 11
"""Of /proc/PID/stat, behind the name; the system's time follows."""

_STALL_S = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """One flood.

    Args:
        flood: a key of `FLOODS`.
        steps_per_second: of the slowest honest node, while it lasts.
        ratio: of that to the same when nobody floods; 1 is as fast.
        victim_cores: how much more of the processor the victim takes while it lasts, in cores; None where Linux is not.
        megabytes_per_second: that the flooder was rid of.
        banned: whether the victim had banned the flooder in the end.
    """

    flood: str
    steps_per_second: float
    ratio: float
    victim_cores: float | None
    megabytes_per_second: float
    banned: bool


@app.command("flood")
def flood_(
    flood: Annotated[list[str] | None, typer.Option(help="One flood by its name; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two floods, one short stretch.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Count steps of honest nodes while a member floods one of them, beside those while it does not."""
    names = flood or (QUICK_FLOODS if quick else tuple(FLOODS))
    if unknown := [name for name in names if name not in FLOODS]:
        raise ConfigError(f"--flood {unknown[0]!r}: no such flood. Remedy: choose from {', '.join(FLOODS)}")
    stretches, seconds = (QUICK_STRETCHES, QUICK_STRETCH_S) if quick else (STRETCHES, STRETCH_S)
    rows = []
    for row in measure(names, stretches, seconds):
        rows.append(row)
        if as_json:
            sys.stdout.write(json.dumps(asdict(row)) + "\n")
            sys.stdout.flush()
    if not as_json:
        console = Console()
        console.print(_table(rows))
        console.print("Medians of stretches with the flood, each beside those around it without. Beside: 1 is as fast.")


def measure(names: Sequence[str], stretches: int, seconds: float) -> Iterator[Row]:
    """The rows of these floods; progress goes to stderr.

    Args:
        names: keys of `FLOODS`.
        stretches: how often each floods.
        seconds: for how long.

    Raises:
        TestnetFailed: if the honest nodes failed or took no step in a minute.
    """
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(names))
        for name in names:
            progress.update(bar, description=name)
            with TemporaryDirectory(prefix="p2pnode-") as folder:
                yield asyncio.run(_under(name, Path(folder) / "net", stretches, seconds))
            progress.advance(bar)


async def _under(name: str, out: Path, stretches: int, seconds: float) -> Row:
    net = Besieged(_plan(out), name, stretches, seconds)
    await net.run()
    ratios, cores = [], []
    for before, flooded, after in zip(net.quiet, net.flooded, net.quiet[1:], strict=False):
        steps = (before.steps + after.steps) / 2
        ratios.append(flooded.steps / steps)
        if before.cores is not None and flooded.cores is not None and after.cores is not None:
            # Steps that it does not take, take nothing.
            cores.append(flooded.cores - (before.cores + after.cores) / 2 * flooded.steps / steps)
    steps = statistics.median(stretch.steps for stretch in net.flooded)
    rid_of = sum(net.rid_of) / sum(stretch.seconds for stretch in net.flooded) / 1e6
    banned = "node0" in net.nodes[VICTIM].status["banned"]
    return Row(name, steps, statistics.median(ratios), statistics.median(cores) if cores else None, rid_of, banned)


def _plan(out: Path) -> Plan:
    task = catalogue.find("digits")
    training = {
        "task": task.name,
        "steps": _STEPS,
        "local_batch": task.local_batch,
        "momentum": task.momentum,
        "lr": task.lr,
        "lr_decay_every": task.lr_decay_every,
    }
    values = {"f": 1, "recipe": {"name": "trimmed"}, "training": training}
    ban_s = NodeConfig.model_fields["ban_s"].default
    return Plan(out, values, NODES, 0, (), None, _STALL_S, evaluations=0, ban_s=ban_s)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was seen in one stretch.

    Args:
        seconds: how long it was.
        steps: per second, of the slowest honest node.
        cores: that the victim took; None where Linux is not.
    """

    seconds: float
    steps: float
    cores: float | None


class Besieged(Testnet):
    """A testnet whose first member is no node but a flooder; it ends after some stretches of flooding.

    Args:
        plan: of a network that takes steps for longer than that.
        flood: a key of `FLOODS`.
        stretches: how often it floods.
        seconds: for how long, and for how long it does not.

    Attributes:
        quiet: the stretches without, one more than those with.
        flooded: those with.
        rid_of: bytes that the flooder was rid of in each of them.
    """

    def __init__(self, plan: Plan, flood: str, stretches: int, seconds: float) -> None:
        super().__init__(plan, time.time(), lambda _: None)
        self.nodes[0].honest = False
        self.quiet: list[Stretch] = []
        self.flooded: list[Stretch] = []
        self.rid_of: list[int] = []
        self._flood = flood
        self._stretches = stretches
        self._seconds = seconds

    def _start(self, node: NodeView) -> None:
        if node.honest:
            super()._start(node)

    async def _until_finished(self) -> None:
        self._moved = (0, time.monotonic())
        command = (sys.executable, "-m", "p2pnode.bench.flooders", str(self.nodes[0].home.path))
        flooder = await asyncio.create_subprocess_exec(*command, str(VICTIM), self._flood, stdin=PIPE, stdout=PIPE)
        try:
            async with self._asking() as ask:
                while min(node.step for node in self.honest) < _FIRST_STEPS:
                    await self._look(ask)
                self.quiet.append(await self._stretch(ask))
                for _ in range(self._stretches):
                    _tell(flooder, ON)
                    self.flooded.append(await self._stretch(ask))
                    _tell(flooder, OFF)
                    assert flooder.stdout is not None
                    self.rid_of.append(int(await flooder.stdout.readline()))
                    self.quiet.append(await self._stretch(ask))
        finally:
            with suppress(ProcessLookupError):
                flooder.kill()
            await flooder.wait()

    async def _stretch(self, ask: Ask) -> Stretch:
        """Watch for so long, and until the slowest honest node has taken a step."""
        await self._look(ask)
        victim = int(self.nodes[VICTIM].home.pid.read_text())
        began, worked = time.monotonic(), _worked_s(victim)
        before, taken = {node.name: node.step for node in self.honest}, 0
        while not taken:
            await asyncio.sleep(self._seconds)
            await self._look(ask)
            taken = min(node.step - before[node.name] for node in self.honest)
        seconds, works = time.monotonic() - began, _worked_s(victim)
        cores = None if worked is None or works is None else (works - worked) / seconds
        return Stretch(seconds, taken / seconds, cores)

    async def _look(self, ask: Ask) -> None:
        await asyncio.gather(ask(), asyncio.sleep(_POLL_S))
        self._check()

    def _sum_up(self) -> dict[str, Any]:
        return {}


def _worked_s(process: int) -> float | None:
    """Seconds of a processor that a process has taken; None where Linux is not."""
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    except OSError:
        return None
    fields = told.rpartition(")")[2].split()
    return (int(fields[_USER_TIME]) + int(fields[_USER_TIME + 1])) / os.sysconf("SC_CLK_TCK")


def _tell(flooder: Process, word: bytes) -> None:
    assert flooder.stdin is not None
    flooder.stdin.write(word)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title=f"{len(rows)} floods of one of {NODES - 1} honest nodes", title_justify="left")
    for heading in ("flood", "steps/s", "beside none", "victim's cores", "MB/s", "banned"):
        table.add_column(heading, justify="left" if heading in ("flood", "banned") else "right", no_wrap=True)
    for row in rows:
        cores = "" if row.victim_cores is None else f"{row.victim_cores:+.3f}"
        figures = (f"{row.steps_per_second:.1f}", f"{row.ratio:.2f}", cores, f"{row.megabytes_per_second:.1f}")
        table.add_row(row.flood, *figures, "yes" if row.banned else "no")
    return table
