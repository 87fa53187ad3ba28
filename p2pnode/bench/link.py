"""What a link costs: a vector between two processes, beside a bare connection that carries the same bytes.

Both take their turns again and again, and of each the median counts. The bare connection reads into memory that is
there before; the link asks for the vector's memory, hashes it, and checks the digest. Between the turns a small message
goes to and fro on the control lane, while nothing else is sent and while a vector is.
"""

import asyncio
import json
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from p2pnode.bench.app import app
from p2pnode.bench.ends import (
    BACKLOG_BYTES_MAX,
    BARE,
    HERE,
    HOST,
    LINK,
    PING,
    PLENTY,
    PREPARE,
    READY,
    BareReceiver,
)
from p2pnode.bench.memory import forget_peak, peak
from p2pnode.errors import LinkError
from p2pnode.home import Home
from p2pnode.init import Place, found
from p2pnode.net.budget import Budget
from p2pnode.net.lane import BulkLane, ControlLane
from p2pnode.net.tls import server_context
from p2pnode.storage.vectors import Announced, Verdict
from protocols.header import Digest, Slot

SIZES = (100 * 10**6, 400 * 10**6)
QUICK_SIZES = (10**6, 4 * 10**6)
REPEATS, QUICK_REPEATS = 11, 2

PINGS = 100
"""Round trips that are timed in each repeat while nothing else is sent; and as many as fit beside one vector."""


@dataclass(frozen=True, slots=True)
class Row:
    """One size under one TLS setting.

    Args:
        bytes: of the vector.
        tls: whether both connections run under mutual TLS 1.3.
        seconds: from asking for the vector until it is here with its digest checked.
        ratio_to_bare: the bare connection's seconds, divided by these; 1 is as fast.
        extra_memory_mib: the most memory that the receiver held beside the vector; None where Linux is not.
        control_p50_idle_ms, control_p99_idle_ms: round trip of a small message, while nothing else is sent.
        control_p50_bulk_ms, control_p99_bulk_ms: the same, while vectors are.
    """

    bytes: int
    tls: bool
    seconds: float
    ratio_to_bare: float
    extra_memory_mib: float | None
    control_p50_idle_ms: float
    control_p99_idle_ms: float
    control_p50_bulk_ms: float
    control_p99_bulk_ms: float


