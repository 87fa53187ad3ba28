"""The only shell around the pure node: performs its effects with links, storage, training and aggregation.

One loop: take all events that are here, let the node answer, make durable what it signed, perform the effects.
Training, mixing, evaluation and checkpoints run one after another in a worker thread.
"""

import asyncio
import json
import math
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import torch

from p2pnode import joint
from p2pnode.accusations import Accusations
from p2pnode.admin import AdminServer
from p2pnode.arrivals import Arrivals
from p2pnode.assignment import enrolled
from p2pnode.checkers import Checkers
from p2pnode.codec import Finished, Holding, Want, WireMessage
from p2pnode.config import NodeConfig
from p2pnode.courier import Courier, Parcel
from p2pnode.durable import replace_file, write_all
from p2pnode.errors import LinkError, WireError, asking_disk
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Ahead, Ask, KeyRing, unasked
from p2pnode.joint import TOGETHER_MIN
from p2pnode.learning.local import LocalWork, mix_gathered
from p2pnode.learning.task import Task
from p2pnode.learning.trainer import Evaluation
from p2pnode.lookout import Lookout
from p2pnode.membership import occupant
from p2pnode.net import mdns
from p2pnode.net.mesh import Mesh
from p2pnode.net.whereabouts import Whereabouts, fingerprint
from p2pnode.node import (
    RETAINED_STEPS_MAX,
    RETAINED_STEPS_MIN,
    Adopt,
    Arrived,
    Connected,
    Descend,
    Descended,
    Differentiate,
    Differentiated,
    Event,
    Finish,
    Jump,
    Mixed,
    Node,
    NodeEffect,
    Received,
    Release,
    Started,
    Train,
    Trained,
    Unusable,
)
from p2pnode.observe.history import History
from p2pnode.observe.log import Log
from p2pnode.observe.phases import Phases, TimedSigner, timed
from p2pnode.proposals import Proposals
from p2pnode.standing import Standing
from p2pnode.storage.checkpoint import Checkpoint, Outbox, load_checkpoint, save_checkpoint
from p2pnode.storage.signer import DurableSigner
from p2pnode.storage.spool import Spool
from p2pnode.storage.vectors import ARRAYS, Announced, Vector, Vectors, Verdict, digest_of
from protocols.effects import Accuse, Broadcast, Expect, Fetch, Gathered, Hello, Mix, Send, Stream
from protocols.faults import Fault
from protocols.header import Digest, Header, PeerId, Slot
from protocols.protocol import Party

Outcome = TypeVar("Outcome")

_TELL_EVERY_S = 5.0

PHASES = ("gradient", "mix", "hash", "evaluation", "observe", "journal", "signatures", "talk")
"""What a node does, the worker's own first: what the loop does meanwhile holds nobody up. `hash` is of one's own
vectors, and rounds them first, `observe` of what the owner may look at (`p2pnode.observe.history`), `journal` of all
that is made durable, `talk` what is handled and sent but for `signatures`. Beside these it waits for its peers
(`wire`), or for nothing but the machine (`idle`)."""

_AHEAD_MAX = 4096
"""Signatures found good ahead that are remembered: some 3 MiB. A step of 32 members has 682."""

_RETAINED_BYTES = 64 * 2**20
"""Memory for vectors of past steps, told again to who connects late; of a total broadcast also others'. Where it is too
little for one's own of `RETAINED_STEPS_MIN`, these are read from disk."""

_SPARE_BYTES = 32 * 2**20
"""Memory for others' vectors of slots that were left, for who is slow to fetch: of what is beyond it one is let go of
for each that comes in, or of a total broadcast, where whoever is slow may need anyone's, written to disk."""

_UNREAD_MAX = 256
"""Messages of one peer that wait for the node, while the disk is slow or others say much; then no more are taken."""

_LOOK_EVERY_S = 0.2
"""How often to look who is late: it is told and asked for within a second."""

_PAUSES_MAX = 8
"""A holder is asked no later than so many usual delays after the one before it: a third of them may be liars."""


class Conversation(Protocol):
    """What the driver drives: a `Node`, or one whose effects are tampered with."""

    def handle(self, event: Event) -> list[NodeEffect]: ...


Tamper: TypeAlias = Callable[[Node, Vectors, Genesis], Conversation]
"""Makes a Byzantine peer of an honest node."""

