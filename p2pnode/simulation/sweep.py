"""Many runs: seeds in turn over attacks and schedules, on all cores, summed up."""

import gc
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from p2pnode.byzantine import check_attacks
from p2pnode.errors import ConfigError
from p2pnode.genesis import Training
from p2pnode.recipe import BROADCAST_BOUNDS, BROADCASTS, RECIPES, Recipe, choose, known
from p2pnode.simulation.checks import Violation
from p2pnode.simulation.cost import quiet
from p2pnode.simulation.diagram import diagram
from p2pnode.simulation.learner import Machine
from p2pnode.simulation.network import Adopted, Delivery, Network
from p2pnode.simulation.scenario import Scenario, one_broadcast
from p2pnode.simulation.schedule import SCHEDULES
from p2pnode.storage.vectors import Vector
from protocols.committee import MEMBERS_MAX, Committee
from protocols.header import PeerId

ALL = "all"

ATTACKS_IN_TURN: tuple[tuple[str, ...], ...] = (
    ("silent",),
    ("equivocate",),
    ("selective",),
    ("equivocate", "selective"),
    ("withhold",),
    ("forge", "selective"),
    ("twins",),
    ("alie",),
    ("nan", "equivocate"),
    ("random", "withhold"),
    ("sign-flip", "forge"),
)
"""What `ALL` stands for: each kind of lie alone, and with those that make it worse."""

DIAGRAM_DELIVERIES = 60
"""Deliveries that a diagram shows: the last ones."""

SUB_ROUNDS_MAX = 64
"""As in a genesis."""

