"""A Byzantine peer: an honest node whose effects pass through a tampering function.

The honest core echoes for others and follows the network, so that it is always where it can do harm. What it proposes
is replaced: by one lie for all, or by two, each under a header of its own, for two groups of peers.

A lie that comes after n−f honest vectors harms nobody. So a lie about vectors is told when the step begins, over a
forecast of the honest ones: those of the step before, moved as the model moved since. Where there is no forecast it is
told as soon as enough honest vectors were seen. In no case is time lost on a gradient of one's own.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch

from p2pnode.byzantine import check_attacks
from p2pnode.byzantine.vectors import VECTOR_ATTACKS, reflection
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity
from p2pnode.node import Adopt, Connected, Event, Node, NodeEffect, Received, Release, Train, Trained
from p2pnode.recipe import BROADCASTS
from p2pnode.storage.vectors import Vector, Vectors, digest_of
from protocols import effects
from protocols.broadcast import Broadcast
from protocols.effects import Accuse, Certificate, Deliver, Echo, Effect, Proposal, Send, Stream
from protocols.header import Claim, Digest, Header, PeerId, Signature, Slot
from protocols.protocol import Party

SEEN_MIN = 2
"""Honest vectors of other peers to collude over before a lie is told without a forecast. More come too late."""


class FaithlessSigner:
    """Signs whatever it is asked to."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def sign(self, claim: Claim) -> Signature | None:
        return self._identity.sign(claim.statement)


@dataclass(frozen=True, slots=True)
class Lie:
    """One of the vectors proposed for a slot, and the peers that are told it."""

    digest: Digest
    broadcast: Broadcast
    told: tuple[PeerId, ...]


