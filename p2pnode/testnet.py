"""Many real nodes on this machine: found a network, start a process a node, watch them learn, and sum up.

The nodes are ordinary ones: own home, own key, own sockets, on loopback or on a host of their own (`p2pnode.hosts`).
Only their processes are forked from one that loaded torch before (`p2pnode.spawner`), and the liars are told to lie.
"""

import asyncio
import json
import os
import random
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from safetensors.numpy import load_file

from p2pnode.containers import Containers
from p2pnode.errors import ConfigError, P2PNodeError
from p2pnode.genesis import Genesis
from p2pnode.home import Home, NetworkFolder
from p2pnode.hosts import Hosts
from p2pnode.init import Place, charter, found

EVALUATIONS = 20
"""How often each node measures its model on the way, unless told otherwise."""

_POLL_TIMEOUT_S = 2.0
_PORTS = range(20000, 32000)
"""Below the ports that systems hand out by themselves, which the nodes' own links take."""


class TestnetFailed(P2PNodeError):
    """The run did not end as it should; says why. Exit code 1."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Args:
        out: folder for genesis, homes and summary.
        values: `seed`, `f`, `recipe`, `training` of the genesis.
        nodes: how many; the last `byzantine` of them are liars.
        attacks: what the liars do.
        data_dir: folder of the task's files.
        stall_s: give up when no honest node takes a step for so long.
        evaluations: how often each node measures its model on the way, at most.
        hosts: where the nodes run; None for loopback.
        containers: in which they run; None for processes.
        ban_s: how long a first ban lasts. Nobody is banned: liars are here to lie to the last step; banned, they would
            be silent.
        poll_s: seconds from one question to all nodes to the next; an answer costs a node some of a step.
        source: where the task's code is, if it is the user's own.
        start: the weights that the genesis names, if it does.
        tensorboard: folder that nodes write to what they learn, for TensorBoard; None for nowhere.
    """

    out: Path
    values: dict[str, Any]
    nodes: int
    byzantine: int
    attacks: tuple[str, ...]
    data_dir: str | None
    stall_s: float
    evaluations: int = EVALUATIONS
    hosts: Hosts | None = None
    containers: Containers | None = None
    ban_s: float = 0.0
    poll_s: float = 0.25
    source: str | None = None
    start: bytes | None = None
    tensorboard: Path | None = None


@dataclass(slots=True)
class NodeView:
    """What is known of one node.

    Args:
        name: its name.
        home: its files.
        honest: whether it was started as an honest node.
        status: its latest word, as `/status` gives it.
        heard_at: when that came, by the monotonic clock.
        pid: its process, while it runs.
        exit: its exit code, once it ended; −9 after SIGKILL.
        asked_at: host:port at which it is asked how it is, if not the one it names itself.
    """

    name: str
    home: Home
    honest: bool
    status: dict[str, Any] = field(default_factory=dict)
    heard_at: float = field(default_factory=time.monotonic)
    result: dict[str, Any] | None = None
    pid: int | None = None
    exit: int | None = None
    asked_at: str | None = None

    @property
    def step(self) -> int:
        return int(self.status.get("step", 0))

    @property
    def over(self) -> bool:
        """Whether nothing more is to be waited for from it."""
        return self.result is not None or self.exit is not None

    def read_result(self) -> None:
        """Read what the node made of its run, if it came to an end."""
        if self.result is None and self.home.result.exists():
            self.result = json.loads(self.home.result.read_text())


Watcher = Callable[[list[NodeView]], None]
Ask = Callable[[], Awaitable[object]]


