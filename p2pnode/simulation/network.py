"""Nodes, links and disks of one run, under one clock: one seed, one trace.

Everything under way lies in one heap, ordered by virtual time and, at equal times, by when it was posted. Effects are
performed as the driver performs them: what was signed is flushed first, then one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from heapq import heappop, heappush
from random import Random
from struct import Struct
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from torch import Tensor

from p2pnode.byzantine.behaviour import Liar
from p2pnode.byzantine.forgery import Sign
from p2pnode.codec import Holding, Want, encode
from p2pnode.courier import Courier, Parcel
from p2pnode.identity import Identity, KeyRing
from p2pnode.learning.wire import narrow, widen
from p2pnode.node import (
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
from p2pnode.simulation.checks import Checks, Violation
from p2pnode.simulation.cost import quiet
from p2pnode.simulation.learner import Chance, Machine, School, SharedMixer, Training
from p2pnode.simulation.process import RETAINED, Conversation, Disk, Learner, OneBroadcast, Process
from p2pnode.simulation.scenario import Scenario
from p2pnode.simulation.schedule import HEAL_AT, SCHEDULES, Links
from p2pnode.storage.unfinished import Unfinished
from p2pnode.storage.vectors import Announced, Vector, Vectors, Verdict, digest_of, is_finite
from protocols.effects import Accuse, Broadcast, Evidence, Expect, Fetch, Hello, Message, Mix, Send, Stream
from protocols.faults import Fault
from protocols.header import Digest, Header, PeerId, Signature, Slot
from protocols.protocol import Party

FETCH_AFTER_S = 1.0
WORK_S = 0.2
"""Virtual seconds that a gradient, a mixture or a checkpoint takes on average."""

TRAIN_S = 1.0
"""Virtual seconds that the gradient of a real model takes besides: as long as a message, so that about all nodes are
asked for theirs before the first must be known, and one computation serves them."""

DELIVERIES_MAX_PER_MESSAGE = 200
"""A run with so many deliveries for each message and each slot of a node of a quiet one does not end."""

_DELIVERY = Struct(">dHH")

NETWORK = blake2b(b"p2pnode simulation", digest_size=32).digest()


@dataclass(frozen=True, slots=True)
class Bytes:
    """A vector's bytes on the wire, and whether they are finite: looked at once for all who receive them."""

    slot: Slot
    digest: Digest
    vector: Announced
    finite: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """Time to ask a holder for bytes, if they have not come by themselves."""

    header: Header
    holder: PeerId


@dataclass(frozen=True, slots=True)
class Due:
    """The time that training a model takes is over."""

    step: int


@dataclass(frozen=True, slots=True)
class Save:
    """A checkpoint is due."""

    step: int
    state: Any