@app.command()
def link(
    quick: Annotated[bool, typer.Option("--quick", help="Small vectors, few repeats.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Time a vector across a link beside a bare connection, and small messages beside the vector."""
    rows = uvloop.run(measure(QUICK_SIZES if quick else SIZES, QUICK_REPEATS if quick else REPEATS))
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(asdict(row)) + "\n")
    else:
        console = Console()
        console.print(_table(rows))
        console.print(
            "Medians of interleaved repeats, between two processes. Extra: beside the vector, at the receiver."
        )


async def measure(sizes: Sequence[int], repeats: int) -> list[Row]:
    """The rows of all sizes, with TLS and without; progress goes to stderr."""
    rows = []
    with Progress(console=Console(stderr=True), transient=True) as progress, tempfile.TemporaryDirectory() as folder:
        bar = progress.add_task("", total=2 * len(sizes) * repeats)
        for tls in (True, False):
            async with _far_end(Path(folder) if tls else None) as near:
                for size in sizes:
                    progress.update(bar, description=f"{size:,} bytes, {'TLS' if tls else 'no TLS'}")
                    rows.append(await _measure_size(near, size, tls, repeats, partial(progress.advance, bar)))
    return rows


class _NearEnd:
    """Asks the far end for vectors and round trips, and takes them."""

    def __init__(self) -> None:
        self.control = ControlLane(self, Budget(PLENTY), BACKLOG_BYTES_MAX)
        self.bulk = BulkLane(self, Budget(PLENTY), BACKLOG_BYTES_MAX)
        self.bare = BareReceiver()
        self._future: Callable[[], asyncio.Future[None]] = asyncio.get_running_loop().create_future
        self.told = self._future()
        """Done at the far end's next word, the first of which says that it is here."""
        self._arrived = self._future()

    async def tell(self, message: bytes) -> None:
        """Say something that the far end answers, and wait for the answer."""
        self.told = self._future()
        self.control.send(message)
        await self.told

    def ask_link(self) -> "asyncio.Future[None]":
        """Ask for the vector over the link; done when it is here."""
        self._arrived = self._future()
        self.control.send(LINK)
        return self._arrived

    def ask_bare(self) -> "asyncio.Future[None]":
        full = self.bare.await_full()
        self.control.send(BARE)
        return full

    def message(self, data: bytes) -> None:
        assert data in (HERE, READY, PING)
        self.told.set_result(None)

    def judge(self, slot: Slot, digest: Digest, nbytes: int) -> Verdict:
        return Verdict.TAKE

    def vector(self, digest: Digest, vector: Announced) -> None:
        self._arrived.set_result(None)

    def again(self, digest: Digest) -> None:
        raise AssertionError("all of it is sent")

    def lost(self, reason: BaseException | None) -> None:
        """A lane that was lost too early must not leave anyone waiting."""
        for future in (self.told, self._arrived, self.bare.full):
            if not future.done():
                future.set_exception(reason or ConnectionResetError("the far end is gone"))
                future.exception()  # seen: whoever waits for it is told anyway


@asynccontextmanager
async def _far_end(folder: Path | None) -> AsyncIterator[_NearEnd]:
    """The two processes connected, under TLS by keys made in the folder, or without."""
    near = _NearEnd()
    context, home = _keys(folder) if folder is not None else (None, [])
    loop = asyncio.get_running_loop()
    lanes: dict[str, Callable[[], asyncio.BaseProtocol]] = {
        "control": lambda: near.control,
        "bulk": lambda: near.bulk,
        "bare": lambda: near.bare,
    }
    servers = {name: await loop.create_server(lane, HOST, 0, ssl=context) for name, lane in lanes.items()}
    ports = json.dumps({name: server.sockets[0].getsockname()[1] for name, server in servers.items()})
    far = await asyncio.create_subprocess_exec(sys.executable, "-m", "p2pnode.bench.ends", ports, *home)
    ended = asyncio.create_task(far.wait())
    try:
        await asyncio.wait([near.told, ended], return_when=asyncio.FIRST_COMPLETED)
        if not near.told.done():
            raise LinkError("the far end ended before it was connected; what it said stands above")
        yield near
    finally:
        near.control.close()
        for server in servers.values():
            server.close()
        await ended


def _keys(folder: Path) -> tuple[ssl.SSLContext, list[str]]:
    """The receiver's side of a network of two, and the sender's home."""
    places = [Place(name, f"{HOST}:{port}", {}) for port, name in enumerate(("receiver", "sender"), start=1)]
    training = {"task": "digits", "steps": 1, "local_batch": 1, "momentum": 0.0, "lr": 1.0}
    genesis = found(folder, places, {"f": 0, "recipe": {"name": "dsgd"}, "training": training})
    return server_context(Home(folder / "receiver"), genesis), [str(folder / "sender")]


@dataclass(slots=True)
class _Taken:
    """What the repeats took."""

    link: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    extra: list[int] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    bulk: list[float] = field(default_factory=list)


async def _measure_size(near: _NearEnd, size: int, tls: bool, repeats: int, advance: Callable[[], Any]) -> Row:
    near.bare.prepare(bytearray(size))
    await near.tell(b"%s %d" % (PREPARE, size))
    taken, ping = _Taken(), partial(near.tell, PING)
    for _ in range(repeats):
        taken.bare.append(await _seconds(near.ask_bare))
        before = forget_peak()
        taken.link.append(await _seconds(near.ask_link))
        if before is not None:
            taken.extra.append(peak() - before - size)
        taken.idle += [await _seconds(ping) for _ in range(PINGS)]
        vector = near.ask_link()
        while not vector.done():
            taken.bulk.append(await _seconds(ping))
        await vector
        advance()
    seconds = statistics.median(taken.link)
    idle, bulk = _percentiles_ms(taken.idle), _percentiles_ms(taken.bulk)
    ratio = statistics.median(taken.bare) / seconds
    extra = max(0, max(taken.extra)) / 2**20 if taken.extra else None
    return Row(size, tls, seconds, ratio, extra, *idle, *bulk)


async def _seconds(act: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await act()
    return time.perf_counter() - began


def _percentiles_ms(taken: Iterable[float]) -> tuple[float, float]:
    """The median and the 99th of a hundred."""
    ordered = sorted(taken)
    return 1e3 * ordered[len(ordered) // 2], 1e3 * ordered[len(ordered) * 99 // 100]


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="A vector across a link", title_justify="left")
    for heading in ("MB", "TLS", "ms", "× bare", "extra MiB", "idle p50 ms", "idle p99", "bulk p50", "bulk p99"):
        table.add_column(heading, justify="right")
    for row in rows:
        extra = "" if row.extra_memory_mib is None else f"{row.extra_memory_mib:.1f}"
        trips = (row.control_p50_idle_ms, row.control_p99_idle_ms, row.control_p50_bulk_ms, row.control_p99_bulk_ms)
        table.add_row(
            f"{row.bytes / 1e6:.0f}",
            "yes" if row.tls else "no",
            f"{1e3 * row.seconds:.1f}",
            f"{row.ratio_to_bare:.2f}",
            extra,
            *(f"{trip:.2f}" for trip in trips),
        )
    return table
