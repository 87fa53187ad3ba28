"""The pure node: composes the protocols by a recipe. Events in, effects out; no clock, no I/O, no vectors.

A step is: train, then for each exchange of the recipe an averaging agreement, then adopt what was agreed. The node
talks about the slot it is in and the one after it. What a faster peer says of later slots waits until the node gets
there, and holds up nothing else that the peer says: two slow nodes may need each other's echoes to go on. The driver
stops reading from a peer whose words pile up (`congested`), so nothing is lost and memory stays bounded. What a slower
peer says of the last steps (`retained`) is still answered, and whoever connects late is told all of them again.

Who was away for longer than its peers remember is left behind: some of what its slot needs will never come. It then
goes where f+1 peers are, at least one of them honest, and joins in with one more gather: of certified vectors of
others, from many peers, none of whom is trusted alone.
"""

from dataclasses import dataclass
from typing import TypeAlias

from p2pnode.recipe import BROADCASTS, Recipe
from protocols.agreement import Agreement
from protocols.effects import Accuse, Deliver, Effect, Expect, Fetch, Hello, Message, Send
from protocols.faults import Fault
from protocols.header import Digest, PeerId, Slot
from protocols.protocol import Party

DEFERRED_MAX = 1024
"""Messages about later slots that wait for one peer; the driver then stops reading from it. What it had read of that
peer before it stopped, at most one read of a socket, still joins them."""


@dataclass(frozen=True, slots=True)
class Started:
    """The driver is ready; comes once, first."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A link to this peer is up, for the first time or again."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Received:
    """A message came over the link of this peer."""

    sender: PeerId
    message: Message | Hello


@dataclass(frozen=True, slots=True)
class Arrived:
    """The bytes of a digest are here, checked, finite."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Unusable:
    """The bytes of a digest are here, and not finite."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Trained:
    """The vector of this step's `Train` is stored under this digest."""

    step: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Mixed:
    """The mixture that was asked for in this slot is stored under this digest."""

    slot: Slot
    digest: Digest


Event: TypeAlias = Started | Connected | Received | Arrived | Unusable | Trained | Mixed


@dataclass(frozen=True, slots=True)
class Train:
    """Compute this step's vector from the current model and one's own data; answer with `Trained`."""

    step: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """The model after this step is the vector of this digest."""

    step: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Release:
    """Others' vectors of slots before `before`, and one's own of slots before `own`, are needed no more."""

    before: Slot
    own: Slot


