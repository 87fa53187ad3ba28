"""A network under disturbances for minutes or days: processes killed, frozen and stopped, files torn, disks full.

Seven real nodes, one of them a liar that equivocates, learn on loopback while one honest node at a time is disturbed,
by a schedule that follows from the seed; with the liar that is one more than a quorum of n−f can do without, so all
wait until it is back. Now and then all seven are killed at once. Afterwards every promise is looked at: everyone came
back with what it had kept and stepped again, learned as well as a network that was left alone, accused nobody but the
liar, and took no more memory.

Run as `python -m p2pnode.soak`, which `scripts/soak` does.
"""

import asyncio
import json
import os
import random
import resource
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from p2pnode.errors import P2PNodeError
from p2pnode.home import Home
from p2pnode.learning import catalogue
from p2pnode.process import EXIT_FAILED, EXIT_GOOD
from p2pnode.storage.checkpoint import load_checkpoint
from p2pnode.storage.vectors import digest_of
from p2pnode.testnet import NodeView, Plan, Testnet, TestnetFailed

NODES, LIARS = 7, 1
ATTACK = "equivocate"

KINDS = ("kill", "freeze", "restart", "tear", "full")
ALL = "all"
ALL_EVERY = 5
"""Disturbances from one at which all nodes are killed to the next."""

DOWN_S = (0.2, 4.0)
"""How long a node is away: from too short for its links to notice, to many steps of its peers."""

PAUSE_S = (0.5, 3.0)
"""How long the network is left alone when it has recovered."""

CALIBRATION_STEPS = 60
"""Enough to learn how many steps a second this machine takes."""

FULL_BYTES = 16 * 2**10
"""Largest file on a disk that is full: less than one vector, more than what a node says of it."""

ACCURACY_LOSS_MAX = 0.05
"""How much worse than the worst undisturbed node a disturbed one may learn: an equal share of the steps are not its own
while it is away, and 360 samples measure to about 0.01."""

GROWTH_MAX = 1.25
"""How much more memory a node may hold in the last quarter of the run than in the first."""

