"""A seeded network of unmodified nodes in memory: ideal signatures, digests without vectors, any order of delivery.

It performs effects as the driver does, and checks the guarantees at every delivery; `Broken` names the one that failed.
"""

from collections import Counter
from dataclasses import dataclass
from random import Random

import numpy as np

from p2pnode.node import (
    Adopt,
    Arrived,
    Connected,
    Finish,
    Jump,
    Mixed,
    Node,
    Received,
    Release,
    Started,
    Train,
    Trained,
)
from p2pnode.recipe import Exchange, Recipe
from p2pnode.storage.vectors import Vectors, Verdict
from protocols.effects import Accuse, Broadcast, Certificate, Expect, Fetch, Mix, Send, Stream
from protocols.header import Digest, PeerId, Slot
from tests.ideal import NETWORK, Signer, digest, party, verify

DELIVERIES_MAX = 20_000
"""Many times what any run here needs."""
VECTOR = np.zeros(1, np.float32)


class Broken(AssertionError):
    """A guarantee that did not hold."""


@dataclass(frozen=True)
class Bytes:
    slot: Slot
    digest: Digest


@dataclass(frozen=True)
class Want:
    digest: Digest


@dataclass(frozen=True)
class Ask:
    holder: PeerId
    digest: Digest


class World:
    """n nodes; `liars` maps a member to what makes its conversation, or to None where it is silent from the start."""

    def __init__(self, seed, n=4, f=1, steps=3, sub_rounds=1, kind="signed-echo", liars=None, **options):
        self.n, self.f, self.steps = n, f, steps
        self.random = Random(f"{seed}")
        self.recipe = Recipe("test", (Exchange("model", kind, "trimmed-mean", sub_rounds),))
        self.duplicates = options.get("duplicates", 0.0)
        self.delays = options.get("delays", lambda source, to, item: False)
        self.retained = options.get("retained", 1)
        self.ordered = options.get("ordered", False)
        self.forgetful = options.get("forgetful", Signer)
        self.pending, self.late, self.cut = [], [], set()
        self.accusations, self.gathered, self.finished, self.delivered = [], {}, set(), Counter()
        self.restarts, self.jumps = Counter(), Counter()
        self.had = {peer: set() for peer in range(n)}
        self.waiting = {peer: [] for peer in range(n)}
        self.vectors = {peer: Vectors(1) for peer in range(n)}
        self.signers = {peer: self.forgetful(peer) for peer in range(n)}
        self.nodes = {peer: self._node(peer, 0) for peer in range(n)}
        liars = liars or {}
        self.honest = [peer for peer in range(n) if peer not in liars]
        self.peers = dict(self.nodes) | {peer: lie and lie(self, peer) for peer, lie in liars.items()}
        for peer in range(n):
            self.post(peer, peer, Started())
            for other in range(peer):
                self.connect(peer, other)

    def _node(self, me, step):
        return Node(party(me, self.n, self.f, self.signers[me]), self.recipe, self.steps, self.retained, step)

    def post(self, source, to, item):
        if frozenset((source, to)) in self.cut or self.peers[to] is None:
            return
        twice = isinstance(item, Received | Bytes) and self.random.random() < self.duplicates
        queue = self.late if self.delays(source, to, item) else self.pending
        queue.extend([(source, to, item)] * (1 + twice))

    def run(self, disturb=lambda: None):
        """Until nothing is left to deliver and every link is back; then every honest node must have finished."""
        for _ in range(DELIVERIES_MAX):
            disturb()
            if not self.pending:
                self.pending, self.late, self.delays = self.late, [], lambda source, to, item: False
            if not self.pending:
                for pair in list(self.cut):
                    self.connect(*pair)
            if not self.pending:
                break
            self.deliver()
        if self.finished != set(self.honest):
            raise Broken(f"liveness: {self.finished} of {self.honest} finished")
        return self

    def deliver(self):
        index = self.random.randrange(len(self.pending))
        if self.ordered:  # the oldest of its lane
            lane = self._lane(self.pending[index])
            index = next(i for i, entry in enumerate(self.pending) if self._lane(entry) == lane)
            source, to, item = self.pending.pop(index)
        else:
            self.pending[index], self.pending[-1] = self.pending[-1], self.pending[index]
            source, to, item = self.pending.pop()
        if self._waits(source, to, item):
            self.waiting[to].append((source, to, item))
            return
        self._take(source, to, item)
        ready = [entry for entry in self.waiting[to] if not self._waits(*entry)]
        self.waiting[to] = [entry for entry in self.waiting[to] if entry not in ready]
        self.pending[:0] = ready

    def restart(self, me):
        """Kill a node, losing all that is under way to and from it, and start it again from its last checkpoint."""
        self.restarts[me] += 1
        for peer in range(self.n):
            self.sever(me, peer)
        self.cut.discard(frozenset((me,)))
        self.nodes[me] = self.peers[me] = self._node(me, self.nodes[me].position.step)
        self.vectors[me] = Vectors(1)
        self.vectors[me].window(self.nodes[me].position, self.nodes[me].position, self.nodes[me].horizon)
        if not self.nodes[me].finished:
            self.handle(me, Started())
        for peer in range(self.n):
            if peer != me:
                self.connect(me, peer)

    def sever(self, one, other):
        """Lose the link, and all that is under way over it."""
        pair = frozenset((one, other))
        self.cut.add(pair)
        self.pending = [entry for entry in self.pending if frozenset(entry[:2]) != pair]
        self.late = [entry for entry in self.late if frozenset(entry[:2]) != pair]
        for peer in pair:
            self.waiting[peer] = [entry for entry in self.waiting[peer] if frozenset(entry[:2]) != pair]

    def connect(self, one, other):
        self.cut.discard(frozenset((one, other)))
        self.post(one, other, Connected(PeerId(one)))
        self.post(other, one, Connected(PeerId(other)))

    def _lane(self, entry):
        return entry[:2], isinstance(entry[2], Bytes)

    def _waits(self, source, to, item):
        if isinstance(item, Bytes):
            return self.vectors[to].judge(source, item.slot, item.digest, VECTOR.nbytes) is Verdict.WAIT
        return isinstance(item, Received) and self.nodes[to].congested(PeerId(source))

    def _take(self, source, to, item):
        vectors = self.vectors[to]
        match item:
            case Bytes(slot, named):
                if vectors.judge(source, slot, named, VECTOR.nbytes) is Verdict.TAKE and vectors.take(named, VECTOR):
                    self.handle(to, Arrived(named))
            case Ask(holder, named):
                if vectors.ask(named, holder) is not None:
                    self.post(to, holder, Want(named))
            case Want(named):
                if vectors.get(named) is not None:
                    self.post(to, source, Bytes(self.nodes[to].position, named))
            case _:
                self.handle(to, item)

    def handle(self, me, event):
        if isinstance(event, Arrived):
            self.had[me].add(event.digest)
        if isinstance(event, Received) and me in self.honest:
            self.delivered[me] += 1
        for effect in self.peers[me].handle(event):
            self._perform(PeerId(me), effect)

    def _perform(self, me, effect):
        others = [peer for peer in range(self.n) if peer != me]
        match effect:
            case Send(to, message):
                self._check_available(message)
                self.post(me, to, Received(me, message))
            case Broadcast(message):
                self._check_available(message)
                for peer in others:
                    self.post(me, peer, Received(me, message))
            case Stream(header, to):
                if self.vectors[me].get(header.digest) is not None:
                    for peer in others if to is None else [to]:
                        self.post(me, peer, Bytes(header.slot, header.digest))
            case Expect(header):
                self._expect(me, header)
            case Fetch(header, holders):
                self._expect(me, header)
                for holder in holders:
                    self.post(me, me, Ask(holder, header.digest))
            case Accuse():
                self._accused(me, effect)
            case Train(step):
                self._made(me, Slot(step), Trained(step, self.trained(me, step)))
            case Mix(gathered):
                self._mixes(me, gathered)
                self._made(me, self.nodes[me].horizon, Mixed(gathered.slot, digest(gathered.values)))
            case Adopt(_, named):
                assert self.vectors[me].get(named) is not None
            case Release(before, own):
                self.vectors[me].window(before, own, self.nodes[me].horizon)
            case Jump():
                self.jumps[me] += 1
            case Finish():
                self.finished |= {int(me)} & set(self.honest)

    def trained(self, me, step):
        """Computed again after a restart it comes out the same, as the driver sees to."""
        return digest(int(me), step)

    def _expect(self, me, header):
        if self.vectors[me].expect(header):
            self.post(me, me, Arrived(header.digest))

    def _made(self, me, slot, event):
        self.vectors[me].put(slot, event.digest, VECTOR)
        self.had[me].add(event.digest)
        self.post(me, me, event)

    def _mixes(self, me, gathered):
        if me not in self.honest:
            return
        joined = me not in dict(gathered.values)  # after a jump
        if len(gathered.values) < self.n - self.f - joined or joined > self.jumps[me]:
            raise Broken(f"quorum: {me} mixes {len(gathered.values)} values in {gathered.slot}")
        for origin, named in gathered.values:
            if self.vectors[me].get(named) is None:
                raise Broken(f"availability: {me} mixes what it does not hold")
            if origin == me and self.restarts[me]:
                continue  # what its signer may refuse to propose, since another one was signed before the crash
            if self.gathered.setdefault((origin, gathered.slot), named) != named and "plain" not in str(self.recipe):
                raise Broken(f"consistency: two values of {origin} in {gathered.slot} are mixed")

    def _accused(self, me, accusation):
        if accusation.peer in self.honest:
            raise Broken(f"innocence: {me} accuses {accusation.peer} of {accusation.fault}")
        if accusation.evidence is not None and not accusation.evidence.holds(NETWORK, verify):
            raise Broken("evidence: it does not hold")
        self.accusations.append((int(me), accusation))

    def _check_available(self, message):
        """A certificate that an honest echo is part of names honest members that had the bytes."""
        if isinstance(message, Certificate):
            for member, signature in message.echoes:
                genuine = verify(member, message.signed.header.echo().statement, signature)
                if member in self.honest and genuine and message.signed.header.digest not in self.had[member]:
                    raise Broken(f"availability: {member} echoed what it does not hold")