Prepare: TypeAlias = Callable[[Task], Task]
"""Makes another task of the one that the genesis names."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step that was taken.

    Args:
        step: how many were taken, this one included.
        of: how many there are.
        loss: of the batch that this node's last gradient is of; None before its first.
        accuracy, test_loss: of the last evaluation on the way; None before the first.
    """

    step: int
    of: int
    loss: float | None
    accuracy: float | None
    test_loss: float | None


OnStep: TypeAlias = Callable[[Step], object]
"""Is told of every step, in the worker's thread; what it raises ends the run."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a node made of its run.

    Args:
        accuracy, loss: of the final model, on the whole test set; the loss is None where it is no finite number.
        steps: how many it took part in; those it skipped, left behind, are not among them.
        first_step_at, last_step_at: when the first and the last step were taken, seconds since the epoch.
        mixed: how often each member's vector was among those that were mixed.
        kept: how often the rule let it have a part in the mixture.
        bytes_sent, bytes_received: over all links, TLS not counted.
        peak_rss_mib: the most memory the process held.
        seconds: from the start of the run until its result.
        phases: the same, by what the node did or waited for; see `PHASES`.
    """

    name: str
    accuracy: float
    loss: float | None
    steps: int
    first_step_at: float
    last_step_at: float
    mixed: dict[str, int]
    kept: dict[str, int]
    bytes_sent: int
    bytes_received: int
    peak_rss_mib: float
    seconds: float
    phases: dict[str, float]


