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
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from p2pnode.errors import P2PNodeError
from p2pnode.home import Home
from p2pnode.learning import catalogue
from p2pnode.ordeal import ordeals
from p2pnode.perturbation import RECOVER_S
from p2pnode.perturbed import Disturbed, Say, spoken
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

ACCURACY_LOSS_MAX = 0.05
"""How much worse than the worst undisturbed node a disturbed one may learn: an equal share of the steps are not its own
while it is away, and 360 samples measure to about 0.01."""

GROWTH_MAX = 1.25
"""How much more memory a node may hold in the last quarter of the run than in the first."""


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
            return cls(0, None, spoken(home))
        return cls(checkpoint.step, digest_of(checkpoint.tensors["model"]).hex(), spoken(home))

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
        if one.disturbance.kind == ALL and one.first_s > RECOVER_S:
            told.append(f"learning went on {one.first_s:g} s after all were killed, not within {RECOVER_S:g} s")
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


class Soak(Disturbed):
    """A testnet that is disturbed by a schedule.

    Args:
        plan: what to run; its steps should take a little longer than the disturbances do.
        disturbances: what happens, in order.
        until_s: no disturbance begins after so many seconds.
        say: takes a line on each disturbance that is over.
    """

    def __init__(self, plan: Plan, disturbances: Iterator[Disturbance], until_s: float, say: Say) -> None:
        super().__init__(plan, time.time(), self._sample)
        self.recovered: list[Recovered] = []
        self.lost: list[str] = []
        self.memory = Memory()
        self._disturbances = disturbances
        self._until_s = until_s
        self._say = say
        self._torn_bytes = 0
        self._left: dict[str, Left] = {}

    async def _disturb(self) -> None:
        await self._wait(lambda: all(node.step > 0 for node in self.honest), "the first steps")
        deadline = time.monotonic() + self._until_s
        for disturbance in self._disturbances:
            await asyncio.sleep(disturbance.pause_s)
            if time.monotonic() > deadline or any(node.over for node in self.honest):
                return
            self._acting = True
            await self._do(disturbance)
            self.recovered.append(await self._recovery(disturbance))
            self._look_for_losses()
            self._acting = False

    async def _do(self, disturbance: Disturbance) -> None:
        nodes = [self._by_name[name] for name in disturbance.nodes]
        self._torn_bytes = disturbance.torn_bytes if disturbance.kind == "tear" else 0
        self._down = {node.name for node in nodes}
        doing = {"freeze": self._pause, "full": self._fill, "restart": self._restart}
        await doing.get(disturbance.kind, self._kill)(nodes, disturbance.down_s)
        self._down = set()

    async def _recovery(self, disturbance: Disturbance) -> Recovered:
        what = f"{disturbance.kind} of {', '.join(disturbance.nodes)}"
        outcome = await self._until_stepped(self.plan.stall_s)
        if outcome.first_s is None or outcome.seconds is None:
            missing = ", ".join(outcome.missing)
            raise TestnetFailed(f"{missing} took no new step in {self.plan.stall_s:g} s after {what}")
        self._say(f"{what}: all stepped again after {outcome.seconds} s")
        return Recovered(disturbance, outcome.first_s, outcome.seconds)

    def _ended(self, nodes: Sequence[NodeView]) -> None:
        """Tear what is to be torn, and see what is left."""
        for node in nodes:
            tear(node.home, self._torn_bytes)
        assert self.genesis is not None
        self._left = {node.name: Left.by(node.home, self.genesis.network) for node in nodes}

    def _look_for_losses(self) -> None:
        """Compare what each node that was down began again with to what it had left."""
        for name, left in self._left.items():
            begun = _begun(self._by_name[name].home)
            lost = left.lost(begun["step"], begun["model"])
            if lost is not None:
                self.lost.append(f"{name} {lost}")
        self._left = {}

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


def _begun(home: Home) -> dict[str, Any]:
    """What a node said of itself when it began the last time."""
    lines = home.log.read_text().splitlines()
    said = (json.loads(line) for line in reversed(lines) if '"node starts"' in line)
    return next(line for line in said if line["event"] == "node starts")


def _resident_mib(node: NodeView) -> float | None:
    try:
        pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
    except (OSError, ValueError):  # it is just ending, or starting
        return None
    return pages * resource.getpagesize() / 2**20


async def soak(out: Path, minutes: float, seed: int, stall_s: float, say: Say) -> Report:
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
    accused = Table("accused", "evidence files")
    for name, files in sorted(Counter(report.accused).items()):
        accused.add_row(name, str(files))
    yield accused


def command(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long to disturb.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the schedule and of the training.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the networks.")] = Path("runs/soak"),
    stall: Annotated[float, typer.Option(help="Give up after so many seconds without recovery.")] = 120.0,
    perturbations: Annotated[
        int, typer.Option(min=0, help="Instead of one long run, so many short ones, each perturbed at random.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print for machines.")] = False,
) -> None:
    """Disturb a network of seven, one of them lying, and see that it keeps its promises. Takes twice as long.

    With --perturbations N, networks of five with the seeds from --seed on, each perturbed by another draw: some 20
    seconds each, as `p2pnode testnet --perturb random` does it.
    """
    people = Console(stderr=True)
    names = [f"node{i}" for i in range(NODES)]
    began = time.monotonic()

    def say(line: str) -> None:
        people.print(f"{time.monotonic() - began:7.1f} s  {line}", markup=False, highlight=False, soft_wrap=True)

    try:
        if perturbations:
            told = asyncio.run(ordeals(out, range(seed, seed + perturbations), stall, say))
            wrong, shown, tables = told.failures, {**asdict(told), "kinds": told.by_kind()}, [told.table()]
        else:
            report = asyncio.run(soak(out, minutes, seed, stall, say))
            wrong = failures(report, names[:-LIARS], names[-LIARS:])
            shown, tables = {**asdict(report), "kinds": by_kind(report.recovered)}, list(_tables(report))
    except P2PNodeError as error:
        people.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
    if as_json:
        print(json.dumps({**shown, "failures": wrong}, indent=2))
    else:
        for table in tables:
            Console().print(table)
    for sentence in wrong:
        people.print(sentence, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_FAILED if wrong else EXIT_GOOD)


if __name__ == "__main__":
    typer.run(command)