class Testnet:
    """One run of a plan.

    Args:
        plan: what to run.
        began: when the command was started, seconds since the epoch.
        watch: called a few times a second with all nodes.

    Raises:
        ConfigError: if a setting is wrong or no theorem covers it; no socket was opened.
    """

    def __init__(self, plan: Plan, began: float, watch: Watcher) -> None:
        self.plan = plan
        self._began = began
        self._watch = watch
        names = [f"node{i}" for i in range(plan.nodes)]
        self.nodes = [
            NodeView(name, Home(plan.out / name), honest=i < plan.nodes - plan.byzantine)
            for i, name in enumerate(names)
        ]
        self.genesis: Genesis | None = None
        self._spawner: asyncio.subprocess.Process | None = None
        self._loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._moved = (0, 0.0)

    @property
    def honest(self) -> list[NodeView]:
        return [node for node in self.nodes if node.honest]

    async def run(self) -> dict[str, Any]:
        """Run to the end, and return the summary that is also in `summary.json`.

        Raises:
            TestnetFailed: if honest nodes failed or stalled; the homes tell more.
            ConfigError: if a setting or a data file is wrong.
        """
        self._found()
        async with self._spawning() as reports:
            await self._load(reports)
            for node in self.nodes:
                self._start(node)
            listening = asyncio.create_task(self._listen(reports))
            try:
                await self._until_finished()
            finally:
                self._order_stop()
                await listening
        summary = self._sum_up()
        NetworkFolder(self.plan.out).summary.write_text(json.dumps(summary, indent=2) + "\n")
        return summary

    def _found(self) -> None:
        plan = self.plan
        # A mistake in the settings is refused before a port is looked for and an earlier run moved out of the way.
        charter([Place(node.name, f"127.0.0.1:{i + 1}", {}) for i, node in enumerate(self.nodes)], plan.values)
        steps = int(plan.values["training"]["steps"])
        settings = {
            "data_dir": plan.data_dir,
            "task": plan.source,
            "threads": max(1, (os.cpu_count() or 1) // plan.nodes),
            "evaluate_every": max(1, steps // plan.evaluations) if plan.evaluations else 0,
            "ban_s": plan.ban_s,
        }
        places = self._places(settings)
        make_way(plan.out)
        self.genesis = found(plan.out, places, plan.values, plan.start)

    def _places(self, settings: dict[str, Any]) -> list[Place]:
        containers = self.plan.containers
        if containers is not None:
            for node, port in zip(self.nodes, free_ports(len(self.nodes)), strict=True):
                node.asked_at = f"127.0.0.1:{port}"
            return [containers.place(node.name, settings) for node in self.nodes]
        return [
            Place(node.name, address, {**settings, "admin": admin})
            for node, (address, admin) in zip(self.nodes, self._addresses(), strict=True)
        ]

    def _addresses(self) -> list[tuple[str, str]]:
        """Where each node listens, for its peers and for its owner."""
        hosts, count = self.plan.hosts, self.plan.nodes
        if hosts is not None:
            return [(f"{hosts.address(i)}:{_PORTS[0]}", f"{hosts.address(i)}:{_PORTS[1]}") for i in range(count)]
        ports = [f"127.0.0.1:{port}" for port in free_ports(2 * count)]
        return list(zip(ports[::2], ports[1::2], strict=True))

    # Processes.

    @asynccontextmanager
    async def _spawning(self) -> AsyncIterator[asyncio.StreamReader]:
        """The spawner, which ends every node when its standard input ends, so also when this process is killed."""
        self._spawner = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "p2pnode.spawner",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process; it stops the nodes in good order
        )
        assert self._spawner.stdout is not None
        try:
            yield self._spawner.stdout
        finally:
            self._order_stop()
            await self._spawner.wait()

    def _order(self, **order: object) -> None:
        assert self._spawner is not None
        assert self._spawner.stdin is not None
        self._spawner.stdin.write(json.dumps(order).encode() + b"\n")

    def _order_stop(self) -> None:
        assert self._spawner is not None
        assert self._spawner.stdin is not None
        self._spawner.stdin.close()

    async def _load(self, reports: asyncio.StreamReader) -> None:
        if self.plan.containers is not None:
            return  # each of them loads its own
        task = self.plan.values["training"]["task"]
        self._order(load={"task": task, "source": self.plan.source, "data_dir": self.plan.data_dir})
        waiting = asyncio.create_task(reports.readline())
        while not waiting.done():
            self._watch(self.nodes)
            await asyncio.wait([waiting], timeout=self.plan.poll_s)
        line = waiting.result()
        if not line:
            raise TestnetFailed("the process that starts the nodes ended; what it said stands above")
        report = json.loads(line)
        if "refused" in report:
            raise ConfigError(report["refused"])

    def _start(self, node: NodeView) -> None:
        liars = [other.name for other in self.nodes if not other.honest]
        attacks = [] if node.honest else list(self.plan.attacks)
        hosts = self.plan.hosts
        namespace = hosts.namespace(self.nodes.index(node)) if hosts is not None else None
        command = self._command(node, attacks, liars)
        written = str(self.plan.tensorboard.resolve()) if self.plan.tensorboard is not None else None
        self._order(
            name=node.name,
            home=str(node.home.path),
            attacks=attacks,
            liars=liars,
            namespace=namespace,
            command=command,
            tensorboard=written,
        )

    def _command(self, node: NodeView, attacks: list[str], liars: list[str]) -> list[str] | None:
        """What runs a node elsewhere than in a process of this machine's own; None where nothing does."""
        if self.plan.containers is None:
            return None
        assert node.asked_at is not None
        return self.plan.containers.command(
            node.name, node.home.path, self.plan.data_dir, node.asked_at, attacks, liars
        )

    async def _listen(self, reports: asyncio.StreamReader) -> None:
        by_name = {node.name: node for node in self.nodes}
        while line := await reports.readline():
            report = json.loads(line)
            if "name" not in report:
                continue
            node = by_name[report["name"]]
            node.pid = report.get("pid")
            if "exit" in report:
                node.read_result()
                node.exit = report["exit"]

    # Watching.

    async def _until_finished(self) -> None:
        self._moved = (0, time.monotonic())
        async with self._asking() as ask:
            while not self._all_over():
                await asyncio.gather(ask(), asyncio.sleep(self.plan.poll_s))
                self._watch(self.nodes)
                self._check()

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Ask]:
        """What asks all nodes at once how they are. One that is stopped holds up no other's answer: it is waited for no
        longer than until all others are asked again."""
        asked: dict[str, asyncio.Task[None]] = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_POLL_TIMEOUT_S)) as session:

            async def ask() -> None:
                for node in self.nodes:
                    if node.name not in asked or asked[node.name].done():
                        asked[node.name] = asyncio.create_task(self._ask(session, node))
                answered, _ = await asyncio.wait(asked.values(), timeout=self.plan.poll_s)
                for task in answered:
                    task.result()

            try:
                yield ask
            finally:
                for task in asked.values():
                    task.cancel()
                await asyncio.gather(*asked.values(), return_exceptions=True)

    def _all_over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return all(node.over for node in self.honest)

    async def _ask(self, session: aiohttp.ClientSession, node: NodeView) -> None:
        try:
            address = node.asked_at or node.home.admin.read_text().strip()
            async with session.get(f"http://{address}/status") as answer:
                node.status, node.heard_at = await answer.json(), time.monotonic()
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError):
            return  # not up yet, ended, or stopped: its exit code or its silence will tell
        if node.status["finished"]:
            node.read_result()

    def _check(self) -> None:
        """Give up where waiting is pointless."""
        for node in self.honest:
            if node.exit is not None and node.exit > 0:
                raise TestnetFailed(f"{node.name} failed with exit code {node.exit}: {_last_words(node.home)}")
        if all(node.exit is not None and node.result is None for node in self.honest):
            raise TestnetFailed("every honest node was killed")
        self._check_spawner()
        progress = sum(node.step + 1 for node in self.honest if node.status) + sum(n.over for n in self.honest)
        if progress != self._moved[0]:
            self._moved = (progress, time.monotonic())
        elif time.monotonic() - self._moved[1] > self.plan.stall_s:
            raise TestnetFailed(f"no step in {self.plan.stall_s:g} s: {self._why_stalled()}")

    def _check_spawner(self) -> None:
        assert self._spawner is not None
        if self._spawner.returncode is not None:
            raise TestnetFailed("the process that starts the nodes was killed")

    def _why_stalled(self) -> str:
        waits = [
            f"{node.name} waits at step {node.step} for {', '.join(node.status['waits_for'])}"
            for node in self.honest
            if not node.over and node.status.get("waits_for")
        ]
        dead = [node.name for node in self.nodes if node.exit is not None]
        return "; ".join(waits + ([f"{', '.join(dead)} ended"] if dead else [])) or "no node waits for another"

    # Summing up.

    def _sum_up(self) -> dict[str, Any]:
        assert self.genesis is not None
        finished = [node for node in self.honest if node.result is not None]
        if not finished:
            raise TestnetFailed("no honest node finished")
        results = [node.result for node in finished if node.result is not None]
        accuracies = [result["accuracy"] for result in results]
        first = max(result["first_step_at"] for result in results)
        last = max(result["last_step_at"] for result in results)
        committee, steps = self.genesis.committee, self.genesis.training.steps
        return {
            "nodes": self.plan.nodes,
            "byzantine": self.plan.byzantine,
            "f": self.genesis.f,
            "recipe": self.genesis.recipe.name,
            "exchanges": [
                {
                    "what": exchange.what,
                    "broadcast": exchange.broadcast,
                    "gathered": exchange.quorum(committee),
                    "rule": exchange.rule,
                    "sub_rounds": exchange.sub_rounds(steps - 1),
                }
                for exchange in self.genesis.plan.exchanges
            ],
            "task": self.genesis.training.task,
            "attack": ",".join(self.plan.attacks) if self.plan.byzantine else None,
            "seed": self.genesis.seed,
            "steps": steps,
            "seconds": round(time.time() - self._began, 2),
            "startup_seconds": round(first - self._began, 2),
            "steps_per_second": round((steps - 1) / (last - first), 2) if last > first else None,
            "accuracy_min": min(accuracies),
            "accuracy_mean": statistics.mean(accuracies),
            "disagreement": disagreement(finished),
            "honest": [_honest_row(node) for node in self.honest],
            "evidence": [row for node in self.honest for row in _evidence_rows(node)],
        }