@dataclass(frozen=True, slots=True)
class Jump:
    """Left behind; went on at this step, and those between are skipped."""

    step: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The last step is taken."""


NodeEffect: TypeAlias = Effect | Train | Adopt | Release | Jump | Finish


class Node:
    """One member's part in the whole conversation.

    Args:
        party: whom it acts as.
        recipe: what a step exchanges.
        steps: how many steps the network takes.
        retained: how many past steps are still answered and told again, at least 1.
        first_step: the step to begin with, after a checkpoint.
    """

    def __init__(self, party: Party, recipe: Recipe, steps: int, retained: int = 1, first_step: int = 0) -> None:
        assert retained >= 1
        self.party = party
        self.recipe = recipe
        self.steps = steps
        self.retained = retained
        self.position = Slot(first_step)
        self.training = False
        self._first_step = first_step
        self._told_since: dict[PeerId, int] = {}
        self._heard_of = dict.fromkeys(party.committee.members, 0)
        self._agreements: dict[tuple[int, int], Agreement] = {}
        self._awaited: dict[Digest, set[tuple[int, int]]] = {}
        self._deferred: dict[PeerId, list[Message]] = {peer: [] for peer in party.committee.members}
        self._accused: set[PeerId] = set()

    @property
    def finished(self) -> bool:
        return self.position.step >= self.steps

    @property
    def waits_for(self) -> tuple[PeerId, ...]:
        """Members whose vector the current slot still lacks, while it waits for a quorum of them."""
        agreement = self._agreements.get((self.position.step, self.position.exchange))
        return agreement.missing if agreement is not None else ()

    @property
    def horizon(self) -> Slot:
        """The last slot that is talked about now."""
        return self._after(self.position)

    @property
    def oldest(self) -> int:
        """The oldest step that is still answered and told again."""
        return max(self._first_step, self.position.step - self.retained)

    def congested(self, peer: PeerId) -> bool:
        """Whether so much of this peer waits that no more should be read from it."""
        return len(self._deferred[peer]) >= DEFERRED_MAX

    def handle(self, event: Event) -> list[NodeEffect]:
        """What follows from an event, in order."""
        match event:
            case Started():
                return [Finish()] if self.finished else self._train()
            case Connected(peer):
                again = self._translate([e for agreement in self._in_order() for e in agreement.resume(peer)])
                return [Send(peer, Hello(self.oldest)), *again]
            case Received(sender, message):
                if isinstance(message, Hello):
                    self._told_since[sender] = message.since
                    return self._catch_up()
                return self._received(sender, message) + self._catch_up()
            case Arrived(digest):
                return self._translate([e for agreement in self._awaiting(digest) for e in agreement.arrived(digest)])
            case Unusable(digest):
                return self._translate([e for agreement in self._awaiting(digest) for e in agreement.unusable(digest)])
            case Trained(step, digest):
                if step != self.position.step:  # asked for before a jump
                    return []
                assert self.training
                self.training = False
                return self._translate(self._agreement(self.position).start(digest))
            case Mixed(slot, digest):
                return self._mixed(digest) if slot == self.position else []

    def _received(self, sender: PeerId, message: Message) -> list[NodeEffect]:
        slot = message.slot
        if not self._exists(slot):
            return self._accuse(sender)
        self._heard_of[sender] = max(self._heard_of[sender], slot.step)
        if slot > self.horizon:
            self._deferred[sender].append(message)
            return []
        return self._speak(sender, message)

    def _speak(self, sender: PeerId, message: Message) -> list[NodeEffect]:
        if message.slot.step < self.oldest:
            return []
        return self._translate(self._agreement(message.slot).handle(sender, message))

    def _mixed(self, digest: Digest) -> list[NodeEffect]:
        slot = self.position
        agreed = self._agreement(slot).mixed(digest)
        out: list[NodeEffect] = []
        if slot.sub_round + 1 < self.recipe.exchanges[slot.exchange].sub_rounds:
            out += self._move()
        return out + self._translate(agreed)

    def _agreed(self, digest: Digest) -> list[NodeEffect]:
        """An exchange has its outcome: it is the next exchange's value, or after the last one the model."""
        step, exchange = self.position.step, self.position.exchange
        moved = self._move()
        if exchange + 1 < len(self.recipe.exchanges):
            return [*moved, *self._translate(self._agreement(self.position).start(digest))]
        adopted: list[NodeEffect] = [Adopt(step, digest), *self._retire(), *moved]
        return [*adopted, Finish()] if self.finished else [*adopted, *self._train()]

    def _move(self) -> list[NodeEffect]:
        """Go to the next slot: forget vectors older than the one left, and hear out who was ahead."""
        left, self.position = self.position, self._after(self.position)
        return [Release(left, Slot(self.oldest)), *self._hear_out()]

    def _hear_out(self) -> list[NodeEffect]:
        """Take the words about slots that were yet to come and are not any more."""
        out: list[NodeEffect] = []
        for peer, waiting in self._deferred.items():
            due = [message for message in waiting if message.slot <= self.horizon]
            if due:
                self._deferred[peer] = [message for message in waiting if message.slot > self.horizon]
            for message in due:
                out += self._speak(peer, message)
        return out

    def _retire(self) -> list[NodeEffect]:
        """Drop the agreements that are answered no more, with their last words."""
        self._awaited = {digest: keys for digest, keys in self._awaited.items() if max(keys) >= (self.oldest, 0)}
        old = [key for key in self._agreements if key[0] < self.oldest]
        return self._translate([e for key in sorted(old) for e in self._agreements.pop(key).close()])

    def _catch_up(self) -> list[NodeEffect]:
        """Jump, if something of this step will never come and f+1 peers are beyond what is talked about here."""
        frontier = sorted(self._heard_of.values(), reverse=True)[self.party.committee.f]
        lost = any(since > self.position.step for since in self._told_since.values())
        if not lost or frontier < self.position.step + 2:
            return []
        self.training = False
        self.position = Slot(frontier)
        joined = self._translate(self._agreement(self.position).join())
        released = Release(self.position, Slot(self.oldest))
        return [Jump(frontier), *self._retire(), released, *joined, *self._hear_out()]

    def _train(self) -> list[NodeEffect]:
        self.training = True
        return [Train(self.position.step)]

    def _translate(self, effects_: list[Effect]) -> list[NodeEffect]:
        """An agreement's outcome moves the node on; everything else is the driver's."""
        out: list[NodeEffect] = []
        for effect in effects_:
            if isinstance(effect, Deliver):
                assert isinstance(effect.value, bytes)
                out += self._agreed(effect.value)
                continue
            if isinstance(effect, Expect | Fetch):
                slot = effect.header.slot
                self._awaited.setdefault(effect.header.digest, set()).add((slot.step, slot.exchange))
            out.append(effect)
        return out

    def _agreement(self, slot: Slot) -> Agreement:
        key = (slot.step, slot.exchange)
        if key not in self._agreements:
            exchange = self.recipe.exchanges[slot.exchange]
            self._agreements[key] = Agreement(
                self.party, Slot(*key), exchange.sub_rounds, BROADCASTS[exchange.broadcast]
            )
        return self._agreements[key]

    def _awaiting(self, digest: Digest) -> list[Agreement]:
        """The agreements that asked for the bytes of a digest."""
        keys = self._awaited.pop(digest, set())
        return [self._agreements[key] for key in sorted(keys) if key in self._agreements]

    def _in_order(self) -> list[Agreement]:
        return [self._agreements[key] for key in sorted(self._agreements)]

    def _exists(self, slot: Slot) -> bool:
        exchanges = self.recipe.exchanges
        return (
            slot.step < self.steps
            and slot.exchange < len(exchanges)
            and slot.sub_round < exchanges[slot.exchange].sub_rounds
        )

    def _after(self, slot: Slot) -> Slot:
        if slot.sub_round + 1 < self.recipe.exchanges[slot.exchange].sub_rounds:
            return Slot(slot.step, slot.exchange, slot.sub_round + 1)
        if slot.exchange + 1 < len(self.recipe.exchanges):
            return Slot(slot.step, slot.exchange + 1)
        return Slot(slot.step + 1)

    def _accuse(self, sender: PeerId) -> list[NodeEffect]:
        if sender in self._accused:
            return []
        self._accused.add(sender)
        return [Accuse(sender, Fault.OUT_OF_TURN)]