Payload: TypeAlias = Event | Bytes | Want | Holding | Ask | Due | Save
Words: TypeAlias = Message | Hello | Want | Holding | Evidence
Adopted: TypeAlias = Callable[[PeerId, int, Vector], None]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something that reached a process.

    Args:
        time: virtual seconds.
        source: who sent it; the member itself for what its own machine brings.
        to: the member.
        payload: what it is.
        sent_at: when it was sent, virtual seconds.
    """

    time: float
    source: PeerId
    to: PeerId
    payload: Payload
    sent_at: float


class Network:
    """One run.

    Args:
        scenario: what to run.
        seed: of everything.
        watch: told of every delivery, before it is performed.
        machine: what models are trained with, if any are.
        adopted: told of every model that an honest member adopts, with how many steps that member has then taken.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        watch: Callable[[Delivery], None] | None = None,
        machine: Machine | None = None,
        adopted: Adopted | None = None,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.random = self._stream("schedule")
        self.now = 0.0
        self.newest_first = False
        self.blocked: set[tuple[PeerId, PeerId]] = set()
        self.deliveries = self.messages = self.bytes = 0
        self.finished: set[PeerId] = set()
        self.convicted: set[PeerId] = set()
        self.jumps = 0
        self._honest = frozenset(scenario.honest)
        self._lies = tuple(attack for attack in scenario.attacks if attack != "twins")
        self._watch = watch
        self._adopted = adopted
        self._mixer = SharedMixer()
        self.school = (
            None
            if scenario.train is None
            else School(
                scenario.train,
                scenario.recipe,
                seed,
                scenario.nodes,
                scenario.f,
                self._mixer,
                machine or Machine(),
            )
        )
        self._links = Links(self._stream("links"))
        self._besides = {Evidence: Links(self._stream("evidence")), Holding: Links(self._stream("holding"))}
        self._work = self._stream("work")
        self._crashes = self._stream("crashes")
        self._trace = blake2b(digest_size=16)
        self._heap: list[Any] = []
        self._posted = 0
        self._arrays: WeakValueDictionary[Digest, Announced] = WeakValueDictionary()
        self._lanes: dict[tuple[PeerId, PeerId, type[Any]], float] = {}
        self._link_epochs: dict[tuple[PeerId, PeerId], int] = {}
        self._cut: set[tuple[PeerId, PeerId]] = set()
        self._blocked_items: list[Any] = []
        self._saving = self.random.choice((1, 1, 2, 3))
        self._signs, self._verify = self._signatures()
        self.checks = Checks(scenario, NETWORK, self._verify)
        self._origin = scenario.origin(seed) if scenario.alone else None
        self._members = scenario.committee.members
        self._others = {me: tuple(peer for peer in self._members if peer != me) for me in self._members}
        self._processes = self._populate()
        self._of = {me: [process for process in self._processes if process.member == me] for me in self._members}
        self._hears = self._listeners()

    def others(self, me: PeerId) -> tuple[PeerId, ...]:
        """All members but this one."""
        return self._others[me]

    @property
    def length(self) -> int:
        """Elements of a vector."""
        return self._processes[0].learner.length

    def accuracies(self) -> list[float]:
        """The accuracy of each honest member's model, if models are trained."""
        if self.school is None:
            return []
        return [evaluation.accuracy for evaluation in self.school.cohort.evaluate(list(self.models().values()))]

    def models(self) -> dict[PeerId, Tensor]:
        """The model of each honest member, (d,) float32, if models are trained."""
        honest = [process for process in self._processes if process.member in self._honest]
        return {one.member: one.learner.trainer.vector for one in honest if isinstance(one.learner, Training)}

    @property
    def digest(self) -> bytes:
        """Of all that was delivered, when, in order."""
        return self._trace.digest()

    def run(self) -> None:
        """From start to end: anything goes, then all is healed, and every honest node must finish.

        Raises:
            Violation: if a guarantee does not hold.
        """
        SCHEDULES[self.scenario.schedule](self)
        self.at(float("inf") if self.newest_first else HEAL_AT, self._heal)
        for process in self._processes:
            self._start(process)
        for member in self._members:
            for peer in self._members[:member]:
                self.connect(member, peer, first=True)
        most = DELIVERIES_MAX_PER_MESSAGE * self._quiet_deliveries()
        while self._heap and self.deliveries < most:
            self._next()
        if self._heap and self.finished != self._honest:
            raise Violation("liveness", f"no end after {self.deliveries} deliveries")
        self.checks.ended(self.finished, self._origin)
        if not self._heap:
            self.checks.told()

    # What a schedule may do.

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do this at a virtual time."""
        self._push(time, action)

    def let_through(self) -> None:
        """Send what was held back and is not any more."""
        items, self._blocked_items = self._blocked_items, []
        for item in items:  # on links that keep order, ahead of all that was sent later
            links = self._links_of(item[4])
            self._push(self.now + (0.0 if links.ordered else links.delays()[0]), item)

    def sever(self, one: PeerId, other: PeerId) -> None:
        """Lose a link, with all that is under way over it."""
        for me, gone in ((one, other), (other, one)):
            self._cut.add((me, gone))
            self._link_epochs[me, gone] = self._link_epochs.get((me, gone), 0) + 1
            for process in self._of[me]:
                process.congested = [item for item in process.congested if item[1] != gone]
                process.parked = {
                    digest: [item for item in items if item[1] != gone] for digest, items in process.parked.items()
                }

    def connect(self, one: PeerId, other: PeerId, *, first: bool = False) -> None:
        """Bring a link up, if both ends run. On the first one both know before anything else that nothing is held."""
        if not all(process.alive for process in self._of[one] + self._of[other]):
            return
        self._cut -= {(one, other), (other, one)}
        for me, peer in ((one, other), (other, one)):
            for process in self._hears[me, peer]:
                holding = process.courier.connected(peer)
                if first:
                    process.courier.heard(peer, holding)
                else:
                    self._post(process, peer, holding, encode(holding))
                self._local(process, Connected(peer), 0.0)

    def doom(self, member: PeerId) -> None:
        """Stop this member's node in the middle of what it does next."""
        for process in self._of[member]:
            if process.alive:
                process.doomed = self._crashes.randint(-1, 4)

    def restart(self, member: PeerId) -> None:
        """Start a stopped node from its disk."""
        for process in self._of[member]:
            if process.doomed is not None:  # it had nothing to do meanwhile: it stops where it stands
                self._stop(process)
            if not process.alive:
                self._revive(process)

    def _heal(self) -> None:
        self.newest_first = False
        self.blocked.clear()
        self.let_through()
        for member in self._members:
            self.restart(member)
        for one, other in sorted(self._cut):
            if one < other:
                self.connect(one, other)

    # Processes.

    def _populate(self) -> list[Process]:
        processes = [self._process(member, index) for index, member in enumerate(self._members)]
        if "twins" in self.scenario.attacks:
            processes += [
                self._process(member, len(self._members) + index) for index, member in enumerate(self.scenario.liars)
            ]
        return processes

    def _process(self, member: PeerId, index: int) -> Process:
        disk = Disk(self._signs[member])
        learner = self._learner(index)
        node, vectors, conversation = self._incarnation(member, disk, learner)
        return Process(member, disk, learner, node, conversation, vectors, Courier(vectors, Unfinished()))

    def _learner(self, index: int) -> Learner:
        if self.school is not None:
            node = index % self.scenario.nodes
            return self.school.learner(node, () if node in self._honest else self._lies)
        return Chance(self.seed, index, self.scenario.recipe, self.scenario.f, self._mixer)

    def _incarnation(self, member: PeerId, disk: Disk, learner: Learner) -> tuple[Node, Vectors, Conversation]:
        scenario = self.scenario
        length, dtype = learner.length, scenario.recipe.dtype
        party = Party(member, scenario.committee, NETWORK, dtype, length, disk, self._verify)
        said = {slot: digest for slot, (digest, _) in disk.outbox.items()}
        options: dict[str, Any] = {"steps": scenario.steps, "retained": RETAINED, "convicted": disk.evidence}
        node = (
            OneBroadcast(party, scenario.recipe, self._origin, **options)
            if self._origin is not None
            else Node(party, scenario.recipe, first_step=disk.first_step, said=said, **options)
        )
        vectors = Vectors(length, dtype)
        for slot, (digest, vector) in disk.outbox.items():
            vectors.put(slot, digest, vector)
        vectors.window(node.position, Slot(node.oldest), node.horizon)
        if member in self._honest or not self._lies:
            return node, vectors, node
        return node, vectors, Liar(node, vectors, self._signs[member], self._lies, scenario.liars, self.seed)

    def _listeners(self) -> dict[tuple[PeerId, PeerId], list[Process]]:
        """(member, peer) → the processes of the member that talk with this peer: of twins one, the other, or both."""
        random = self._stream("twins")
        hears = {}
        for me in self._members:
            mine = self._of[me]
            for peer in self._others[me]:
                hears[me, peer] = mine if len(mine) == 1 else random.choice((mine[:1], mine[1:], mine))
        return hears

    def _start(self, process: Process) -> None:
        self._local(process, Started(), 0.0)

    def _stop(self, process: Process) -> None:
        process.alive, process.doomed = False, None
        process.epoch += 1
        process.disk.tear()
        process.parked, process.congested = {}, []
        for peer in self._others[process.member]:
            self.sever(process.member, peer)

    def _revive(self, process: Process) -> None:
        process.alive = True
        self.checks.restarted()
        if process.disk.checkpoint is not None:
            process.learner.restore(process.disk.checkpoint[1])
        process.node, process.vectors, process.conversation = self._incarnation(
            process.member, process.disk, process.learner
        )
        process.courier = Courier(process.vectors, Unfinished())
        self._start(process)
        for peer in self._others[process.member]:
            self.connect(process.member, peer)

    # Delivering.

    def _push(self, time: float, item: Any) -> None:  # noqa: ANN401
        self._posted += 1
        key = -float(self._posted) if self.newest_first and time != float("inf") else time
        heappush(self._heap, (key, self._posted, time, item))

    def _local(self, process: Process, payload: Payload, delay: float) -> None:
        self._push(self.now + delay, (process, process.member, process.epoch, None, payload, b"", self.now))

    def _post(self, process: Process, to: PeerId, payload: Payload, words: bytes) -> None:
        """Put something on the wire."""
        me = process.member
        if (me, to) in self._cut or process not in self._hears[me, to]:
            return
        if isinstance(payload, Bytes):
            self.bytes += payload.vector.nbytes
        else:
            self.messages += 1
            self.bytes += len(words)
        epoch, links = self._link_epochs.get((me, to), 0), self._links_of(payload)
        for delay in links.delays():
            time = self.now + delay
            if links.ordered:
                lane = (me, to, _lane(payload))
                time = self._lanes[lane] = max(time, self._lanes.get(lane, 0.0))
            for target in self._hears[to, me]:
                self._push(time, (target, me, target.epoch, epoch, payload, words, self.now))

    def _links_of(self, payload: Payload) -> Links:
        """What is said besides all else moves nothing of it."""
        return self._besides.get(_lane(payload), self._links)

    def _next(self) -> None:
        _, _, time, item = heappop(self._heap)
        if time != float("inf"):
            self.now = max(self.now, time)
        if callable(item):
            item()
            return
        process, source, epoch, link_epoch, payload, words, sent_at = item
        if process.epoch != epoch:
            return
        if link_epoch is not None:
            link = (source, process.member)
            if self._link_epochs.get(link, 0) != link_epoch:
                return
            if link in self.blocked:
                self._blocked_items.append(item)
                return
        if self._waits(process, source, payload, item):
            return
        self.deliveries += 1
        self._trace.update(
            _DELIVERY.pack(self.now, source, process.member) + (words or type(payload).__name__.encode())
        )
        if self._watch is not None:
            self._watch(Delivery(self.now, source, process.member, payload, sent_at))
        self._take(process, source, payload)

    def _waits(self, process: Process, source: PeerId, payload: Payload, item: Any) -> bool:  # noqa: ANN401
        """Whether it stays on the wire for now."""
        if isinstance(payload, Bytes):
            verdict = process.vectors.judge(source, payload.slot, payload.digest, payload.vector.nbytes)
            if verdict is Verdict.WAIT:
                process.parked.setdefault(payload.digest, []).append(item)
            if verdict is Verdict.REFUSE:  # the driver closes the link as well
                self._accused(process, Accuse(source, Fault.MALFORMED))
            return verdict is not Verdict.TAKE
        if isinstance(payload, Received) and process.node.congested(source):
            process.congested.append(item)
            return True
        return False

    def _unpark(self, process: Process, digest: Digest | None = None) -> None:
        """Look again at what waits on the wire: of one digest, or all."""
        if digest is not None:
            items = process.parked.pop(digest, [])
        else:
            items = [item for waiting in process.parked.values() for item in waiting] + process.congested
            process.parked, process.congested = {}, []
        for item in items:
            self._push(self.now, item)

    def _take(self, process: Process, source: PeerId, payload: Payload) -> None:
        vectors = process.vectors
        match payload:
            case Bytes(_, digest, vector, finite):
                if vectors.take(digest, vector, finite=finite):
                    self._has(process, digest)
                    self._handle(process, Arrived(digest))
                else:
                    self._handle(process, Unusable(digest))
            case Ask(header, holder):
                want = process.courier.ask(header.digest, holder)
                if want is not None:
                    self._post(process, holder, want, encode(want))
                    self._unpark(process, header.digest)
            case Due(step):
                self._trained(process, step)
            case Want():
                self._ship(process, process.courier.asked(source, payload))
            case Holding():
                self._ship(process, process.courier.heard(source, payload))
            case Save(step, state):
                if step % self._saving == 0:
                    process.disk.checkpoint = (step, state)
            case _:
                self._handle(process, payload)

    def _handle(self, process: Process, event: Event) -> None:
        effects = process.conversation.handle(event)
        until = process.doomed
        if until is not None and until < 0:
            self._stop(process)
            return
        process.disk.flush()
        for effect in effects[:until]:
            self._perform(process, effect)
        if until is not None:
            self._stop(process)
        elif process.member in self._honest:
            self.checks.bounded(process)

    # Effects.

    def _perform(self, process: Process, effect: NodeEffect) -> None:
        honest = process.member in self._honest
        match effect:
            case Send(to, message):
                if isinstance(message, Hello):
                    process.courier.greeted(to)
                self._say(process, (to,), message)
            case Broadcast(message):
                self._say(process, self._others[process.member], message)
            case Stream(header, to):
                self._propose(process, header)
                self._ship(process, process.courier.stream(header, to))
            case Expect(header):
                self._expect(process, header)
            case Fetch(header, holders):
                self._expect(process, header)
                for number, holder in enumerate(holders):
                    self._local(process, Ask(header, holder), FETCH_AFTER_S * (number + 1))
            case Accuse():
                self._accused(process, effect)
            case Train(step):
                self._train(process, step)
            case Mix():
                self._mix(process, effect)
            case Descend(slot, digest, into):
                vector = process.learner.descend(slot.step, self._outcome(process, digest))
                self._made(process, into, vector, lambda digest: Descended(slot, digest))
            case Differentiate(slot, digest, into):
                vector = process.learner.differentiate(slot.step, self._outcome(process, digest))
                self._made(process, into, vector, lambda digest: Differentiated(slot, digest))
            case Adopt(step, digest):
                self._adopt(process, step, digest)
            case Release(before, own):
                process.vectors.window(before, own, process.node.horizon)
                process.courier.moved()
                self._unpark(process)
            case Jump():
                self.jumps += 1
            case Finish():
                if honest:
                    self.finished.add(process.member)
            case _:
                raise AssertionError(f"nobody performs {effect}")

    def _say(self, process: Process, to: tuple[PeerId, ...], message: Message | Hello | Evidence) -> None:
        if process.member in self._honest and not isinstance(message, Hello | Evidence):
            self.checks.said(process.member, message)
        words, received = encode(message), Received(process.member, message)
        for peer in to:
            self._post(process, peer, received, words)

    def _propose(self, process: Process, header: Header) -> None:
        vector = process.vectors.get(header.digest)
        if vector is not None and header.origin == process.member and process.member in self._honest:
            self.checks.proposed(process.member, header.slot, widen(vector))

    def _ship(self, process: Process, parcels: list[Parcel]) -> None:
        for parcel in parcels:
            # Liars that say the same made it each for himself; as one array, all who receive it can tell that it is.
            vector = self._arrays.setdefault(parcel.digest, parcel.vector)
            payload = Bytes(parcel.slot, parcel.digest, vector, is_finite(vector))
            self._post(process, parcel.to, payload, parcel.digest)

    def _expect(self, process: Process, header: Header) -> None:
        if process.vectors.expect(header):
            self._local(process, Arrived(header.digest), 0.0)
        self._unpark(process, header.digest)

    def _accused(self, process: Process, accusation: Accuse) -> None:
        if process.member not in self._honest:
            return
        self.checks.accused(process.member, accusation)
        if accusation.evidence is not None:
            self.convicted.add(accusation.peer)
            process.disk.evidence.setdefault(accusation.peer, accusation.evidence)

    def _train(self, process: Process, step: int) -> None:
        if isinstance(process.learner, Training):  # later, so that one batch serves all who were asked meanwhile
            process.learner.ask(step)
            self._local(process, Due(step), TRAIN_S + self._work.expovariate(1 / WORK_S))
            return
        self._made(process, Slot(step), process.learner.train(step), lambda digest: Trained(step, digest))

    def _trained(self, process: Process, step: int) -> None:
        if process.node.position.step != step:  # asked for before a jump
            return
        learner = process.learner
        assert isinstance(learner, Training), "others take no time to train"
        digest = self._keep(process, Slot(step), learner.train(step))
        if self.scenario.recipe.staleness and step + 1 < self.scenario.steps:
            learner.foresee(step + 1, self._held(process, digest))
        self._handle(process, Trained(step, digest))

    def _adopt(self, process: Process, step: int, digest: Digest) -> None:
        honest, model = process.member in self._honest, self._outcome(process, digest)
        if honest and self._origin is not None:
            self.checks.delivered(process.member, digest)
        process.learner.adopt(step, model)
        due = (step + 1) % self._saving == 0
        saved = Save(step + 1, process.learner.state() if due else None)
        self._local(process, saved, self._work.expovariate(1 / WORK_S))
        if honest and self._adopted is not None:
            self._adopted(process.member, step + 1, model)

    def _mix(self, process: Process, mix: Mix) -> None:
        gathered, me = mix.gathered, process.member
        honest = me in self._honest
        if honest:
            self.checks.mixes(me, gathered)
        rows = [self._held(process, digest) for _, digest in gathered.values]
        own = [index for index, (peer, _) in enumerate(gathered.values) if peer == me]
        slot = gathered.slot
        mixed, _ = process.learner.mix(slot.step, slot.exchange, rows, own[0] if own else None)
        if honest:
            self.checks.mixed(me, gathered, [widen(row) for row in rows], mixed)
        self._made(process, mix.into, mixed, lambda digest: Mixed(gathered.slot, digest))

    def _outcome(self, process: Process, digest: Digest) -> Vector:
        """What came of an exchange; where one broadcast is all, that is what was announced."""
        outcome = process.vectors.outcome(digest)
        return outcome if outcome is not None else widen(self._held(process, digest))

    def _held(self, process: Process, digest: Digest) -> Announced:
        vector = process.vectors.get(digest)
        if vector is None:
            raise Violation("availability", f"{process.member} uses bytes that it does not hold")
        return vector

    def _made(self, process: Process, into: Slot | None, vector: Vector, event: Callable[[Digest], Event]) -> None:
        digest = self._keep(process, into, vector)
        self._local(process, event(digest), self._work.expovariate(1 / WORK_S))

    def _keep(self, process: Process, into: Slot | None, vector: Vector) -> Digest:
        """Take a vector of one's own: rounded and durable before it is proposed."""
        if into is None:
            digest = digest_of(vector)
            process.vectors.put_outcome(digest, vector)
            return digest
        announced = narrow(vector, self.scenario.recipe.dtype)
        digest, announced = process.disk.propose(into, digest_of(announced), announced)
        process.vectors.put(into, digest, announced)
        self._has(process, digest)
        return digest

    def _has(self, process: Process, digest: Digest) -> None:
        self.checks.has(process.member, digest)

    # Beginnings.

    def _stream(self, concern: str) -> Random:
        """Randomness of its own for each concern, so that a draw more here moves nothing there."""
        scenario = self.scenario
        return Random(f"{self.seed} {concern} {scenario.schedule} {scenario.attacks}")

    def _signatures(self) -> tuple[dict[PeerId, Sign], Callable[[PeerId, bytes, Signature], bool]]:
        members = self.scenario.committee.members
        if not self.scenario.real_signatures:
            ideal = Ideal()
            return {member: partial(ideal.sign, member) for member in members}, ideal.verify
        keys = self._stream("keys")
        identities = {member: Identity.of_seed(keys.randbytes(32)) for member in members}
        ring = KeyRing([identity.public_key for identity in identities.values()])
        return {member: identity.sign for member, identity in identities.items()}, ring

    def _quiet_deliveries(self) -> int:
        scenario = self.scenario
        slots = scenario.steps * scenario.recipe.slots(scenario.steps)
        return scenario.nodes * slots + quiet(scenario, self.length).messages


def _lane(payload: Payload) -> type[Any]:
    """What keeps its order, where links keep any, among its like."""
    if isinstance(payload, Bytes | Holding):
        return type(payload)
    return Evidence if isinstance(payload, Received) and isinstance(payload.message, Evidence) else Received


class Ideal:
    """Signatures that nobody can forge, since whoever verifies remembers what was signed."""

    def __init__(self) -> None:
        self._signed: dict[tuple[PeerId, bytes], Signature] = {}

    def sign(self, member: PeerId, statement: bytes) -> Signature:
        """The one signature of this member on this statement."""
        signature = blake2b(statement, key=b"%d" % member, digest_size=64).digest()
        return self._signed.setdefault((member, statement), signature)

    def verify(self, member: PeerId, statement: bytes, signature: Signature) -> bool:
        return self._signed.get((member, statement)) == signature