def disagreement(nodes: list[NodeView]) -> float:
    """The largest ‖x_i − x_j‖₂ / ‖x_i‖₂ over the nodes' final models."""
    models = [load_file(node.home.checkpoint)["model"].astype(np.float64) for node in nodes]
    ratios = [float(np.linalg.norm(one - other) / np.linalg.norm(one)) for one in models for other in models]
    return max(ratios)


def make_way(folder: Path) -> None:
    """Move an earlier run out of the way, to FOLDER.1, FOLDER.2, …; nothing is deleted.

    Raises:
        ConfigError: if the folder holds something else, a node of it still runs, or it cannot be read or moved.
    """
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        if not NetworkFolder(folder).genesis.exists():
            raise ConfigError(
                f"out = {str(folder)!r}: holds something else than a testnet. Remedy: choose another folder"
            )
        for home in sorted(folder.glob("*/pid")):
            with Home(home.parent).occupied():
                pass  # raises if a node runs there
        number = 1
        while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        folder.rename(aside)
    except OSError as error:
        raise ConfigError(f"out = {str(folder)!r}: {error.strerror}. Remedy: choose another folder") from error


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now.

    Raises:
        TestnetFailed: if there are too few.
    """
    free: list[int] = []
    start = random.choice(_PORTS)
    for offset in range(len(_PORTS)):
        port = _PORTS[(start - _PORTS.start + offset) % len(_PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise TestnetFailed(f"fewer than {count} free ports between {_PORTS.start} and {_PORTS.stop}; stop other servers")


def _last_words(home: Home) -> str:
    for file in (home.output, home.log):
        if file.exists() and (lines := file.read_text().strip().splitlines()):
            return f"{lines[-1]} (more in {file})"
    return f"{home.path} does not say why"


def _honest_row(node: NodeView) -> dict[str, Any]:
    result = node.result or {}
    row = {key: result.get(key) for key in ("accuracy", "loss", "steps", "bytes_sent", "bytes_received")}
    if node.result is None:
        row["steps"] = node.step
    return {"name": node.name, **row, "peak_rss_mib": result.get("peak_rss_mib"), "exit": node.exit}


def _evidence_rows(node: NodeView) -> list[dict[str, str]]:
    rows = []
    for file in sorted(node.home.evidence.glob("*.evidence")):
        accused, _, fault = file.stem.partition(".")
        rows.append({"accused": accused, "fault": fault, "file": str(file)})
    return rows