RECOVERY_S = 10.0
"""Of all that were killed at once, and started again, one takes a step that none had taken within so many seconds."""

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What happens to some nodes.

    Args:
        kind: one of `KINDS`, or `ALL`.
        nodes: to whom.
        down_s: how long they are away.
        pause_s: how long the network was left alone before.
        torn_bytes: of a record that was begun at the crash, so many are in the journal.
    """

    kind: str
    nodes: tuple[str, ...]
    down_s: float
    pause_s: float
    torn_bytes: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """A disturbance that is over.

    Args:
        disturbance: what it was.
        first_s: seconds from its end until a node took a step that none had taken before.
        seconds: the same until every honest node had stepped again.
    """

    disturbance: Disturbance
    first_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Left:
    """What a node that ended left on its disk.

    Args:
        step: of its checkpoint; 0 where there is none.
        model: the digest of the checkpoint's model, in hex; None where there is none.
        spoken: the last step it proposed a vector in; −1 where it proposed none.
    """

    step: int
    model: str | None
    spoken: int

    @classmethod
    def by(cls, home: Home, network: bytes) -> "Left":
        checkpoint = load_checkpoint(home.checkpoint, network)
        if checkpoint is None:
            return cls(0, None, _spoken(home))
        return cls(checkpoint.step, digest_of(checkpoint.tensors["model"]).hex(), _spoken(home))

    def lost(self, step: int, model: str) -> str | None:
        """What of it a node has lost that began again at this step with this model; None if nothing."""
        if step < max(self.step, self.spoken):
            return f"began again at step {step}, though it had kept step {self.step} and spoken in step {self.spoken}"
        if self.model not in (None, model):
            return f"began again with another model than the one it had kept of step {self.step}"
        return None


@dataclass(slots=True)
class Report:
    """What came of a soak.

    Args:
        recovered: every disturbance, in order.
        lost: what nodes had kept and did not begin again with, a sentence each.
        accuracy: of each honest node that finished.
        undisturbed: the same of the network that was left alone.
        accused: by each evidence file.
        memory: MiB that each node held at most, in the first and in the last quarter of the run.
    """

    seed: int
    minutes: float
    steps: int
    recovered: list[Recovered] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    undisturbed: dict[str, float] = field(default_factory=dict)
    accused: list[str] = field(default_factory=list)
    memory: dict[str, tuple[float, float]] = field(default_factory=dict)


def schedule(seed: int, honest: Sequence[str], liars: Sequence[str]) -> Iterator[Disturbance]:
    """Disturbances without end, the same for the same seed; each kind as often, to one honest node or to all nodes."""
    draw = random.Random(seed)
    deck: list[str] = []
    while True:
        for _ in range(ALL_EVERY - 1):
            if not deck:
                deck = draw.sample(KINDS, len(KINDS))
            yield _drawn(draw, deck.pop(), (draw.choice(honest),))
        yield _drawn(draw, ALL, (*honest, *liars))


def _drawn(draw: random.Random, kind: str, nodes: tuple[str, ...]) -> Disturbance:
    # A journal's first record, of the key, takes 50 bytes.
    return Disturbance(kind, nodes, draw.uniform(*DOWN_S), draw.uniform(*PAUSE_S), draw.randint(1, 49))


def failures(report: Report, honest: Sequence[str], liars: Sequence[str]) -> list[str]:
    """What was promised and is not so, a sentence each."""
    told = []
    if not report.recovered:
        told.append("nothing was disturbed: the run was too short")
    told += report.lost
    for one in report.recovered:
        if one.disturbance.kind == ALL and one.first_s > RECOVERY_S:
            told.append(f"learning went on {one.first_s:g} s after all were killed, not within {RECOVERY_S:g} s")
    worst = min(report.undisturbed.values())
    for name in honest:
        accuracy = report.accuracy.get(name)
        if accuracy is None:
            told.append(f"{name} did not finish")
        elif accuracy < worst - ACCURACY_LOSS_MAX:
            told.append(f"{name} learned to {accuracy:.4f} only; the worst undisturbed node to {worst:.4f}")
    told += [f"{name} is accused, and did not lie" for name in sorted(set(report.accused) - set(liars))]
    if not set(report.accused) & set(liars):
        told.append("no liar was convicted")
    for name, (first, last) in sorted(report.memory.items()):
        if last > first * GROWTH_MAX:
            told.append(f"{name} took {last:.0f} MiB in the end, after {first:.0f} MiB in the beginning")
    return told


class Memory:
    """What each node's process holds, over the run."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def note(self, name: str, at: float, mib: float) -> None:
        """Of the samples of one second only the largest counts."""
        seen = self._seen[name]
        if seen and at - seen[-1][0] < 1:
            seen[-1] = (seen[-1][0], max(seen[-1][1], mib))
        else:
            seen.append((at, mib))

    def quarters(self) -> dict[str, tuple[float, float]]:
        """The most in the first and in the last quarter of what was seen."""
        quarter = {name: -(-len(seen) // 4) for name, seen in self._seen.items()}
        return {n: (_most(seen[: quarter[n]]), _most(seen[-quarter[n] :])) for n, seen in self._seen.items()}


def _most(seen: Sequence[tuple[float, float]]) -> float:
    return round(max(mib for _, mib in seen), 1)


class Soak(Testnet):
    """A testnet that is disturbed.

    Args:
        plan: what to run; its steps should take a little longer than the disturbances do.
        disturbances: what happens, in order.
        until_s: no disturbance begins after so many seconds.
        say: takes a line on each disturbance that is over.
    """

    def __init__(
        self, plan: Plan, disturbances: Iterator[Disturbance], until_s: float, say: Callable[[str], None]
    ) -> None:
        super().__init__(plan, time.time(), self._sample)
        self.recovered: list[Recovered] = []
        self.lost: list[str] = []
        self.memory = Memory()
        self._disturbances = disturbances
        self._until_s = until_s
        self._say = say
        self._down: set[str] = set()
        self._left: dict[str, Left] = {}
        self._by_name = {node.name: node for node in self.nodes}

    async def _until_finished(self) -> None:
        self._disturbing = asyncio.create_task(self._disturb())
        try:
            await super()._until_finished()
        finally:
            self._disturbing.cancel()
            await asyncio.gather(self._disturbing, return_exceptions=True)

    def _all_over(self) -> bool:
        return not self._down and super()._all_over()

    def _check(self) -> None:
        if self._disturbing.done():
            self._disturbing.result()
        for node in self.honest:
            if node.exit not in (None, EXIT_GOOD) and node.name not in self._down:
                raise TestnetFailed(f"{node.name} ended by itself, with exit code {node.exit}: see {node.home.path}")
        self._check_spawner()

    # Disturbing.

    async def _disturb(self) -> None:
        await self._wait(lambda: all(node.step > 0 for node in self.honest), "the first steps")
        deadline = time.monotonic() + self._until_s
        for disturbance in self._disturbances:
            await asyncio.sleep(disturbance.pause_s)
            if time.monotonic() > deadline or any(node.over for node in self.honest):
                return
            nodes = [self._by_name[name] for name in disturbance.nodes]
            self._down = {node.name for node in nodes}
            await {"freeze": self._freeze, "full": self._fill}.get(disturbance.kind, self._end)(disturbance, nodes)
            self._down = set()
            first_s, seconds = await self._until_stepped(f"{disturbance.kind} of {', '.join(disturbance.nodes)}")
            self.recovered.append(Recovered(disturbance, first_s, seconds))
            self._look_for_losses()
            self._say(f"{disturbance.kind} {', '.join(disturbance.nodes)}: all stepped again after {seconds} s")

    async def _until_stepped(self, since: str) -> tuple[float, float]:
        """Wait until a node took a step that none had taken, and every honest one a step that it had not; how long it
        took them."""
        before, began = {node.name: node.step for node in self.honest}, time.monotonic()
        # Who spoke in a step may be in the one after it, and train.
        furthest = max(_spoken(node.home) for node in self.honest) + 1
        await self._wait(
            lambda: any(node.result is not None or node.step > furthest for node in self.honest),
            f"a step that none had taken after {since}",
        )
        first_s = round(time.monotonic() - began, 2)
        await self._wait(
            lambda: all(node.result is not None or node.step > before[node.name] for node in self.honest),
            f"a step of everyone after {since}",
        )
        return first_s, round(time.monotonic() - began, 2)

    def _look_for_losses(self) -> None:
        """Compare what each node that was down began again with to what it had left."""
        for name, left in self._left.items():
            begun = _begun(self._by_name[name].home)
            lost = left.lost(begun["step"], begun["model"])
            if lost is not None:
                self.lost.append(f"{name} {lost}")
        self._left = {}

    async def _freeze(self, disturbance: Disturbance, nodes: Sequence[NodeView]) -> None:
        for node in nodes:
            os.kill(_pid(node), signal.SIGSTOP)
        await asyncio.sleep(disturbance.down_s)
        for node in nodes:
            os.kill(_pid(node), signal.SIGCONT)

    async def _fill(self, disturbance: Disturbance, nodes: Sequence[NodeView]) -> None:
        """No file of the node may grow beyond a size: its next vector has no room."""
        for node in nodes:
            _, hard = resource.prlimit(_pid(node), resource.RLIMIT_FSIZE)
            resource.prlimit(_pid(node), resource.RLIMIT_FSIZE, (FULL_BYTES, hard))
        await self._start_again(disturbance, nodes, EXIT_FAILED)

    async def _end(self, disturbance: Disturbance, nodes: Sequence[NodeView]) -> None:
        graceful = disturbance.kind == "restart"
        for node in nodes:
            os.kill(_pid(node), signal.SIGTERM if graceful else signal.SIGKILL)
        await self._start_again(disturbance, nodes, EXIT_GOOD if graceful else -signal.SIGKILL)

    async def _start_again(self, disturbance: Disturbance, nodes: Sequence[NodeView], wanted: int) -> None:
        await self._wait(lambda: all(node.exit is not None for node in nodes), f"the end of {disturbance.nodes}")
        for node in nodes:
            if node.exit != wanted:
                raise TestnetFailed(f"{node.name}: exit code {node.exit} after {disturbance.kind}, not {wanted}")
        if disturbance.kind == "tear":
            for node in nodes:
                tear(node.home, disturbance.torn_bytes)
        assert self.genesis is not None
        self._left = {node.name: Left.by(node.home, self.genesis.network) for node in nodes}
        await asyncio.sleep(disturbance.down_s)
        for node in nodes:
            node.exit = None
            self._start(node)

    async def _wait(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.plan.stall_s
        while not true():
            if time.monotonic() > deadline:
                raise TestnetFailed(f"not within {self.plan.stall_s:g} s: {what}; {self._why_stalled()}")
            await asyncio.sleep(_POLL_S)

    def _sample(self, nodes: list[NodeView]) -> None:
        for node in nodes:
            if node.status and node.name not in self._down and not node.over:
                mib = _resident_mib(node)
                if mib is not None:
                    self.memory.note(node.name, time.monotonic(), mib)


def tear(home: Home, size: int) -> None:
    """Leave of a record what a power cut may leave that was not flushed: its first bytes, at the journal's end."""
    with home.journal.open("rb+") as file:
        begun = file.read(size)
        file.seek(0, os.SEEK_END)
        file.write(begun)


def _spoken(home: Home) -> int:
    """The last step that a node made a vector durable in, and so may have spoken in."""
    return max((int(file.name.partition("-")[0]) for file in home.outbox.glob("*.safetensors")), default=-1)


def _begun(home: Home) -> dict[str, Any]:
    """What a node said of itself when it began the last time."""
    lines = home.log.read_text().splitlines()
    said = (json.loads(line) for line in reversed(lines) if '"node starts"' in line)
    return next(line for line in said if line["event"] == "node starts")


def _pid(node: NodeView) -> int:
    return int(node.home.pid.read_text())


def _resident_mib(node: NodeView) -> float | None:
    try:
        pages = int(Path(f"/proc/{_pid(node)}/statm").read_text().split()[1])
    except (OSError, ValueError):  # it is just ending, or starting
        return None
    return pages * resource.getpagesize() / 2**20


async def soak(out: Path, minutes: float, seed: int, stall_s: float, say: Callable[[str], None]) -> Report:
    """Measure this machine, disturb a network for so long, and run the same undisturbed.

    Raises:
        TestnetFailed: if a node did not come back, or did not end as it should.
    """
    plan = Plan(out / "calibration", _values(seed, CALIBRATION_STEPS), NODES, LIARS, (ATTACK,), None, stall_s)
    calibration = await Testnet(plan, time.time(), lambda nodes: None).run()
    steps = max(CALIBRATION_STEPS, int(calibration["steps_per_second"] * 60 * minutes))
    plan = replace(plan, out=out / "disturbed", values=_values(seed, steps))
    say(f"{steps} steps, {calibration['steps_per_second']} a second where nothing is disturbed")
    names = [f"node{i}" for i in range(NODES)]
    net = Soak(plan, schedule(seed, names[:-LIARS], names[-LIARS:]), 60 * minutes, say)
    disturbed = await net.run()
    say("the same undisturbed")
    undisturbed = await Testnet(replace(plan, out=out / "undisturbed"), time.time(), lambda nodes: None).run()
    return Report(
        seed,
        minutes,
        steps,
        net.recovered,
        net.lost,
        _accuracy(disturbed),
        _accuracy(undisturbed),
        [row["accused"] for row in disturbed["evidence"]],
        net.memory.quarters(),
    )


def _accuracy(summary: Mapping[str, Any]) -> dict[str, float]:
    return {node["name"]: node["accuracy"] for node in summary["honest"] if node["accuracy"] is not None}


def _values(seed: int, steps: int) -> dict[str, Any]:
    defaults = catalogue.find("digits")
    training = {"task": "digits", "local_batch": defaults.local_batch, "momentum": defaults.momentum, "lr": defaults.lr}
    return {"seed": seed, "f": LIARS, "recipe": {"name": "trimmed"}, "training": {**training, "steps": steps}}


def by_kind(recovered: Sequence[Recovered]) -> dict[str, dict[str, float]]:
    """How many there were of each kind, and the seconds until everyone stepped again."""
    seconds = {kind: [one.seconds for one in recovered if one.disturbance.kind == kind] for kind in (*KINDS, ALL)}
    return {
        kind: {"count": len(took), "median_s": round(statistics.median(took), 2), "most_s": max(took)}
        for kind, took in seconds.items()
        if took
    }


def _tables(report: Report) -> Iterator[Table]:
    disturbed = Table("disturbance", "times", "s, median", "s, most", title=f"seed {report.seed}, {report.steps} steps")
    for kind, row in by_kind(report.recovered).items():
        disturbed.add_row(kind, *(f"{row[key]:g}" for key in ("count", "median_s", "most_s")))
    yield disturbed
    nodes = Table("node", "accuracy", "undisturbed", "MiB, first quarter", "MiB, last quarter")
    for name, (first, last) in sorted(report.memory.items()):
        accuracies = (report.accuracy.get(name), report.undisturbed.get(name))
        shown = ("–" if accuracy is None else f"{accuracy:.4f}" for accuracy in accuracies)
        nodes.add_row(name, *shown, f"{first:.0f}", f"{last:.0f}")
    yield nodes


def command(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long to disturb.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the schedule and of the training.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the networks.")] = Path("runs/soak"),
    stall: Annotated[float, typer.Option(help="Give up after so many seconds without recovery.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print for machines.")] = False,
) -> None:
    """Disturb a network of seven, one of them lying, and see that it keeps its promises. Takes twice as long."""
    people = Console(stderr=True)
    began = time.monotonic()

    def say(line: str) -> None:
        people.print(f"{time.monotonic() - began:7.1f} s  {line}", markup=False, highlight=False, soft_wrap=True)

    try:
        report = asyncio.run(soak(out, minutes, seed, stall, say))
    except P2PNodeError as error:
        people.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
    names = [f"node{i}" for i in range(NODES)]
    wrong = failures(report, names[:-LIARS], names[-LIARS:])
    if as_json:
        print(json.dumps({**asdict(report), "kinds": by_kind(report.recovered), "failures": wrong}, indent=2))
    else:
        for table in _tables(report):
            Console().print(table)
        Console().print(f"evidence: {len(report.accused)} files, against {', '.join(sorted(set(report.accused)))}")
    for sentence in wrong:
        people.print(sentence, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_FAILED if wrong else EXIT_GOOD)


if __name__ == "__main__":
    typer.run(command)
