"""The node whose cost is measured: an ordinary one, in a process of its own, which counts what it says and signs.

`python -m p2pnode.bench.soloist HOME LENGTH` loads all that a node loads, says that it is ready, and runs the node of
that home once it is told to; in the end it says what it cost, as JSON.

What is not as in an ordinary node is the model: `LENGTH` parameters whose gradient takes one pass over them, so that
what is measured is the node, and not a model.
"""

import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import uvloop
from torch import Tensor, nn

from p2pnode.bench.memory import forget_peak, libraries, peak
from p2pnode.driver import Driver
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.learning.local import mix_gathered
from p2pnode.learning.task import Task, build
from p2pnode.node import Adopt, Event, Node, NodeEffect, Received
from p2pnode.observe.log import open_log
from p2pnode.storage.vectors import Vectors
from protocols.effects import Broadcast, Evidence, Hello, Send
from protocols.header import Claim, PeerId, Signature, Signer

READY = b"ready\n"
"""What both processes say when they have loaded what they need, and are told when the other has."""

_WARM_LENGTH = 2**17
"""Of vectors long enough for the compiled rule: short ones are mixed without."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a node had spent when it took a step.

    Args:
        at: when it was taken, seconds.
        messages_sent, messages_received: of the protocol; what links say when they open and close is left out.
        signed, checked: statements; several may be under one signature, and what was asked about again and known counts
            once more.
        bytes_sent, bytes_received: over all links, TLS not counted.
    """

    at: float
    messages_sent: int
    messages_received: int
    signed: int
    checked: int
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True, slots=True)
class Account:
    """What a node cost.

    Args:
        tallies: of each step.
        idle_bytes: of memory, with everything loaded and no model yet; None where Linux is not.
        library_bytes: how much of that is code and tables of libraries; None where Linux is not.
        peak_bytes: of memory, at most; None where Linux is not.
        phases: seconds of the whole run, by what the node did; see `p2pnode.driver.PHASES`.
    """

    tallies: list[Tally]
    idle_bytes: int | None
    library_bytes: int | None
    peak_bytes: int | None
    phases: dict[str, float]


class Meter:
    """Counts what a node hears, says, signs and checks, and changes nothing."""

    def __init__(self) -> None:
        self.tallies: list[Tally] = []
        self.driver: Driver | None = None
        self._count: Counter[str] = Counter()

    def over(self, node: Node, _vectors: Vectors, _genesis: Genesis) -> "Meter":
        """Count for this node; a `p2pnode.driver.Tamper`."""
        verify = node.party.verify

        def counted(member: PeerId, statement: bytes, signature: Signature, /) -> bool:
            self._count["checked"] += 1
            return verify(member, statement, signature)

        node.party = replace(node.party, signer=_CountedSigner(node.party.signer, self._count), verify=counted)
        self._node = node
        return self

    def handle(self, event: Event) -> list[NodeEffect]:
        self._count["received"] += isinstance(event, Received) and not isinstance(event.message, Hello | Evidence)
        effects = self._node.handle(event)
        peers = self._node.party.committee.n - 1
        for effect in effects:
            match effect:
                case Send(message=Hello() | Evidence()) | Broadcast(message=Evidence()):
                    continue
                case Send():
                    self._count["sent"] += 1
                case Broadcast():
                    self._count["sent"] += peers
                case Adopt():
                    self._take_tally()
        return effects

    def _take_tally(self) -> None:
        assert self.driver is not None
        status, count = self.driver.status(), self._count
        self.tallies.append(
            Tally(
                time.perf_counter(),
                count["sent"],
                count["received"],
                count["signed"],
                count["checked"],
                status["bytes_sent"],
                status["bytes_received"],
            )
        )


class _CountedSigner:
    """A signer that counts what it signs."""

    def __init__(self, signer: Signer, count: Counter[str]) -> None:
        self._signer = signer
        self._count = count
        self.promise = signer.promise
        self.promised = signer.promised

    def sign(self, claim: Claim) -> Signature | None:
        self._count["signed"] += 1
        return self._signer.sign(claim)


class _Wide(nn.Module):
    """A model of so many parameters, whose output is their sum whatever it is shown."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(length))

    def forward(self, features: Tensor) -> Tensor:
        return self.weights.sum().expand(len(features))


def widened(task: Task, length: int) -> Task:
    """The task with a model of so many parameters in the place of its own, which there is nothing to learn for."""
    return Task(task.name, partial(_Wide, length), _mean, _nothing, task.data)


def _mean(outputs: Tensor, _labels: Tensor) -> Tensor:
    return outputs.mean()


def _nothing(_outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.zeros_like(labels, dtype=torch.float32).mean()


def _load(genesis: Genesis) -> None:
    """Load the data, and compile the rule for as many vectors as may be mixed."""
    build(genesis.training.task, None)
    committee = genesis.committee
    for exchange in genesis.plan.exchanges:
        most = committee.n if genesis.plan.total else exchange.quorum(committee)
        for gathered in range(exchange.quorum(committee), most + 1):
            rows = [np.zeros(_WARM_LENGTH, np.float32) for _ in range(gathered)]
            mix_gathered(exchange.rule, rows, committee.f, 0, None, lambda _: None)


def main() -> None:
    """Run the node, and account for it."""
    home, length = Home(Path(sys.argv[1])), int(sys.argv[2])
    genesis = Genesis.load(home.genesis)
    _load(genesis)
    meter = Meter()
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    sys.stdin.readline()
    idle = forget_peak()
    code = None if idle is None else libraries()
    meter.driver = Driver(home, open_log(home.log, home.path.name), meter.over, partial(widened, length=length))
    uvloop.run(meter.driver.run())
    phases = meter.driver.status()["phases"]
    account = Account(meter.tallies, idle, code, None if idle is None else peak(), phases)
    sys.stdout.write(json.dumps(asdict(account)) + "\n")


if __name__ == "__main__":
    main()