class Liar:
    """A `Node` that attacks.

    Args:
        node: the honest core.
        vectors: what the node holds.
        identity: signs the lies.
        attacks: names of `ATTACKS`.
        liars: all members that lie; they collude.
        seed: of the attack's randomness.
    """

    def __init__(
        self,
        node: Node,
        vectors: Vectors,
        identity: Identity,
        attacks: Sequence[str],
        liars: Collection[PeerId],
        seed: int,
    ) -> None:
        self._node = node
        self._vectors = vectors
        party = node.party
        self._party = Party(
            party.me,
            party.committee,
            party.network,
            party.dtype,
            party.length,
            FaithlessSigner(identity),
            party.verify,
        )
        self._silent = "silent" in attacks
        self._equivocates = "equivocate" in attacks
        self._vector_attacks = [VECTOR_ATTACKS[name] for name in attacks if name in VECTOR_ATTACKS]
        self._liars = frozenset(liars) | {party.me}
        self._random = Random(f"{seed} {party.me}")
        self._generator = torch.Generator().manual_seed(seed * 1024 + party.me)
        self._models: list[Vector] = []
        self._seen: dict[Slot, dict[PeerId, Digest]] = {}
        self._lies: dict[Slot, list[Lie]] = {}

    def handle(self, event: Event) -> list[NodeEffect]:
        """What the honest core would do, tampered with."""
        if isinstance(event, Received):
            if isinstance(event.message, Proposal | Certificate):
                self._note(event.message.signed.header)
            if isinstance(event.message, Echo) and event.message.origin == self._party.me:
                return self._echoed(event.sender, event.message)
        honest = self._node.handle(event)
        if self._silent:
            return [effect for effect in honest if not isinstance(effect, Send | effects.Broadcast | Stream | Accuse)]
        out = [part for effect in honest for part in self._tamper(effect)]
        if isinstance(event, Connected):
            out += self._resume(event.peer)
        if self._vector_attacks:
            for slot in self._ready():
                out += self._lie(slot, self._honest(slot)) + self._pretend(slot)
        return out

    def _pretend(self, slot: Slot) -> list[NodeEffect]:
        """Let the core take the lie for what it trained, once there is one."""
        if slot not in self._lies or slot != self._node.position or not self._node.training:
            return []
        digest = self._lies[slot][0].digest
        return [part for effect in self._node.handle(Trained(slot.step, digest)) for part in self._tamper(effect)]

    def _note(self, header: Header) -> None:
        if header.origin not in self._liars:
            self._seen.setdefault(header.slot, {})[header.origin] = header.digest

    def _tamper(self, effect: NodeEffect) -> list[NodeEffect]:
        if isinstance(effect, Release):
            for table, oldest in ((self._seen, effect.before), (self._lies, effect.own)):
                for slot in [slot for slot in table if slot < oldest]:
                    del table[slot]
        if isinstance(effect, Accuse):
            return []
        if isinstance(effect, Adopt) and (model := self._vectors.get(effect.digest)) is not None:
            self._models = [*self._models[-1:], model]
        if isinstance(effect, Train) and self._vector_attacks:
            slot, forecast = Slot(effect.step), self._forecast(effect.step)
            lie = self._lie(slot, forecast) if forecast and slot not in self._lies else []
            return lie + self._pretend(slot)
        own = _own_proposal(effect, self._party.me)
        if own is None:
            return [effect]
        if self._vector_attacks or own.slot in self._lies:
            return []
        truth = self._vectors.get(own.digest)
        return [] if truth is None else self._lie(own.slot, [truth])

    def _forecast(self, step: int) -> list[Vector]:
        """What the honest will propose in this step: what they did in the last one, moved as the model moved."""
        last = Slot(step - 1)
        if last not in self._seen or len(self._models) < 2:
            return []
        before, after = self._models
        return [vector + (after - before) for vector in self._honest(last)]

    def _ready(self) -> list[Slot]:
        """Slots in which the time has come to lie."""
        enough = min(SEEN_MIN, self._party.committee.n - len(self._liars))
        return [slot for slot in self._seen if slot not in self._lies and len(self._honest(slot)) >= enough]

    def _honest(self, slot: Slot) -> list[Vector]:
        held = (self._vectors.get(digest) for _, digest in sorted(self._seen[slot].items()))
        return [vector for vector in held if vector is not None]

    def _lie(self, slot: Slot, seen: list[Vector]) -> list[NodeEffect]:
        honest = torch.from_numpy(np.stack(seen))
        lie = honest[0]
        if self._vector_attacks:
            lie = self._vector_attacks[slot.step % len(self._vector_attacks)](honest, self._generator)
        peers = [peer for peer in self._party.committee.members if peer != self._party.me]
        if not self._equivocates:
            return self._tell(slot, lie, peers)
        few = self._few(peers)
        many = [peer for peer in peers if peer not in few]
        other = reflection(lie, honest.mean(dim=0)) if self._vector_attacks else -lie
        return self._tell(slot, lie, many) + self._tell(slot, other, few)

    def _few(self, peers: list[PeerId]) -> list[PeerId]:
        """Honest peers to be told the second lie: as many as leave the first one its echo quorum, drawn anew."""
        honest = [peer for peer in peers if peer not in self._liars]
        spare = max(1, self._party.committee.n - self._party.committee.echo_quorum)
        return self._random.sample(honest, min(spare, len(honest)))

    def _tell(self, slot: Slot, lie: torch.Tensor, told: Sequence[PeerId]) -> list[NodeEffect]:
        vector = lie.contiguous().numpy()
        digest = digest_of(vector)
        self._vectors.put(slot, digest, vector)
        kind = BROADCASTS[self._node.recipe.exchanges[slot.exchange].broadcast]
        broadcast = kind(self._party, slot, self._party.me)
        self._lies.setdefault(slot, []).append(Lie(digest, broadcast, tuple(told)))
        return [part for effect in broadcast.start(digest) for part in self._told(effect, told)]

    def _told(self, effect: Effect, told: Sequence[PeerId]) -> list[NodeEffect]:
        """A proposal goes to those it is for, a certificate to all."""
        match effect:
            case Stream(header, None):
                return [Stream(header, peer) for peer in told]
            case effects.Broadcast(Proposal() as proposal):
                return [Send(peer, proposal) for peer in told]
            case Deliver() | Accuse():
                return []
            case _:
                return [effect]

    def _echoed(self, sender: PeerId, echo: Echo) -> list[NodeEffect]:
        answers = [lie.broadcast.handle(sender, echo) for lie in self._lies.get(echo.slot, [])]
        return [part for answer in answers for effect in answer for part in self._told(effect, ())]

    def _resume(self, peer: PeerId) -> list[NodeEffect]:
        lies = [lie for told in self._lies.values() for lie in told if peer in lie.told]
        return [effect for lie in lies for effect in lie.broadcast.resume(peer)]


def liar(home: Home, attacks: Sequence[str], names: Collection[str]) -> Callable[[Node, Vectors, Genesis], Liar]:
    """What makes a liar of the node of this home.

    Args:
        home: whose key signs the lies.
        attacks: names of `ATTACKS`, performed together; several vector attacks take turns by step.
        names: the members that lie together.

    Raises:
        ConfigError: if there is no such attack.
    """
    check_attacks(attacks)

    def tamper(node: Node, vectors: Vectors, genesis: Genesis) -> Liar:
        liars = [PeerId(index) for index, member in enumerate(genesis.members) if member.name in names]
        return Liar(node, vectors, Identity.load(home.key), attacks, liars, genesis.seed)

    return tamper


def _own_proposal(effect: NodeEffect, me: PeerId) -> Header | None:
    """The header, if the effect sends one's own vector or proposal."""
    match effect:
        case Stream(header) if header.origin == me:
            return header
        case Send(_, Proposal(signed)) | effects.Broadcast(Proposal(signed)) if signed.header.origin == me:
            return signed.header
        case _:
            return None
