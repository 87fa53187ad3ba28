"""A Byzantine peer: an honest node whose effects pass through a tampering function.

The honest core echoes for others and follows the network, so that it is always where it can do harm. What it proposes
is replaced: by one lie for all, or by two, each under a header of its own, for two groups of peers. What it says is
kept from some. The same function makes the liars of a testnet and of a simulation.

A lie that comes after n−f honest vectors harms nobody. So a lie about vectors is told when the step begins, over a
forecast of the honest ones: those of the step before, moved as the model moved since. Where there is no forecast it is
told as soon as enough honest vectors were seen. In no case is time lost on a gradient of one's own, but where one's own
honest vector is what the lie is made of.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch

from p2pnode.byzantine import ON_THE_PROTOCOL, check_attacks, parse
from p2pnode.byzantine.forgery import Sign, echo_of, forgeries, slander, stretched
from p2pnode.byzantine.schemes import Scheme, scheme_of
from p2pnode.byzantine.vectors import Situation, reflection
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Ask, Identity, unasked
from p2pnode.learning.wire import narrow, widen
from p2pnode.node import Adopt, Connected, Event, Node, NodeEffect, Received, Release, Train, Trained
from p2pnode.recipe import BROADCASTS
from p2pnode.storage.vectors import Vector, Vectors, digest_of
from protocols import effects
from protocols.broadcast import Broadcast
from protocols.effects import (
    Accuse,
    BroadcastMessage,
    Certificate,
    Deliver,
    DigestEcho,
    Echo,
    Effect,
    Evidence,
    Hello,
    Message,
    Proposal,
    Ready,
    Report,
    Send,
    Stream,
)
from protocols.header import Claim, Digest, Header, PeerId, Signature, SignedHeader, Slot
from protocols.signed_echo import SignedEcho

SEEN_MIN = 2
"""Honest vectors of other peers to collude over before a lie is told without a forecast. More come too late."""

TOLD = 0.5
"""Chance of a peer to be told, or sent, what is kept from some. Both none and all come up often among few peers."""

HEARD_MAX = 256
"""Words that who replays remembers, the latest; and headers. A few steps of a small network."""

REPLAYED = 8
"""Words said again to each peer in each slot."""


class FaithlessSigner:
    """Signs whatever it is asked to."""

    def __init__(self, sign: Sign) -> None:
        self._sign = sign

    def sign(self, claim: Claim) -> Signature | None:
        return self._sign(claim.statement)

    def promise(self, claim: Claim) -> bool:
        return True

    def promised(self, place: str) -> bytes | None:
        return None


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
        sign: signs a statement as this member.
        attacks: names of `ATTACKS` or of plug-ins, each with its parameter if it has one.
        liars: all members that lie; they collude.
        seed: of the attack's randomness.

    Raises:
        ConfigError: if an attack is none, or is a plug-in's that cannot be used.
    """

    def __init__(
        self,
        node: Node,
        vectors: Vectors,
        sign: Sign,
        attacks: Sequence[str],
        liars: Collection[PeerId],
        seed: int,
    ) -> None:
        self._node = node
        self._vectors = vectors
        self._sign = sign
        self._party = replace(node.party, signer=FaithlessSigner(sign))
        self._me = node.party.me
        self._peers = [peer for peer in node.party.committee.members if peer != self._me]
        asked = [parse(attack) for attack in attacks]
        self._attacks = frozenset(attack.name for attack in asked)
        # About vectors, in turn by step; None where the labels are the lie and the vector is not.
        self._schemes = [scheme_of(attack) for attack in asked if attack.name not in ON_THE_PROTOCOL]
        self._liars = frozenset(liars) | {self._me}
        self._random = Random(f"{seed} {self._me}")
        self._generator = torch.Generator().manual_seed(seed * 1024 + self._me)
        self._models: list[Vector] = []
        self._seen: dict[Slot, dict[PeerId, Digest]] = {}
        self._lies: dict[Slot, list[Lie]] = {}
        self._abetted: dict[Slot, set[Header]] = {}
        self._made_up: SignedHeader | None = None
        self._kept_back: dict[tuple[Slot, PeerId, Digest], Header] = {}
        self._words: deque[Message] = deque(maxlen=HEARD_MAX)

    def handle(self, event: Event) -> list[NodeEffect]:
        """What the honest core would do, tampered with."""
        if "silent" in self._attacks:
            spoken = (Send, effects.Broadcast, Stream, Accuse)
            return [effect for effect in self._node.handle(event) if not isinstance(effect, spoken)]
        out = [*self._drip(event), *(part for effect in self._respond(event) for part in self._withhold(effect))]
        said = (effect.message for effect in out if isinstance(effect, effects.Broadcast))
        self._words.extend(message for message in said if not isinstance(message, Evidence))
        return out

    def _respond(self, event: Event) -> list[NodeEffect]:
        out: list[NodeEffect] = []
        if isinstance(event, Received) and not isinstance(event.message, Hello | Evidence):
            self._note(event.message)
            self._words.append(event.message)
            out += self._abet(event.message)
            if isinstance(event.message, Echo):
                out += self._stretch(event.sender, event.message)
            if not isinstance(event.message, Report) and event.message.origin == self._me:
                out += self._answer(event.sender, event.message)
        out += [part for effect in self._node.handle(event) for part in self._tamper(effect)]
        if isinstance(event, Connected):
            out += self._resume(event.peer)
        for slot in self._ready():
            out += self._lie(slot, self._honest(slot)) + self._pretend(slot)
        return out

    # Keeping things from some.

    def _withhold(self, effect: NodeEffect) -> list[NodeEffect]:
        """Leave the rest of the effect: the words, or the bytes, that are for peers who shall have them."""
        match effect:
            case Stream(header, to) if header.origin == self._me and self._attacks & {"withhold", "slow-drip"}:
                peers = [to] if to is not None else self._peers
                peers = self._some(peers) if "withhold" in self._attacks else peers
                if "slow-drip" not in self._attacks:
                    return [Stream(header, peer) for peer in peers]
                self._kept_back |= {(header.slot, peer, header.digest): header for peer in peers}
                return []
            case effects.Broadcast(message) if "selective" in self._attacks:
                return [Send(peer, message) for peer in self._some(self._peers)]
            case Send(to, message) if "selective" in self._attacks and not isinstance(message, Hello):
                return [effect] if self._some([to]) else []
            case _:
                return [effect]

    def _some(self, peers: Sequence[PeerId]) -> list[PeerId]:
        return [peer for peer in peers if self._random.random() < TOLD]

    def _drip(self, event: Event) -> list[NodeEffect]:
        """Send one peer bytes kept back, the oldest, whenever an honest peer proposes in a later slot.

        So it has gone on without them. A clock would say it otherwise, and there is none here.
        """
        match event:
            case Received(sender, Proposal(signed)) if sender == signed.header.origin not in self._liars:
                oldest = min(self._kept_back, default=None)
                if oldest is not None and oldest[0] < signed.header.slot:
                    return [Stream(self._kept_back.pop(oldest), oldest[1])]
        return []

    # Lies in the place of one's own vector.

    def _scheme(self, slot: Slot) -> Scheme | None:
        """How to lie about the vector of this slot, if at all."""
        return self._schemes[slot.step % len(self._schemes)] if self._schemes else None

    def _colludes(self, slot: Slot) -> bool:
        """Whether the lie of this slot is made of what others say, so that nothing of one's own need be waited for."""
        scheme = self._scheme(slot)
        return scheme is not None and not scheme.wants_own

    def _pretend(self, slot: Slot) -> list[NodeEffect]:
        """Let the core take the lie for what it trained, once there is one."""
        if slot not in self._lies or slot != self._node.position or not self._node.training:
            return []
        digest = self._lies[slot][0].digest
        return [part for effect in self._node.handle(Trained(slot.step, digest)) for part in self._tamper(effect)]

    def _note(self, message: Message) -> None:
        if isinstance(message, Proposal | Certificate | DigestEcho) and message.origin not in self._liars:
            self._seen.setdefault(message.slot, {})[message.origin] = message.signed.header.digest

    def _tamper(self, effect: NodeEffect) -> list[NodeEffect]:
        if isinstance(effect, Release):
            self._forget(effect)
        if isinstance(effect, Accuse) or _convicts(effect):
            return []
        if isinstance(effect, Adopt) and (model := self._vectors.outcome(effect.digest)) is not None:
            self._models = [*self._models[-1:], model]
        if isinstance(effect, Train) and self._colludes(Slot(effect.step)):
            slot, forecast = Slot(effect.step), self._forecast(effect.step)
            lie = self._lie(slot, forecast) if forecast and slot not in self._lies else []
            return lie + self._pretend(slot)
        return self._replace_own(effect)

    def _replace_own(self, effect: NodeEffect) -> list[NodeEffect]:
        """What concerns one's own vector is said of the lies instead."""
        slot, proposed = _about(effect, self._me)
        if slot is None:
            return [effect]
        if slot in self._lies or self._colludes(slot):
            return []
        lies = self._scheme(slot) is not None or "equivocate" in self._attacks
        if isinstance(effect, Stream) and lies:  # the lies' bytes come with their headers
            return []
        besides = self._besides(slot) if proposed is not None else []
        truth = self._vectors.get(proposed) if proposed is not None else None
        if lies and truth is not None:
            return self._lie(slot, {self._me: widen(truth)}) + besides
        return [effect, *besides]

    def _forget(self, release: Release) -> None:
        for table, oldest in ((self._seen, release.before), (self._lies, release.own), (self._abetted, release.own)):
            for slot in [slot for slot in table if slot < oldest]:
                del table[slot]
        self._kept_back = {key: header for key, header in self._kept_back.items() if header.slot >= release.own}

    def _forecast(self, step: int) -> dict[PeerId, Vector]:
        """What the honest will propose in this step: what they did in the last one, moved as the model moved.

        Nothing where all of them are waited for, and so is the lie: it can be made of what they do propose.
        """
        last = Slot(step - 1)
        if last not in self._seen or self._waited_for(Slot(step)):
            return {}
        if self._node.recipe.exchanges[0].what == "gradient":
            return self._honest(last)
        if len(self._models) < 2:
            return {}
        before, after = self._models
        with np.errstate(invalid="ignore"):  # who says infinity may come to believe it
            return {member: vector + (after - before) for member, vector in self._honest(last).items()}

    def _ready(self) -> list[Slot]:
        """Slots in which the time has come to lie."""
        return [
            slot
            for slot in self._seen
            if self._colludes(slot) and slot not in self._lies and len(self._honest(slot)) >= self._enough(slot)
        ]

    def _enough(self, slot: Slot) -> int:
        """Of how many honest vectors a lie is made: all where it is waited for; else few, or it comes too late."""
        honest = self._party.committee.n - len(self._liars)
        return honest if self._waited_for(slot) else min(SEEN_MIN, honest)

    def _waited_for(self, slot: Slot) -> bool:
        """Whether no member goes on without every other one's vector, this one's too."""
        exchanges, committee = self._node.recipe.exchanges, self._party.committee
        return slot.exchange < len(exchanges) and exchanges[slot.exchange].quorum(committee) == committee.n

    def _honest(self, slot: Slot) -> dict[PeerId, Vector]:
        """The honest vectors of this slot that are here, by member."""
        held = ((member, self._vectors.get(digest)) for member, digest in sorted(self._seen[slot].items()))
        return {member: widen(vector) for member, vector in held if vector is not None}

    def _lie(self, slot: Slot, seen: Mapping[PeerId, Vector]) -> list[NodeEffect]:
        """Tell the lies of this slot, made of what is seen: the honest vectors of others, or one's own."""
        scheme, situation = self._scheme(slot), self._situation(slot, seen)
        if scheme is not None and scheme.to_each:
            return self._tell_each(scheme, situation) + self._besides(slot)
        lie = scheme.lie(situation) if scheme is not None else situation.honest[0]
        besides = self._besides(slot) if self._colludes(slot) else []
        if "equivocate" not in self._attacks:
            return self._tell(slot, lie, self._peers) + besides
        few = self._few()
        many = [peer for peer in self._peers if peer not in few or self._random.random() < TOLD / 2]
        other = reflection(lie, situation.honest.mean(dim=0)) if self._colludes(slot) else -lie
        return self._tell(slot, lie, many) + self._tell(slot, other, few) + besides

    def _situation(self, slot: Slot, seen: Mapping[PeerId, Vector]) -> Situation:
        exchange, committee = self._node.recipe.exchanges[slot.exchange], self._party.committee
        models = self._models if exchange.what == "model" else []
        honest = torch.from_numpy(np.stack(list(seen.values())))
        return Situation(
            honest=honest,
            members=tuple(seen),
            slot=slot,
            n=committee.n,
            f=committee.f,
            liars=len(self._liars),
            rule=exchange.rule,
            generator=self._generator,
            own=None if self._colludes(slot) else honest[0],
            centre=torch.from_numpy(models[-1]) if models else None,
        )

    def _tell_each(self, scheme: Scheme, situation: Situation) -> list[NodeEffect]:
        """Another lie for each peer whose vector is known; one more for all others."""
        rows = {PeerId(member): row for row, member in enumerate(situation.members)}
        others = [peer for peer in self._peers if peer not in rows]
        told = [(replace(situation, target=row), [peer]) for peer, row in rows.items() if peer != self._me]
        told += [(situation, others)] if others else []
        return [part for one, peers in told for part in self._tell(situation.slot, scheme.lie(one), peers)]

    def _few(self) -> list[PeerId]:
        """Honest peers to be told the second lie: as many as leave the first one its echo quorum, drawn anew."""
        honest = [peer for peer in self._peers if peer not in self._liars]
        spare = max(1, self._party.committee.n - self._party.committee.echo_quorum)
        return self._random.sample(honest, min(spare, len(honest)))

    def _tell(self, slot: Slot, lie: torch.Tensor, told: Sequence[PeerId]) -> list[NodeEffect]:
        party = self._party
        vector = narrow(lie.contiguous().numpy(), party.dtype)
        digest = digest_of(vector)
        if vector.size == self._vectors.length:
            self._vectors.put(slot, digest, vector)
        else:
            # Past the door that keeps honest nodes from such a vector. Its header gives it away in every other step.
            self._vectors._own[digest] = (slot, vector)
            party = replace(party, length=vector.size) if slot.step % 2 == 0 else party
        broadcast = self._broadcast(slot)(party, slot, self._me)
        one = Lie(digest, broadcast, tuple(told))
        self._lies.setdefault(slot, []).append(one)
        return [part for effect in broadcast.start(digest) for part in _told(effect, one)]

    def _broadcast(self, slot: Slot) -> type[Broadcast]:
        return BROADCASTS[self._node.recipe.exchanges[slot.exchange].broadcast]

    def _answer(self, sender: PeerId, message: BroadcastMessage) -> list[NodeEffect]:
        """Carry on the broadcasts of the lies, each with the votes for it."""
        lies = [lie for lie in self._lies.get(message.slot, []) if _voted(message) in (None, lie.digest)]
        return [part for lie in lies for effect in lie.broadcast.handle(sender, message) for part in _told(effect, lie)]

    def _resume(self, peer: PeerId) -> list[NodeEffect]:
        lies = [lie for told in self._lies.values() for lie in told if peer in lie.told]
        return [effect for lie in lies for effect in lie.broadcast.resume(peer)]

    # Votes.

    def _abet(self, message: Message) -> list[NodeEffect]:
        """Vouch for every header of a fellow liar, however many there are for a slot."""
        if "equivocate" not in self._attacks or not isinstance(message, Proposal | DigestEcho):
            return []
        signed, slot, origin = message.signed, message.slot, message.origin
        abetted = self._abetted.setdefault(slot, set())
        if origin not in self._liars or origin == self._me or signed.header in abetted:
            return []
        if not self._node.exists(slot) or slot < Slot(self._node.oldest):
            return []
        abetted.add(signed.header)
        return self._vouch(signed)

    def _vouch(self, signed: SignedHeader) -> list[NodeEffect]:
        kind, header = self._broadcast(signed.header.slot), signed.header
        if kind is SignedEcho:
            return [Send(header.origin, echo_of(signed, self._sign))]
        if kind.total:
            votes = (DigestEcho(signed), Ready(header.slot, header.origin, header.digest))
            return [Send(peer, vote) for vote in votes for peer in self._some(self._peers)]
        return []

    def _besides(self, slot: Slot) -> list[NodeEffect]:
        """What is said once a slot besides what is proposed in it."""
        out = self._forge(slot) if "forge" in self._attacks else []
        return out + (self._replay() if "replay" in self._attacks else [])

    def _replay(self) -> list[NodeEffect]:
        """Words and bytes of any slot that somebody said before, said again as they were, to each peer other ones."""
        words = list(self._words)
        out: list[NodeEffect] = []
        for peer in self._peers:
            for word in self._random.sample(words, min(REPLAYED, len(words))):
                out.append(Send(peer, word))
                if isinstance(word, Proposal):
                    out.append(Stream(word.signed.header, peer))
        return out

    def _forge(self, slot: Slot) -> list[NodeEffect]:
        """Words made up for some peers, and the bytes of what is said in one's own name."""
        vector = narrow(self._random.random() * np.ones(self._vectors.length, np.float32), self._party.dtype)
        digest = digest_of(vector)
        self._vectors.put(slot, digest, vector)
        header = self._party.header(self._me, slot, digest)
        self._made_up = mine = SignedHeader(header, self._sign(header.proposal().statement))
        out: list[NodeEffect] = [Stream(header, peer) for peer in self._some(self._peers)]
        for peer in self._peers:
            words = forgeries(self._party, mine, self._sign, self._random, self._node.recipe, self._node.steps)
            out += [Send(peer, word) for word in words if self._random.random() < TOLD]
            out.append(Send(peer, slander(self._party, mine, self._sign, digest[peer % len(digest)])))
        return out

    def _stretch(self, sender: PeerId, echo: Echo) -> list[NodeEffect]:
        """Of an echo of what was made up, if it is one, certificates to some peers."""
        made_up = self._made_up
        if made_up is None or (echo.slot, echo.origin) != (made_up.header.slot, self._me):
            return []
        words = stretched(made_up, (sender, echo.signature), self._sign, self._party.committee.echo_quorum)
        return [Send(peer, word) for peer in self._peers for word in words]