class Driver:
    """Runs one node from its home.

    Args:
        home: the node's files.
        log: takes what happens.
        tamper: makes a Byzantine peer of the honest node; None leaves it honest.
        prepare: what to train on in place of the task of the genesis; None leaves it that task.
        ask: gives the passphrase, if the key is sealed.
        task: what its owner hands over to train; None leaves it to the home and the catalogue.
        on_step: is told of every step.

    Raises:
        ConfigError: if anything in the home is wrong or missing.
        JournalError: if the record of what was signed is damaged or missing.
        DiskError: if the disk refuses what must be written.
    """

    def __init__(
        self,
        home: Home,
        log: Log,
        tamper: Tamper | None = None,
        prepare: Prepare | None = None,
        ask: Ask = unasked,
        task: Task | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self.home = home
        self.genesis = Genesis.load(home.genesis)
        self.config = NodeConfig.load(home.config)
        self.me, identity = occupant(home, self.genesis, self.config.name, ask)
        self._log = log
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        self.recipe = self.genesis.plan
        self._on_step = on_step
        self._trainer = enrolled(home, self.genesis, self.config, self.me, task, prepare)
        self._local = LocalWork(self._trainer, self.recipe, self.genesis.f, self._discarded, mix_gathered)
        self._model_step = 0
        self._kept_step = -1
        self._agreed: tuple[int, Vector] | None = None
        length = self._trainer.vector.numel()
        self._signer = DurableSigner(identity, home.journal)
        self._unusable: set[Path] = set()
        outbox = Outbox(home.outbox, self.genesis.network, self._tell_unusable, 1 + RETAINED_STEPS_MIN)
        array = ARRAYS[self.recipe.dtype]
        nbytes = array.itemsize * length
        fit = RETAINED_STEPS_MIN * self.recipe.slots(self.genesis.training.steps) * nbytes <= _RETAINED_BYTES
        spool = Spool(home.path, array, length, self._tell_refused) if self.recipe.total else None
        kept = None if fit else outbox.get
        self.vectors = Vectors(length, self.recipe.dtype, _SPARE_BYTES // nbytes, kept, spool)
        self._phases = Phases(PHASES, rest="idle")
        self._proposals = Proposals(outbox, self.vectors, self.recipe.dtype, self._phases, log)
        said = self._proposals.said()
        first = self._resume(said)
        ring = KeyRing([bytes.fromhex(member.public_key) for member in self.genesis.members])
        keys = Ahead(ring, _AHEAD_MAX)
        party = Party(
            self.me,
            self.genesis.committee,
            self.genesis.network,
            self.recipe.dtype,
            length,
            TimedSigner(self._signer, self._phases),
            timed(keys, self._phases),
        )
        steps = self.genesis.training.steps
        self._accusations = Accusations(home, self.genesis, self.config, party.verify, log)
        self.node = Node(party, self.recipe, steps, self._retained(steps), first, said, self._accusations.proofs)
        self._conversation = tamper(self.node, self.vectors, self.genesis) if tamper else self.node
        whereabouts = Whereabouts(self.genesis)
        self._announcer = self._announcer_of(whereabouts) if self.config.discovery == "mdns" else None
        self._mesh = Mesh(self.me, home, self.genesis, self.config, self, log, identity, whereabouts)
        self._arrivals = Arrivals(self.recipe, self.genesis.committee)
        self._courier = Courier(self.vectors, self._mesh.unfinished)
        self._names = [member.name for member in self.genesis.members]
        self._history = History(
            self._names, self.me, self.recipe, self.genesis.f, length, time_share=self.config.observe
        )
        called = [self.config.name, *self.config.admin_names]
        self._admin = AdminServer(self.config.admin, self.status, self.unready, self.history, called)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="worker")
        self._clerk = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._checkers = Checkers(keys, self._phases)
        self._forget_before = 0
        self._inbox: list[Event] = []
        self._unread: defaultdict[PeerId, int] = defaultdict(int)
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._turn = asyncio.Lock()
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._steps_taken = first
        self._first_step_at = 0.0
        self._last_step_at = 0.0
        self._began = time.monotonic()
        self._evaluation: Evaluation | None = None
        self._mixed: Counter[PeerId] = Counter()
        self._kept: Counter[PeerId] = Counter()
        self._finished_peers: set[PeerId] = set()
        self._lookout = Lookout(self.node, self.vectors)
        self._standing = Standing(self.node, self._lookout, self.vectors, self._names)
        self._vectors_of: Counter[PeerId] = Counter()
        self._result: Result | None = None

    def _announcer_of(self, whereabouts: Whereabouts) -> mdns.Announcer:
        mdns.check_installed()
        key = fingerprint(self.genesis.members[self.me].public_key)
        return mdns.Announcer(self.config.name, key, self.config.listen, whereabouts)

    async def run(self) -> Result | None:
        """Take part until the last step is taken and no peer needs this node, or `stop`; None if stopped before.

        Raises:
            LinkError: if the node cannot listen.
            DiskError: if the disk refuses what must be written: the node halts, and signs no more.
        """
        self._log.info(
            "node starts",
            step=self.node.position.step,
            model_step=self._model_step,
            model=digest_of(self._trainer.state(copied=False)["model"].numpy()).hex(),
            network=self.genesis.network.hex(),
        )
        self.vectors.window(self.node.position, Slot(self.node.oldest), self.node.horizon)
        self._began = self._phases.begin()
        try:
            await self._admin.start()
            with asking_disk(self.home.admin):
                self.home.admin.write_text(self._admin.address + "\n")
            await self._mesh.start()
            if self._announcer is not None:
                await self._announcer.start()
            self._post(Started())
            self._spawn(self._converse())
            self._spawn(self._tell_progress())
            self._spawn(self._watch_the_late())
            await self._stop.wait()
            if self._failure is not None:
                raise self._failure
        finally:
            await self._shut_down()
        return self._result

    def stop(self) -> None:
        """End the run in good order; may be called from a signal handler of the loop."""
        self._stop.set()

    def status(self) -> dict[str, Any]:
        """What the node does right now, as `/status` tells it."""
        names, now = self._names, time.monotonic()
        connected, banned = self._mesh.connected, self._accusations.banned()
        self._standing.note(self._phase(), now)
        return {
            "name": self.config.name,
            "network": self.genesis.network.hex(),
            "recipe": self.recipe.name,
            "steps": self.node.steps,
            "steps_taken": self._steps_taken,
            **self._standing.told(connected, banned, now),
            "connected": [names[peer] for peer in connected],
            "accuracy": self._evaluation.accuracy if self._evaluation else None,
            "loss": _finite(self._evaluation.loss) if self._evaluation else None,
            "faults": self._accusations.told(),
            "evidence": [names[peer] for peer in sorted(self._accusations.proofs)],
            "links": self._links(),
            "mixed": {names[peer]: count for peer, count in sorted(self._mixed.items())},
            "kept": {names[peer]: count for peer, count in sorted(self._kept.items())},
            "bytes_sent": self._mesh.bytes_sent,
            "bytes_received": self._mesh.bytes_received,
            "peak_rss_mib": _peak_rss_mib(),
            "banned": [names[peer] for peer in banned],
            **self._timings(now),
            "finished": self._result is not None,
        }

    def whereabouts(self) -> dict[str, Any]:
        """Where the node is, for its log; any thread may ask."""
        return {"step": self.node.position.step, "phase": self._standing.phase}

    def unready(self) -> str | None:
        """Why the node is not in step with as many members as it waits for; None where it is, or is done."""
        if self.node.finished:
            return None
        here, needed = 1 + len(self._mesh.connected), self.genesis.committee.gather_quorum
        if here < needed:
            return f"{here} of {needed} members that are waited for are here"
        return f"{self.node.behind} steps behind" if self.node.behind > 1 else None

    def _links(self) -> list[dict[str, Any]]:
        """What went over the links to each other member, on either plane, and how many vectors came whole."""
        others = (peer for peer in self.genesis.committee.members if peer != self.me)
        return [
            {"peer": self._name(peer), **self._mesh.traffic(peer), "vectors": self._vectors_of[peer]} for peer in others
        ]

    def history(self, since: int = 0) -> dict[str, Any]:
        """What the node saw from step `since` on, and whom it convicted, as `/history` tells it; in any thread."""
        return {**self._history.told(since), "evidence": self._accusations.evidence()}

    def _timings(self, now: float) -> dict[str, Any]:
        """How long the node has run, and on what."""
        return {"seconds": now - self._began, "phases": self._phases.seconds()}

    def _phase(self) -> str:
        if self.node.finished:
            return "finished" if self._result else "evaluating"
        if self.node.training:
            return "training"
        return "waiting" if self.node.waits_for else "mixing"

    def _discarded(self, what: str, step: int, why: str) -> None:
        self._log.warning(f"{what} discarded", step=step, reason=why)

    # The conversation.

    async def _converse(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            async with self._turn:
                await self._take_turn()
            phase = self._phase()
            self._standing.note(phase, time.monotonic())
            self._phases.rest("wire" if phase == "waiting" else "idle")

    async def _take_turn(self) -> None:
        """Let the node answer all that is here, and perform what it asks for."""
        events, self._inbox = self._inbox, []
        self._unread.clear()
        await self._checkers.verify_ahead(events, self.node)
        self._sign_ahead(events)
        with self._phases.during("talk"):
            effects = [effect for event in events for effect in self._conversation.handle(event)]
            self._lookout.note(time.monotonic())
        if self._signer.dirty:  # nothing signed leaves before it is durable
            await self._record(self._signer.flush, here=self._signer.quick)
        if self._forget_before > self._signer.floor:
            await self._record(lambda: self._signer.forget_before(self._forget_before))
        with self._phases.during("talk"):
            for effect in effects:
                self._perform(effect)
            for peer in {event.sender for event in events if isinstance(event, Received)}:
                self._regulate(peer)
            for peer, want in self._courier.due():
                self._ask(peer, want)
            self._mesh.retry()

    def _sign_ahead(self, events: Iterable[Event]) -> None:
        """Sign together what the node will sign of the vectors that came together."""
        claims = [claim for event in events if isinstance(event, Arrived) for claim in self.node.claims(event.digest)]
        if len(claims) >= TOGETHER_MIN and joint.serves(self.genesis.committee.n):
            with self._phases.during("signatures"):
                self._signer.sign_together(claims)

    def _regulate(self, peer: PeerId) -> None:
        """Take no more of a peer than the node has got to, and than may wait in it."""
        self._mesh.pause(peer, self._unread[peer] >= _UNREAD_MAX or self.node.congested(peer))

    async def _record(self, job: Callable[[], None], *, here: bool = False) -> None:
        """Write to the journal: here, where to wake a thread twice would take longer, or in a thread that `_shut_down`
        waits for, as one that is cancelled goes on writing."""
        with self._phases.during("journal"):
            if here:
                job()
            else:
                await asyncio.get_running_loop().run_in_executor(self._clerk, job)

    async def _tell_progress(self) -> None:
        """Say now and then where the node is, and whom it waits for if it does not get on."""
        told = None
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            step = self.node.position.step
            if step != told:
                self._log.info("step", step=step, of=self.node.steps)
            elif not self.node.finished:
                names = [self._name(peer) for peer in self.node.waits_for]
                self._log.info("no progress", step=step, phase=self._phase(), waits_for=names)
            told = step
            if not self._accusations.conduct_kept:
                await self._record(self._accusations.keeping_conduct())

    async def _watch_the_late(self) -> None:
        """Say once of each lateness that it began, and ask others for what is owed."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            for one in self._lookout.newly_late(self._accusations.banned(), time.monotonic()):
                self._log.info(
                    "late",
                    peer=self._name(one.peer),
                    step=one.slot.step,
                    exchange=one.slot.exchange,
                    sub_round=one.slot.sub_round,
                    seconds=round(one.seconds, 3),
                    deadline=round(one.deadline, 3),
                )
            for header, holders in self._lookout.missing(self._mesh.connected):
                self._spawn(self._fetch(header, holders))

    def _post(self, event: Event) -> None:
        self._inbox.append(event)
        self._wake.set()

    def _perform(self, effect: NodeEffect) -> None:
        match effect:
            case Send(to, message):
                if isinstance(message, Hello):
                    self._courier.greeted(to)
                self._mesh.send(to, message)
            case Broadcast(message):
                self._mesh.broadcast(message)
            case Stream(header, to):
                self._ship(self._courier.stream(header, to))
            case Expect(header):
                self._expect(header)
            case Fetch(header, holders):
                if self.vectors.expect(header):
                    self._post(Arrived(header.digest))
                else:
                    self._arrivals.hurry(header.digest)
                    self._spawn(self._fetch(header, holders))
            case Accuse():
                self._accuse(effect)
            case Train(step):
                self._work(lambda: self._train(step), lambda made: self._trained(step, made))
            case Mix(gathered, into):
                rows = self._rows(gathered)
                self._mixed.update(peer for peer, _ in gathered.values)
                self._work(
                    lambda: self._mix(gathered, rows, into),
                    lambda made: self._made(Mixed(gathered.slot, made[0]), into, made),
                )
            case Descend(slot, digest, into):
                direction = self._outcome(digest)
                self._work(
                    lambda: self._descend(slot, direction, into),
                    lambda made: self._made(Descended(slot, made[0]), into, made),
                )
            case Differentiate(slot, digest, into):
                model = self._outcome(digest)
                self._work(
                    lambda: self._differentiate(slot, model, into),
                    lambda made: self._made(Differentiated(slot, made[0]), into, made),
                )
            case Adopt(step, digest):
                self._adopt(step, digest)
            case Release(before, own):
                self.vectors.window(before, own, self.node.horizon, self.node.position)
                self._arrivals.forget(own)
                self._courier.moved()
                for peer in self._mesh.connected:
                    self._regulate(peer)
            case Jump(step):
                self._log.warning("left behind", step=step)
            case Finish():
                self._work(self._finish, self._finished)
            case _:
                raise AssertionError(f"nobody performs {effect}")

    # Effects on vectors.

    def _train(self, step: int) -> tuple[Digest, Announced]:
        with self._phases.during("gradient"):
            vector = self._local.train(step)
        return self._proposals.make(Slot(step), vector)

    def _trained(self, step: int, made: tuple[Digest, Announced]) -> None:
        """Say what was trained; where the next gradient is taken at it, take it while peers are waited for.

        In the same worker: mixtures come after it. A thread of its own would need a model of its own, and gain what
        they take where the gradient is there later than the peers.
        """
        self._made(Trained(step, made[0]), Slot(step), made)
        if self.recipe.staleness and step == self.node.position.step and step + 1 < self.node.steps:
            self._work(lambda: self._foresee(step + 1, made[1]))

    def _foresee(self, step: int, announced: Announced) -> None:
        with self._phases.during("gradient"):
            self._local.foresee(step, announced)

    def _differentiate(self, slot: Slot, model: Vector, into: Slot) -> tuple[Digest, Announced]:
        with self._phases.during("gradient"):
            vector = self._local.differentiate(slot.step, model)
        return self._proposals.make(into, vector)

    def _descend(self, slot: Slot, direction: Vector, into: Slot | None) -> tuple[Digest, Announced | Vector]:
        with self._phases.during("gradient"):
            vector = self._local.descend(slot.step, direction)
        return self._proposals.make(into, vector)

    def _mix(self, gathered: Gathered, rows: list[Announced], into: Slot | None) -> tuple[Digest, Announced | Vector]:
        own = [index for index, (peer, _) in enumerate(gathered.values) if peer == self.me]
        with self._phases.during("mix"):
            mixed, kept = self._local.mix(gathered.slot.step, gathered.slot.exchange, rows, own[0] if own else None)
        with self._phases.during("observe"):
            self._history.mixed(gathered, rows, mixed, kept, self._trainer.batch_loss)
        self._kept.update(gathered.values[row][0] for row in kept)
        return self._proposals.make(into, mixed)

    def _rows(self, gathered: Gathered) -> list[Announced]:
        return [_here(self.vectors.get(digest)) for _, digest in gathered.values]

    def _outcome(self, digest: Digest) -> Vector:
        return _here(self.vectors.outcome(digest))

    def _ship(self, parcels: list[Parcel]) -> None:
        for parcel in parcels:
            self._mesh.stream(parcel.to, parcel.slot, parcel.digest, parcel.vector, parcel.offset)

    def _expect(self, header: Header) -> None:
        self._arrivals.expect(header)
        if self.vectors.expect(header):
            self._arrived(header.digest)

    def _arrived(self, digest: Digest) -> None:
        """Tell the node of it, now or with others of its slot."""
        told, held_in = self._arrivals.came(digest)
        for one in told:
            self._post(Arrived(one))
        for slot in held_in:
            asyncio.get_running_loop().call_later(self._lookout.deadline(slot), self._let_go, slot)

    def _let_go(self, slot: Slot) -> None:
        for digest in self._arrivals.release(slot):
            self._post(Arrived(digest))

    async def _fetch(self, header: Header, holders: tuple[PeerId, ...]) -> None:
        """Ask one holder after another, each after a pause in which the bytes may come by themselves: as long as values
        usually take, and longer each time, so that who asks in vain does not ask all at once."""
        for turn, holder in enumerate(holders):
            await asyncio.sleep(self._lookout.deadline(header.slot) * min(2**turn, _PAUSES_MAX))
            want = self._courier.ask(header.digest, holder)
            if want is None:
                return
            self._ask(holder, want)

    def _ask(self, peer: PeerId, want: Want | None) -> None:
        """Ask for bytes, and let what waits on the wire before them make way."""
        if want is not None:
            self._mesh.send(peer, want)
            self._mesh.retry()

    def _adopt(self, step: int, digest: Digest) -> None:
        vector = self._outcome(digest)
        self._steps_taken += 1
        self._last_step_at = time.time()
        self._first_step_at = self._first_step_at or self._last_step_at
        self._history.stepped(step, self._phases.seconds(), self.node.here)
        self._agreed = step + 1, vector
        self._work(lambda: self._adopted(step + 1, vector))

    def _adopted(self, steps: int, vector: Vector) -> None:
        self._take_on(steps, vector)
        if self.config.evaluate_every and steps % self.config.evaluate_every == 0 and steps < self.node.steps:
            with self._phases.during("evaluation"):
                self._evaluation = self._trainer.evaluate(self.config.evaluate_samples, abort=self._stop.is_set)
            self._history.measured(steps, self._evaluation.loss, self._evaluation.accuracy)
            self._log.info("evaluated", step=steps, accuracy=self._evaluation.accuracy, loss=self._evaluation.loss)
        if self.config.checkpoint_every and steps % self.config.checkpoint_every == 0:
            self._save_checkpoint()
        if self._on_step is not None:
            seen = self._evaluation
            accuracy, loss = (None, None) if seen is None else (seen.accuracy, seen.loss)
            self._on_step(Step(steps, self.node.steps, self._trainer.batch_loss, accuracy, loss))

    def _take_on(self, steps: int, vector: Vector) -> None:
        with self._phases.during("mix"):
            self._trainer.adopt(torch.from_numpy(vector))
        self._model_step = steps

    def _finish(self) -> Result | None:
        """The model is final: measure it on everything, and write down what came out; None if told to stop before."""
        with self._phases.during("evaluation"):
            self._evaluation = self._trainer.evaluate(abort=self._stop.is_set)
        if self._stop.is_set():  # it may be of a part, and will be made when the node runs again
            return None
        self._history.measured(self.node.steps, self._evaluation.loss, self._evaluation.accuracy)
        self._save_checkpoint()
        result = Result(
            self.config.name,
            self._evaluation.accuracy,
            _finite(self._evaluation.loss),
            self._steps_taken,
            self._first_step_at,
            self._last_step_at,
            {self._name(peer): count for peer, count in sorted(self._mixed.items())},
            {self._name(peer): count for peer, count in sorted(self._kept.items())},
            self._mesh.bytes_sent,
            self._mesh.bytes_received,
            _peak_rss_mib(),
            **self._timings(time.monotonic()),
        )
        text = json.dumps(asdict(result), indent=2) + "\n"
        replace_file(self.home.result, lambda fd: write_all(fd, text.encode()))
        return result

    def _finished(self, result: Result | None) -> None:
        if result is None:
            return
        self._result = result
        self._standing.note(self._phase(), time.monotonic())
        self._log.info("finished", accuracy=result.accuracy, loss=result.loss, result=str(self.home.result))
        self._mesh.broadcast(Finished())
        asyncio.get_running_loop().call_later(self.config.linger_s, self.stop)
        self._leave_if_alone()

    def _leave_if_alone(self) -> None:
        """Go when every peer that is not banned has finished too: until then one may need this node's last vectors."""
        done = {self.me, *self._finished_peers, *self._accusations.banned()}
        if self._result is not None and len(done) == len(self.genesis.members):
            self.stop()

    def _save_checkpoint(self) -> None:
        step = self._model_step
        if step == self._kept_step:  # a large one takes seconds
            return
        tensors = {name: tensor.numpy() for name, tensor in self._trainer.state(copied=False).items()}
        with self._phases.during("journal"):
            save_checkpoint(self.home.checkpoint, self.genesis.network, Checkpoint(step, tensors))
        self._kept_step = step
        # A restart begins at `step`; what slower peers still need echoed lies one step back at most.
        self._forget_before = max(self._forget_before, step - 1)

    def _accuse(self, accusation: Accuse) -> None:
        peer, fault, evidence = accusation.peer, accusation.fault, accusation.evidence
        self._accusations.count(peer, fault)
        if peer != self.me:  # who uses our key elsewhere is not shut out by shutting out ourselves
            self._charge(peer, fault)
        if evidence is not None and (keeping := self._accusations.keeping_proof(peer, evidence)) is not None:
            self._work(keeping)

    def _charge(self, peer: PeerId, fault: Fault) -> None:
        if seconds := self._accusations.charge(peer, fault):
            self._mesh.expel(peer, LinkError(f"banned for {seconds:g} s"))
            self._spawn(self._record(self._accusations.keeping_conduct()))
            self._leave_if_alone()

    # What the links bring.

    def received(self, peer: PeerId, message: WireMessage) -> None:
        self._standing.heard(peer, message, time.monotonic())
        match message:
            case Want():
                self._ship(self._courier.asked(peer, message))
                if message.slot.step < self.node.oldest:  # it may be gone: who is so far behind goes on elsewhere
                    self._mesh.send(peer, Hello(self.node.oldest))
            case Holding():
                self._ship(self._courier.heard(peer, message))
            case Finished():
                self._finished_peers.add(peer)
                self._leave_if_alone()
            case _:
                self._unread[peer] += 1
                self._post(Received(peer, message))
                if self._unread[peer] >= _UNREAD_MAX:
                    self._mesh.pause(peer, True)

    def judge(self, peer: PeerId, slot: Slot, digest: Digest, nbytes: int) -> Verdict:
        verdict = self.vectors.judge(peer, slot, digest, nbytes)
        return Verdict.DISCARD if verdict is Verdict.WAIT and self._courier.skips(peer, digest) else verdict

    def vector(self, peer: PeerId, digest: Digest, vector: Announced) -> None:
        self._standing.heard(peer, None, time.monotonic())
        self._vectors_of[peer] += 1
        self._mesh.unfinished.drop(digest)
        if self.vectors.take(digest, vector.view(self.vectors.array)):
            self._arrived(digest)
        else:
            self._log.info("vector not finite", peer=self._name(peer))
            self._post(Unusable(digest))

    def again(self, peer: PeerId, digest: Digest) -> None:
        self._ask(peer, self._courier.ask(digest, peer, offset=0))

    def welcome(self, peer: PeerId) -> bool:
        return self._accusations.welcome(peer)

    def connected(self, peer: PeerId) -> None:
        self._log.info("connected", peer=self._name(peer))
        self._mesh.send(peer, self._courier.connected(peer))
        self._post(Connected(peer))
        if self._result is not None:
            self._mesh.send(peer, Finished())

    def disconnected(self, peer: PeerId, reason: BaseException | None) -> None:
        self._log.info("disconnected", peer=self._name(peer), reason=str(reason) if reason else "closed by the peer")
        if isinstance(reason, WireError):
            self._accuse(Accuse(peer, Fault.MALFORMED))

    # Running.

    def _work(self, job: Callable[[], Outcome], then: Callable[[Outcome], None] = lambda _: None) -> None:
        """Do the job in the worker, after the ones before it; `then` takes its outcome on the loop."""
        future = asyncio.get_running_loop().run_in_executor(self._worker, job)

        async def finish() -> None:
            then(await future)

        self._spawn(finish())

    def _made(self, event: Event, into: Slot | None, made: tuple[Digest, Announced | Vector]) -> None:
        """Keep what was made as long as it is in play in the slot that it is proposed in, if in any."""
        if into is None:
            self.vectors.put_outcome(*made)
        else:
            self.vectors.put(into, *made)
        self._post(event)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A task that failed ends the run: an error of ours must be seen, not survived by luck."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()
            self.stop()

    async def _shut_down(self) -> None:
        """End what is under way, keep the model of the last step that was taken, and let go of everything."""
        async with self._turn:  # what the node has moved on by is performed, not lost
            for task in list(self._tasks):
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._announcer is not None:
            await self._announcer.stop()
        await self._mesh.stop()
        await self._admin.stop()
        with suppress(OSError):  # the address of nobody harms nobody
            self.home.admin.unlink()
        with suppress(OSError):  # for `p2pnode report`, and not worth a failure
            self.home.history.write_text(json.dumps(self.history()))
        self._worker.shutdown(cancel_futures=True)
        self._clerk.shutdown(cancel_futures=True)
        self._checkers.shut_down()
        try:
            if self._failure is None and self._result is None:
                if self._agreed is not None and self._agreed[0] > self._model_step:  # its turn in the worker never came
                    self._take_on(*self._agreed)
                self._save_checkpoint()
            if not self._accusations.conduct_kept:
                self._accusations.keeping_conduct()()
        finally:
            self._signer.close()
            self._log.info("node stops", step=self.node.position.step)

    def _retained(self, steps: int) -> int:
        """Past steps whose vectors fit into the memory set aside for peers that are late."""
        kept = len(self.genesis.members) if self.recipe.total else 1
        step_bytes = self.vectors.nbytes * self.recipe.slots(steps) * kept
        return max(RETAINED_STEPS_MIN, min(RETAINED_STEPS_MAX, _RETAINED_BYTES // step_bytes))

    def _tell_unusable(self, path: Path, why: str) -> None:
        """Say once of a file that it counts as none, what the node does without it, and what is lost."""
        if path in self._unusable:
            return
        self._unusable.add(path)
        if path == self.home.checkpoint:
            instead = "go on with the first model, until an exchange brings that of the peers"
            lost = "what this node learned since"
        else:
            instead = "compute this vector again, and say nothing in its slot if it comes out otherwise"
            lost = "one vector of this node"
        self._log.warning("file unusable", file=str(path), reason=why, instead=instead, lost=f"{lost}; nothing signed")

    def _tell_refused(self, why: str) -> None:
        self._log.warning("disk refuses", reason=why, instead="keep others' vectors of past steps in memory")

    def _resume(self, said: dict[Slot, Digest]) -> int:
        """Go back to the checkpoint, if there is one of this network; the step to begin with.

        That is the last step this node spoke in, since its peers are there and hold it to its word, though the
        checkpoint may be older. The model of such a checkpoint is stale until that step's exchanges replace it. With
        neither left, it is the first step in which the signer may still speak.
        """
        spoken = max((slot.step for slot in said if slot == Slot(slot.step)), default=0)
        checkpoint = load_checkpoint(self.home.checkpoint, self.genesis.network, self._tell_unusable)
        if checkpoint is None:
            return max(spoken, self._signer.floor)
        self._trainer.restore({name: torch.from_numpy(array) for name, array in checkpoint.tensors.items()})
        self._model_step = self._kept_step = checkpoint.step
        return max(spoken, checkpoint.step)

    def _name(self, peer: PeerId) -> str:
        return self.genesis.members[peer].name


def _here(vector: Announced | None) -> Announced:
    assert vector is not None, "the node asks for vectors that it knows are here"
    return vector


def _finite(number: float) -> float | None:
    """JSON has no infinity."""
    return number if math.isfinite(number) else None


def _peak_rss_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