_CHUNK = 20
"""Runs that a worker takes at a time."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to run for every seed.

    Args:
        nodes, byzantine, f: n, how many lie, how many the protocols are told to tolerate.
        recipe: a recipe's name, or a broadcast's, for one broadcast alone.
        broadcast, rule, sub_rounds: as in `p2pnode.recipe.choose`.
        attacks: what the liars do, in turn.
        schedules: keys of `SCHEDULES`, in turn.
        steps: learning steps.
        train: how models are trained, in as many steps; None for small vectors of chance.
        data_dir: folder of the task's files.
        device: where models are trained.
        real_signatures: Ed25519 instead of ideal signatures.
        beyond_the_bound: run also what no theorem covers.
        options: further choices of `p2pnode.recipe.choose`, by name.
    """

    nodes: int
    byzantine: int
    f: int
    recipe: str
    attacks: tuple[tuple[str, ...], ...]
    schedules: tuple[str, ...]
    steps: int
    broadcast: str | None = None
    rule: str | None = None
    sub_rounds: int | None = None
    train: Training | None = None
    data_dir: Path | None = None
    device: str = "cpu"
    real_signatures: bool = False
    beyond_the_bound: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    def scenario(self, seed: int) -> Scenario:
        """What this seed runs."""
        in_turn = self.attacks if self.byzantine else ((),)
        attacks = in_turn[seed % len(in_turn)]
        schedule = self.schedules[seed // len(in_turn) % len(self.schedules)]
        return _scenario(self, attacks, schedule)

    def checked(self) -> "Sweep":
        """Itself, if every choice is one.

        Raises:
            ConfigError: for an unknown name, or where no theorem covers the choice.
        """
        if self.nodes > MEMBERS_MAX:
            raise ConfigError(f"nodes = {self.nodes}: too many. Remedy: choose at most {MEMBERS_MAX}")
        if self.byzantine >= self.nodes:
            raise ConfigError(
                f"byzantine = {self.byzantine}: of {self.nodes} nodes one at least is honest. Remedy: choose fewer"
            )
        if not 0 <= self.f < self.nodes:
            raise ConfigError(f"f = {self.f}: of {self.nodes} nodes one at least is honest. Remedy: choose a smaller f")
        try:
            check_attacks(name for attacks in self.attacks for name in attacks if name != "twins")
        except ConfigError as error:
            raise ConfigError(f"{error}; or twins, or {ALL} of them in turn") from error
        for schedule in self.schedules:
            if schedule not in SCHEDULES:
                known = ", ".join([ALL, *SCHEDULES])
                raise ConfigError(f"schedule = {schedule!r}: no such schedule. Remedy: choose one of {known}")
        if self.byzantine > self.f and not self.beyond_the_bound:
            raise ConfigError(
                f"byzantine = {self.byzantine}: more than f={self.f}. Remedy: choose fewer, or raise f, or add "
                "--beyond-the-bound to see it break"
            )
        if self.sub_rounds is not None and not 1 <= self.sub_rounds <= SUB_ROUNDS_MAX:
            raise ConfigError(
                f"sub-rounds = {self.sub_rounds}: out of bounds. Remedy: choose from 1 to {SUB_ROUNDS_MAX}"
            )
        if self.recipe in BROADCASTS and any(
            choice is not None for choice in (self.broadcast, self.rule, self.sub_rounds)
        ):
            raise ConfigError(
                f"recipe = {self.recipe!r}: of one broadcast alone nothing is mixed. Remedy: leave out --rule, "
                "--broadcast and --sub-rounds, or choose a recipe"
            )
        self.scenario(0)
        return self

    def plan(self) -> Recipe:
        """The recipe, with every choice made."""
        committee = Committee(self.nodes, self.f)
        if known("recipe", self.recipe, (*RECIPES, *BROADCASTS)) not in BROADCASTS:
            return choose(
                self.recipe,
                committee,
                self.broadcast,
                self.rule,
                self.sub_rounds,
                guarded=not self.beyond_the_bound,
                **dict(self.options),
            )
        bound = BROADCAST_BOUNDS[self.recipe]
        if not self.beyond_the_bound and not bound.covers(committee):
            least = bound.least(self.f)
            raise ConfigError(
                f"f = {self.f}: {self.recipe} broadcast needs {bound}. Remedy: use n ≥ {least} nodes, or choose "
                f"f={bound.tolerated(self.nodes)}, or add --beyond-the-bound to see it break"
            )
        return one_broadcast(self.recipe)


@cache
def _scenario(sweep: Sweep, attacks: tuple[str, ...], schedule: str) -> Scenario:
    recipe = sweep.plan()
    asked = [sweep.recipe]
    asked += ["--broadcast", sweep.broadcast] if sweep.broadcast else []
    asked += ["--rule", sweep.rule] if sweep.rule else []
    asked += ["--sub-rounds", str(sweep.sub_rounds)] if sweep.sub_rounds else []
    asked += [word for name, value in sweep.options for word in (f"--{name.replace('_', '-')}", str(value))]
    asked += ["--data-dir", str(sweep.data_dir)] if sweep.data_dir else []
    asked += ["--device", sweep.device] if sweep.device != "cpu" else []
    steps = 1 if sweep.recipe in BROADCASTS else sweep.steps
    return Scenario(
        sweep.nodes,
        sweep.byzantine,
        sweep.f,
        recipe,
        tuple(asked),
        attacks,
        schedule,
        steps,
        sweep.train,
        sweep.real_signatures,
        sweep.beyond_the_bound,
    )


@dataclass(frozen=True, slots=True)
class Broken:
    """A run in which a guarantee did not hold."""

    seed: int
    found: str
    command: str


@dataclass(slots=True)
class Tally:
    """Runs summed up.

    Args:
        runs: how many.
        broken: the runs that broke a guarantee.
        deliveries: what reached a node.
        messages, sent_bytes: what all members sent.
        quiet_messages, quiet_bytes: what they would have, if nobody lied and nothing were lost.
        virtual_seconds: simulated time.
        convicted: runs in which an honest member holds a proof of equivocation.
        accuracies: of the honest models, if models were trained.
        digests: of each run's trace, in order of seeds.
    """

    runs: int = 0
    broken: list[Broken] = field(default_factory=list)
    deliveries: int = 0
    messages: int = 0
    sent_bytes: int = 0
    quiet_messages: int = 0
    quiet_bytes: int = 0
    virtual_seconds: float = 0.0
    convicted: int = 0
    accuracies: list[float] = field(default_factory=list)
    digests: bytes = b""

    def add(self, other: "Tally") -> None:
        """Take later runs in."""
        self.runs += other.runs
        self.broken += other.broken
        self.deliveries += other.deliveries
        self.messages += other.messages
        self.sent_bytes += other.sent_bytes
        self.quiet_messages += other.quiet_messages
        self.quiet_bytes += other.quiet_bytes
        self.virtual_seconds += other.virtual_seconds
        self.convicted += other.convicted
        self.accuracies += other.accuracies
        self.digests += other.digests

    @property
    def accuracy_min(self) -> float | None:
        return min(self.accuracies, default=None)

    @property
    def accuracy_mean(self) -> float | None:
        return fmean(self.accuracies) if self.accuracies else None

    @property
    def trace_digest(self) -> str:
        return blake2b(self.digests, digest_size=16).hexdigest()


class Pace:
    """Tells how many steps all honest nodes have taken, whenever the slowest takes one.

    Args:
        honest: how many there are.
        told: is told.
    """

    def __init__(self, honest: int, told: Callable[[int], None]) -> None:
        self._taken: dict[PeerId, int] = {}
        self._honest = honest
        self._told = told
        self._slowest = 0

    def adopted(self, member: PeerId, steps: int, model: Vector) -> None:
        """As `Network` tells it."""
        self._taken[member] = steps
        slowest = min(self._taken.values())
        if len(self._taken) == self._honest and slowest > self._slowest:
            self._slowest = slowest
            self._told(slowest)


def run_one(sweep: Sweep, seed: int, workers: int = 1, adopted: Adopted | None = None) -> Tally:
    """One run.

    Args:
        sweep: what to run.
        seed: for which seed.
        workers: threads that train models side by side.
        adopted: as in `Network`.

    Raises:
        ConfigError: if the task's files are missing.
    """
    scenario = sweep.scenario(seed)
    network = Network(scenario, seed, machine=Machine(sweep.data_dir, sweep.device, workers), adopted=adopted)
    broken = []
    try:
        network.run()
    except Violation as violation:
        broken = [Broken(seed, str(violation), scenario.command(seed))]
    cost = quiet(scenario, network.length)
    return Tally(
        1,
        broken,
        network.deliveries,
        network.messages,
        network.bytes,
        cost.messages,
        cost.bytes,
        network.now,
        int(bool(network.convicted)),
        network.accuracies(),
        network.digest,
    )


def draw(sweep: Sweep, seed: int) -> str:
    """The end of this seed's run as a diagram."""
    last: deque[Delivery] = deque(maxlen=DIAGRAM_DELIVERIES)
    network = Network(sweep.scenario(seed), seed, last.append, Machine(sweep.data_dir, sweep.device))
    try:
        network.run()
        ended = "every guarantee held"
    except Violation as violation:
        ended = str(violation)
    return f"{diagram(sweep.nodes, last)}\n{ended}"


def run_all(
    sweep: Sweep, seeds: range, watch: Callable[[Tally], None], stepped: Callable[[int], None] | None = None
) -> Tally:
    """All runs, in worker processes where there are many.

    Args:
        sweep: what to run.
        seeds: for which seeds.
        watch: told of the sum so far, now and then.
        stepped: told how many steps every honest node has taken, over all runs; not where worker processes take them.
    """
    torch.set_num_threads(1)  # as the workers do, for the same sums everywhere
    total = Tally()
    for part in _in_order(sweep, seeds) if len(seeds) > _CHUNK else _one_by_one(sweep, seeds, stepped):
        total.add(part)
        watch(total)
    return total


def _one_by_one(sweep: Sweep, seeds: range, stepped: Callable[[int], None] | None) -> Iterator[Tally]:
    workers = os.cpu_count() or 1
    for index, seed in enumerate(seeds):
        if stepped is None:
            yield run_one(sweep, seed, workers)
        else:
            pace = Pace(sweep.nodes - sweep.byzantine, partial(_after, stepped, index * sweep.steps))
            yield run_one(sweep, seed, workers, pace.adopted)


def _after(stepped: Callable[[int], None], before: int, steps: int) -> None:
    stepped(before + steps)


def _in_order(sweep: Sweep, seeds: range) -> Iterator[Tally]:
    """Chunks of runs, computed side by side, in order of seeds; few are ahead of the one that is waited for."""
    workers = os.cpu_count() or 1
    chunks = iter([seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)])
    deaf = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as all that a shell starts in the background
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_prepare, initargs=(deaf,))
    try:
        waiting: deque[Future[Tally]] = deque()
        for chunk in chunks:
            with _unheard():
                waiting.append(pool.submit(_run_chunk, sweep, chunk))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _unheard() -> Iterator[None]:
    """Ctrl-C comes after it; workers that are started within hear none before they are prepared.

    It reaches all processes, and one that still loads, or is not told all that it loads, would say where it was. For
    the main thread only.
    """
    heard: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # workers inherit it
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))  # threads of torch do not block it
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if heard:
        signal.raise_signal(signal.SIGINT)


