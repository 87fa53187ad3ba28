"""A testnet that is hurt on purpose: does to running nodes what is asked, heals it, and sees that they step again."""

import asyncio
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from p2pnode.home import Home, NetworkFolder
from p2pnode.perturbation import Perturbation, Perturbations, Recovered, Split, Subject, verdict
from p2pnode.process import EXIT_FAILED, EXIT_GOOD
from p2pnode.testnet import NodeView, Plan, Testnet, TestnetFailed, Watcher

POLL_S = 0.1

FULL_BYTES = 16 * 2**10
"""Largest file on a disk that is full: less than one vector, more than what a node says of it."""

Say = Callable[[str], None]


class Disturbed(Testnet):
    """A testnet to which things are done, one after another, by `_disturb`.

    Args:
        plan, began, watch: as for `Testnet`.
    """

    def __init__(self, plan: Plan, began: float, watch: Watcher) -> None:
        super().__init__(plan, began, watch)
        self._disturbing: asyncio.Task[None] | None = None
        self._acting = False
        self._down: set[str] = set()
        self._by_name = {node.name: node for node in self.nodes}

    async def _disturb(self) -> None:
        raise NotImplementedError

    async def _until_finished(self) -> None:
        self._disturbing = asyncio.create_task(self._disturb())
        try:
            await super()._until_finished()
        finally:
            self._disturbing.cancel()
            await asyncio.gather(self._disturbing, return_exceptions=True)

    def _all_over(self) -> bool:
        return not self._down and not self._acting and super()._all_over()

    def _check(self) -> None:
        if self._disturbing is not None and self._disturbing.done():
            self._disturbing.result()
        for node in self.honest:
            if node.exit not in (None, EXIT_GOOD) and node.name not in self._down:
                raise TestnetFailed(f"{node.name} ended by itself, with exit code {node.exit}: see {node.home.path}")
        if self._acting:
            self._moved = (-1, time.monotonic())  # that nobody steps may be what is wanted
            self._check_spawner()
        else:
            super()._check()

    # Doing things to nodes.

    async def _pause(self, nodes: Sequence[NodeView], for_s: float) -> None:
        for node in nodes:
            self._signal(node, signal.SIGSTOP)
        await asyncio.sleep(for_s)
        for node in nodes:
            self._signal(node, signal.SIGCONT)

    async def _fill(self, nodes: Sequence[NodeView], for_s: float) -> None:
        """No file of the nodes may grow beyond a size: their next vectors have no room."""
        for node in nodes:
            _, hard = resource.prlimit(self._pid(node), resource.RLIMIT_FSIZE)
            resource.prlimit(self._pid(node), resource.RLIMIT_FSIZE, (FULL_BYTES, hard))
        await self._start_again(nodes, for_s, EXIT_FAILED)

    async def _kill(self, nodes: Sequence[NodeView], for_s: float) -> None:
        await self._end(nodes, for_s, signal.SIGKILL, -signal.SIGKILL)

    async def _restart(self, nodes: Sequence[NodeView], for_s: float) -> None:
        await self._end(nodes, for_s, signal.SIGTERM, EXIT_GOOD)

    async def _end(self, nodes: Sequence[NodeView], for_s: float, number: signal.Signals, wanted: int) -> None:
        for node in nodes:
            self._signal(node, number)
        await self._start_again(nodes, for_s, wanted)

    async def _start_again(self, nodes: Sequence[NodeView], for_s: float, wanted: int) -> None:
        names = ", ".join(node.name for node in nodes)
        await self._wait(lambda: all(node.exit is not None for node in nodes), f"the end of {names}")
        for node in nodes:
            if node.exit != wanted:
                raise TestnetFailed(f"{node.name} ended with exit code {node.exit}, not {wanted}: see {node.home.path}")
        self._ended(nodes)
        await asyncio.sleep(for_s)
        for node in nodes:
            node.exit = None
            self._start(node)

    def _ended(self, nodes: Sequence[NodeView]) -> None:
        """Called when nodes have ended that will be started again."""

    def _pid(self, node: NodeView) -> int:
        if node.pid is None:
            raise TestnetFailed(f"{node.name} does not run: see {node.home.path}")
        return node.pid

    def _signal(self, node: NodeView, number: signal.Signals) -> None:
        os.kill(self._pid(node), number)

    # Seeing what comes of it.

    async def _until_stepped(self, limit_s: float) -> Recovered:
        """Wait until a node took a step that none had taken, and every healthy one a step that it had not.

        By their outboxes, which are written before a word is said: no poll of a node that hangs delays it. Who spoke in
        a step may be in the one after it, and train; who spoke in two more has stepped.
        """
        before, began, first_s = {node.name: spoken(node.home) for node in self.honest}, time.monotonic(), None
        furthest = max(before.values())

        def passed(node: NodeView, step: int) -> bool:
            return node.over or node.home.result.exists() or spoken(node.home) > step + 1

        while True:
            seconds = round(time.monotonic() - began, 2)
            if first_s is None and any(passed(node, furthest) for node in self.honest):
                first_s = seconds
            missing = tuple(node.name for node in self.honest if not passed(node, before[node.name]))
            if first_s is not None and not missing:
                return Recovered(first_s, seconds)
            if seconds > limit_s:
                return Recovered(first_s, None, missing or tuple(before))
            await asyncio.sleep(POLL_S)

    async def _wait(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.plan.stall_s
        while not true():
            if time.monotonic() > deadline:
                raise TestnetFailed(f"not within {self.plan.stall_s:g} s: {what}; {self._why_stalled()}")
            await asyncio.sleep(POLL_S)


class Perturbed(Disturbed):
    """A testnet to which happens what a file of perturbations says.

    Args:
        plan, began, watch: as for `Testnet`.
        perturbations: checked against the plan.
        say: takes a line on each that is over.
    """

    def __init__(self, plan: Plan, began: float, watch: Watcher, perturbations: Perturbations, say: Say) -> None:
        super().__init__(plan, began, watch)
        self.perturbations = perturbations
        self.recovered: list[Recovered] = []
        self._say = say

    def _found(self) -> None:
        super()._found()
        NetworkFolder(self.plan.out).perturbations.write_text(self.perturbations.toml())

    async def _disturb(self) -> None:
        await self._wait(lambda: all(spoken(node.home) > 0 for node in self.honest), "the first steps")
        began = time.monotonic()
        for one in self.perturbations.perturbation:
            await self._until_moment(one, began)
            if any(node.home.result.exists() for node in self.honest):
                return
            self._acting = True
            split = await self._do(one)
            outcome = await self._until_stepped(self.perturbations.recover_s)
            self.recovered.append(Recovered(outcome.first_s, outcome.seconds, outcome.missing, split))
            self._acting = False
            self._say(f"{one}: {_told(outcome, self.perturbations.recover_s)}")

    async def _until_moment(self, one: Perturbation, began: float) -> None:
        if one.at_s is not None:
            await asyncio.sleep(began + one.at_s - time.monotonic())
            return
        assert one.at_step is not None
        while any(spoken(node.home) < one.at_step for node in self.honest):
            await asyncio.sleep(POLL_S)

    async def _do(self, one: Perturbation) -> Split | None:
        """Perturb, and heal when the time is over."""
        nodes = [self._by_name[name] for name in one.nodes]
        for_s = one.for_s or 0.0
        if one.kind == "partition":
            return await self._split(nodes, for_s)
        if one.kind == "disconnect":
            await self._disconnect(nodes, for_s)
        elif one.kind == "slow":
            await self._slow(nodes, for_s, one.megabits)
        else:
            self._down = set(one.nodes)
            doing = {"kill": self._kill, "restart": self._restart, "pause": self._pause, "liar": self._swap}
            await doing[one.kind](nodes, for_s)
            self._down = set()
        return None

    async def _swap(self, nodes: Sequence[NodeView], for_s: float) -> None:
        """Liars take the places of honest nodes, with their homes and keys."""
        for node in nodes:
            node.honest = False
        await self._restart(nodes, for_s)

    async def _disconnect(self, nodes: Sequence[NodeView], for_s: float) -> None:
        """Cut each of them off from every other node."""
        assert self.plan.hosts is not None
        alone = self._indices(nodes)
        pairs = [(one, [i for i in range(len(self.nodes)) if i not in alone[: k + 1]]) for k, one in enumerate(alone)]
        for one, others in pairs:
            self.plan.hosts.cut([one], others)
        await asyncio.sleep(for_s)
        for one, others in pairs:
            self.plan.hosts.heal([one], others)

    async def _slow(self, nodes: Sequence[NodeView], for_s: float, megabits: float | None) -> None:
        assert self.plan.hosts is not None
        for host in self._indices(nodes):
            self.plan.hosts.slow(host, megabits)
        await asyncio.sleep(for_s)
        for host in self._indices(nodes):
            self.plan.hosts.restore(host)

    async def _split(self, nodes: Sequence[NodeView], for_s: float) -> Split:
        """Let nothing pass between these nodes and the others; who stepped on a side that is no quorum."""
        assert self.plan.hosts is not None
        assert self.genesis is not None
        others = [node for node in self.nodes if node not in nodes]
        ends = self._indices(nodes), self._indices(others)
        self.plan.hosts.cut(*ends)
        # What was said before the cut may end the step in which it was said, and nothing may end the one after it.
        furthest = max(spoken(node.home) for node in self.nodes)
        await asyncio.sleep(for_s)
        quorum = min(exchange.quorum(self.genesis.committee) for exchange in self.genesis.plan.exchanges)
        stuck = [node for side in (nodes, others) if len(side) < quorum for node in side if node.honest]
        stepped = tuple(node.name for node in stuck if spoken(node.home) > furthest + 1)
        self.plan.hosts.heal(*ends)
        return Split((len(nodes), len(others)), quorum, stepped)

    def _indices(self, nodes: Sequence[NodeView]) -> list[int]:
        return [self.nodes.index(node) for node in nodes]

    def _sum_up(self) -> dict[str, Any]:
        summary = super()._sum_up()
        asked = self.perturbations
        outcomes: list[dict[str, Any] | None] = [asdict(outcome) for outcome in self.recovered]
        outcomes += [None] * (len(asked.perturbation) - len(outcomes))
        liars = [node.name for node in self.nodes if not node.honest]
        accused = [row["accused"] for row in summary["evidence"]]
        return summary | {
            "recover_s": asked.recover_s,
            "perturbations": [
                {**one.model_dump(exclude_none=True), "outcome": outcome}
                for one, outcome in zip(asked.perturbation, outcomes, strict=True)
            ],
            "failures": verdict(asked, self.recovered, accused, liars, summary["disagreement"]),
        }


def subject(plan: Plan, *, links: bool) -> Subject:
    """The network of a plan, as its perturbations see it; `links`: whether its nodes will be on hosts of their own."""
    names = tuple(f"node{i}" for i in range(plan.nodes))
    honest = plan.nodes - plan.byzantine
    return Subject(names[:honest], names[honest:], plan.values["f"], plan.values["training"]["steps"], links)


def spoken(home: Home) -> int:
    """The last step that a node made a vector durable in, and so may have spoken in; −1 where there is none."""
    return max((int(file.name.partition("-")[0]) for file in home.outbox.glob("*.safetensors")), default=-1)


def _told(outcome: Recovered, limit_s: float) -> str:
    if outcome.missing:
        return f"{', '.join(outcome.missing)} did not step again within {limit_s:g} s"
    return f"all stepped again {outcome.seconds:g} s after it healed"