def liar(
    home: Home, attacks: Sequence[str], names: Collection[str], ask: Ask = unasked
) -> Callable[[Node, Vectors, Genesis], Liar]:
    """What makes a liar of the node of this home.

    Args:
        home: whose key signs the lies.
        attacks: names of `ATTACKS` or of plug-ins, each with its parameter if it has one, performed together; several
            about vectors take turns by step.
        names: the members that lie together.
        ask: gives the passphrase, if the key is sealed.

    Raises:
        ConfigError: if there is no such attack.
    """
    check_attacks(attacks)

    def tamper(node: Node, vectors: Vectors, genesis: Genesis) -> Liar:
        liars = [PeerId(index) for index, member in enumerate(genesis.members) if member.name in names]
        return Liar(node, vectors, Identity.load(home.key, ask).sign, attacks, liars, genesis.seed)

    return tamper


def _told(effect: Effect, lie: Lie) -> list[NodeEffect]:
    """A lie and the votes for it go to those it is for; a certificate goes to all."""
    match effect:
        case Stream(header, None):
            return [Stream(header, peer) for peer in lie.told]
        case effects.Broadcast(Proposal() | DigestEcho() | Ready() as message):
            return [Send(peer, message) for peer in lie.told]
        case Deliver() | Accuse():
            return []
        case _:
            return [effect]


def _convicts(effect: NodeEffect) -> bool:
    """Whether it spreads a proof: no liar does."""
    return isinstance(effect, Send | effects.Broadcast) and isinstance(effect.message, Evidence)


def _voted(message: BroadcastMessage) -> Digest | None:
    """The digest that a message votes for, if it says so."""
    match message:
        case DigestEcho(signed):
            return signed.header.digest
        case Ready(digest=digest):
            return digest
        case _:
            return None


def _about(effect: NodeEffect, me: PeerId) -> tuple[Slot | None, Digest | None]:
    """The slot, if the effect speaks of one's own vector; and the vector's digest, if it proposes it to all."""
    match effect:
        case Stream(header) if header.origin == me:
            return header.slot, None
        case effects.Broadcast(Proposal(signed)) if signed.header.origin == me:
            return signed.header.slot, signed.header.digest
        case Send(_, message) | effects.Broadcast(message) if not isinstance(message, Report | Hello | Evidence):
            return (message.slot, None) if message.origin == me else (None, None)
        case _:
            return None, None