def _prepare(deaf: bool) -> None:
    # A worker has nothing to put in order, and nothing to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN if deaf else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch.set_num_threads(1)
    gc.freeze()
    gc.disable()  # it looks at everything again and again, in a run that leaves few circles: an eighth of the time


def _run_chunk(sweep: Sweep, seeds: range) -> Tally:
    total = Tally()
    for seed in seeds:
        total.add(run_one(sweep, seed))
    gc.collect()
    return total


def summary(sweep: Sweep, tally: Tally, began: float) -> dict[str, object]:
    """What `--json` prints.

    Args:
        sweep: what was run.
        tally: what came out.
        began: `time.monotonic()` at the beginning.
    """
    return {
        "recipe": sweep.recipe,
        "nodes": sweep.nodes,
        "byzantine": sweep.byzantine,
        "f": sweep.f,
        "runs": tally.runs,
        "violations": len(tally.broken),
        "deliveries": tally.deliveries,
        "messages": tally.messages,
        "bytes": tally.sent_bytes,
        "quiet_messages": tally.quiet_messages,
        "quiet_bytes": tally.quiet_bytes,
        "virtual_seconds": round(tally.virtual_seconds, 3),
        "wall_seconds": round(time.monotonic() - began, 3),
        "convicted": tally.convicted,
        "accuracy_min": tally.accuracy_min,
        "accuracy_mean": tally.accuracy_mean,
        "trace_digest": tally.trace_digest,
        "broken": [{"seed": one.seed, "found": one.found, "replay": one.command} for one in tally.broken],
    }
