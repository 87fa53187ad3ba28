"""The pure node: composes the protocols by a recipe. Events in, effects out; no clock, no I/O, no vectors.

A step is: train, then for each exchange of the recipe an averaging agreement, then adopt what was agreed. The node
talks about the slot it is in and the one after it. What a faster peer says of later slots waits until the node gets
there, and holds up nothing else that the peer says: two slow nodes may need each other's echoes to go on. The driver
stops reading from a peer whose words pile up (`congested`), so nothing is lost and memory stays bounded. What a slower
peer says of the last steps (`retained`) is still answered, and whoever connects late is told all of them again.

Who restarts begins in the last step it spoke in, with what it said there, and says again what it said in the step
before: so that a network of which all members stopped at once, in neighbouring steps, goes on.

Who is convicted of equivocation by one honest member is convicted by all (`protocols.conviction`).

Who was away for longer than its peers remember is left behind: some of what its slot needs will never come. It then
goes where f+1 peers are, at least one of them honest, and takes part in their step with what it has: one more gather,
of vectors from many peers, none of whom is trusted alone, brings it back among them. Its own value is stale, but no
lie, and its peers may need one.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from p2pnode.recipe import BROADCASTS, Recipe
from protocols.agreement import Agreement
from protocols.conviction import Convictions
from protocols.effects import (
    Accuse,
    Certificate,
    Deliver,
    Effect,
    Evidence,
    Expect,
    Fetch,
    Hello,
    Message,
    Mix,
    Report,
    Send,
)
from protocols.faults import Equivocation, Fault
from protocols.header import Claim, Digest, PeerId, Slot
from protocols.protocol import Party

RETAINED_STEPS_MIN = 3
"""Past steps that are answered whatever they take: with fewer, one lost link and one liar can leave an honest node
waiting for a peer that jumped over its slot."""

RETAINED_STEPS_MAX = 64
"""Past steps that are answered, at most; some 3 s of the fastest task, which is what starts of nodes lie apart."""

DEFERRED_MAX = 1024
"""Messages about later slots that wait for one peer, a long one counting as several; the driver then stops reading from
it. What it had taken of that peer before it stopped still joins them."""

_PARTS_OF_ONE = 32
"""Signatures, or members, in a message that counts as one: some 10 KiB."""


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
    message: Message | Hello | Evidence


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


@dataclass(frozen=True, slots=True)
class Descended:
    """The model after the `Descend` that was asked for in this slot is stored under this digest."""

    slot: Slot
    digest: Digest


@dataclass(frozen=True, slots=True)
class Differentiated:
    """The gradient of the `Differentiate` that was asked for in this slot is stored under this digest."""

    slot: Slot
    digest: Digest


Event: TypeAlias = Started | Connected | Received | Arrived | Unusable | Trained | Mixed | Descended | Differentiated


@dataclass(frozen=True, slots=True)
class Train:
    """Compute what the step's first exchange is about from the model and one's own data; answer with `Trained`."""

    step: int


@dataclass(frozen=True, slots=True)
class Descend:
    """Take the local step along the direction of this digest; answer with `Descended`.

    Args:
        slot: where it was agreed on.
        digest: the direction.
        into: the slot in which the outcome will be proposed; None where it is the next model.
    """

    slot: Slot
    digest: Digest
    into: Slot | None


@dataclass(frozen=True, slots=True)
class Differentiate:
    """Compute the gradient at the model of this digest; answer with `Differentiated`.

    Args:
        slot: where the model was agreed on.
        digest: the model.
        into: the slot in which the gradient will be proposed.
    """

    slot: Slot
    digest: Digest
    into: Slot


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


NodeEffect: TypeAlias = Effect | Train | Descend | Differentiate | Adopt | Release | Jump | Finish


class Node:
    """One member's part in the whole conversation.

    Args:
        party: whom it acts as.
        recipe: what a step exchanges.
        steps: how many steps the network takes.
        retained: how many past steps are still answered and told again, at least 1.
        first_step: the step to begin with, after a restart.
        said: what one proposed, by slot, before a restart. Of the steps before `first_step` those are told again that
            are there with every slot.
        convicted: the proofs that one held before a restart, by the accused.
    """

    def __init__(
        self,
        party: Party,
        recipe: Recipe,
        steps: int,
        retained: int = 1,
        first_step: int = 0,
        said: Mapping[Slot, Digest] | None = None,
        convicted: Mapping[PeerId, Equivocation] | None = None,
    ) -> None:
        assert retained >= 1
        self.party = party
        self.recipe = recipe
        self.steps = steps
        self.retained = retained
        self._go(Slot(first_step))
        self.training = False
        self.working = False
        self._said = _whole_steps(recipe, first_step, said or {})
        self._first_step = min([first_step, *self._said])
        self._told_since: dict[PeerId, int] = {}
        self._told_latest = 0
        self._heard_of = dict.fromkeys(party.committee.members, 0)
        self._agreements: dict[tuple[int, int], Agreement] = {}
        self._awaited: dict[Digest, set[tuple[int, int]]] = {}
        self._deferred: dict[PeerId, list[Message]] = {}
        self._accused: set[tuple[PeerId, Fault]] = set()
        self._convictions = Convictions(party, convicted)

    @property
    def finished(self) -> bool:
        return self.position.step >= self.steps

    @property
    def waits_for(self) -> tuple[PeerId, ...]:
        """Members whose vector the current slot still lacks, while it waits for a quorum of them."""
        agreement = self._agreements.get((self.position.step, self.position.exchange))
        return agreement.missing if agreement is not None else ()

    @property
    def behind(self) -> int:
        """How many steps some honest peer is ahead, at least."""
        return max(0, self._frontier - self.position.step)

    @property
    def _frontier(self) -> int:
        """The latest step that f+1 peers have spoken of, one of them honest."""
        return sorted(self._heard_of.values(), reverse=True)[self.party.committee.f]

    @property
    def entered(self) -> bool:
        """Whether one's own value of the current slot is proposed: others' are awaited since."""
        agreement = self._agreements.get((self.position.step, self.position.exchange))
        return agreement is not None and agreement.entered == self.position

    def here(self, slot: Slot) -> Collection[PeerId]:
        """Members whose value of a slot is here; nobody, of a slot that is answered no more."""
        agreement = self._agreements.get((slot.step, slot.exchange))
        return agreement.here(slot.sub_round) if agreement is not None else ()

    @property
    def oldest(self) -> int:
        """The oldest step that is still answered and told again."""
        return max(self._first_step, self.position.step - self.retained)

    @property
    def footprint(self) -> tuple[int, int]:
        """How many agreements are kept, and how many words of one peer wait, at most."""
        return len(self._agreements), max(map(self._waiting, self._deferred), default=0)

    def congested(self, peer: PeerId) -> bool:
        """Whether so much of this peer waits that no more should be read from it."""
        return self._waiting(peer) >= DEFERRED_MAX

    def _waiting(self, peer: PeerId) -> int:
        waiting = self._deferred.get(peer, ())
        if self.party.committee.n < _PARTS_OF_ONE:  # none of them is long
            return len(waiting)
        return sum(1 + _parts(message) // _PARTS_OF_ONE for message in waiting)

    def claims(self, digest: Digest) -> list[Claim]:
        """What will be signed if the bytes of `digest` come next, as in `Protocol.claims`."""
        keys = sorted(self._awaited.get(digest, ()))
        return [claim for key in keys if key in self._agreements for claim in self._agreements[key].claims(digest)]

    def handle(self, event: Event) -> list[NodeEffect]:
        """What follows from an event, in order."""
        match event:
            case Started():
                return [*self._restate(), *([Finish()] if self.finished else self._train())]
            case Connected(peer):
                again = self._translate([e for agreement in self._in_order() for e in agreement.resume(peer)])
                return [Send(peer, Hello(self.oldest)), *self._convictions.resume(peer), *again]
            case Received(sender, message):
                if isinstance(message, Evidence):
                    return [*self._convictions.handle(sender, message)]
                if isinstance(message, Hello):
                    self._told_since[sender] = message.since
                    self._told_latest = max(self._told_since.values())
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
            case Descended(slot, digest) | Differentiated(slot, digest):
                return self._settled(digest) if slot == self.position and self.working else []

    def _received(self, sender: PeerId, message: Message) -> list[NodeEffect]:
        slot = message.slot
        if not self.exists(slot):
            return self._accuse(sender, Fault.OUT_OF_TURN)
        if _parts(message) > self.party.committee.n:  # before it waits: a thousand of them are much
            return self._accuse(sender, Fault.MALFORMED)
        self._heard_of[sender] = max(self._heard_of[sender], slot.step)
        if slot > self.horizon:
            self._deferred.setdefault(sender, []).append(message)
            return []
        return self._speak(sender, message)

    def _speak(self, sender: PeerId, message: Message) -> list[NodeEffect]:
        if message.slot.step < self.oldest:
            return []
        return self._translate(self._agreement(message.slot).handle(sender, message))

    def _mixed(self, digest: Digest) -> list[NodeEffect]:
        slot, agreement = self.position, self._agreement(self.position)
        agreed = agreement.mixed(digest)
        moved = self._move() if slot.sub_round + 1 < len(agreement.slots) else []
        return moved + self._translate(agreed)

    def _agreed(self, digest: Digest) -> list[NodeEffect]:
        """An exchange has its outcome: a model, a model to take the gradient at, or a direction to go."""
        slot, into = self.position, self._next_exchange(self.position)
        what = self.recipe.exchanges[slot.exchange].what
        if what == "model":
            return self._settled(digest)
        self.working = True
        if what == "gradient":
            return [Descend(slot, digest, into)]
        assert into is not None, "what a gradient was taken for is exchanged"
        return [Differentiate(slot, digest, into)]

    def _settled(self, digest: Digest) -> list[NodeEffect]:
        """What came of an exchange is the next one's value, or after the last one the next step's model."""
        self.working = False
        step, exchange = self.position.step, self.position.exchange
        moved = self._move()
        if exchange + 1 < len(self.recipe.exchanges):
            return [*moved, *self._translate(self._agreement(self.position).start(digest))]
        adopted: list[NodeEffect] = [Adopt(step, digest), *self._retire(), *moved]
        return [*adopted, Finish()] if self.finished else [*adopted, *self._train()]

    def _move(self) -> list[NodeEffect]:
        """Go to the next slot: forget vectors older than the one left, and hear out who was ahead."""
        left = self.position
        self._go(self.horizon)
        return [self._release(left), *self._hear_out()]

    def _go(self, slot: Slot) -> None:
        self.position = slot
        self.horizon = self._after(slot)
        """The last slot that is talked about now."""

    def _release(self, before: Slot) -> Release:
        """What no peer needs of us any more: of a total broadcast, whoever is slow may need anyone's bytes."""
        return Release(Slot(self.oldest) if self.recipe.total else before, Slot(self.oldest))

    def _hear_out(self) -> list[NodeEffect]:
        """Take the words about slots that were yet to come and are not any more."""
        out: list[NodeEffect] = []
        for peer, waiting in sorted(self._deferred.items()):
            due = [message for message in waiting if message.slot <= self.horizon]
            later = [message for message in waiting if message.slot > self.horizon]
            if later:
                self._deferred[peer] = later
            else:
                del self._deferred[peer]
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
        if self._told_latest <= self.position.step:
            return []
        frontier = self._frontier
        if frontier < self.position.step + 2:
            return []
        self.training = self.working = False
        self._go(Slot(frontier))
        return [Jump(frontier), *self._retire(), self._release(self.position), *self._train(), *self._hear_out()]

    def _restate(self) -> list[NodeEffect]:
        """Say again what one said before a crash: its own part in that is over, but slower peers may need it."""
        out: list[NodeEffect] = []
        for step, values in sorted(self._said.items()):
            if step >= self.oldest:
                for exchange, digests in enumerate(values):
                    out += self._translate(self._agreement(Slot(step, exchange)).restate(digests))
        return out

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
            if isinstance(effect, Mix) and effect.gathered.slot != self.position:
                continue  # jumped over; what came for it before the jump was let go of
            if isinstance(effect, Mix) and effect.into is None:
                effect = replace(effect, into=self._next_value(effect.gathered.slot))
            if isinstance(effect, Expect | Fetch):
                slot = effect.header.slot
                self._awaited.setdefault(effect.header.digest, set()).add((slot.step, slot.exchange))
            out.append(effect)
            if isinstance(effect, Accuse) and effect.evidence is not None:
                out += self._convictions.found(effect.evidence)
        return out

    def _agreement(self, slot: Slot) -> Agreement:
        key = (slot.step, slot.exchange)
        if key not in self._agreements:
            exchange = self.recipe.exchanges[slot.exchange]
            self._agreements[key] = Agreement(
                self.party,
                Slot(*key),
                exchange.sub_rounds(slot.step),
                BROADCASTS[exchange.broadcast],
                exchange.quorum(self.party.committee),
            )
        return self._agreements[key]

    def _awaiting(self, digest: Digest) -> list[Agreement]:
        """The agreements that asked for the bytes of a digest."""
        keys = self._awaited.pop(digest, set())
        return [self._agreements[key] for key in sorted(keys) if key in self._agreements]

    def _in_order(self) -> list[Agreement]:
        return [self._agreements[key] for key in sorted(self._agreements)]

    def exists(self, slot: Slot) -> bool:
        """Whether the recipe has this slot."""
        exchanges = self.recipe.exchanges
        return (
            slot.step < self.steps
            and slot.exchange < len(exchanges)
            and slot.sub_round < exchanges[slot.exchange].sub_rounds(slot.step)
        )

    def _after(self, slot: Slot) -> Slot:
        if slot.sub_round + 1 < self.recipe.exchanges[slot.exchange].sub_rounds(slot.step):
            return Slot(slot.step, slot.exchange, slot.sub_round + 1)
        return self._next_exchange(slot) or Slot(slot.step + 1)

    def _next_exchange(self, slot: Slot) -> Slot | None:
        """Where the next exchange of the same step begins."""
        return Slot(slot.step, slot.exchange + 1) if slot.exchange + 1 < len(self.recipe.exchanges) else None

    def _next_value(self, slot: Slot) -> Slot | None:
        """Where the outcome of an exchange is proposed as it is."""
        return self._next_exchange(slot) if self.recipe.exchanges[slot.exchange].what == "model" else None

    def _accuse(self, sender: PeerId, fault: Fault) -> list[NodeEffect]:
        if (sender, fault) in self._accused:
            return []
        self._accused.add((sender, fault))
        return [Accuse(sender, fault)]


def _parts(message: Message) -> int:
    """Signatures or members in it."""
    match message:
        case Certificate(echoes=parts) | Report(delivered=parts):
            return len(parts)
        case _:
            return 0


def _whole_steps(recipe: Recipe, before: int, said: Mapping[Slot, Digest]) -> dict[int, list[tuple[Digest, ...]]]:
    """What was said in the steps right before this one, by exchange and sub-round, back to where a slot is missing."""
    steps: dict[int, list[tuple[Digest, ...]]] = {}
    for step in reversed(range(before)):
        slots = [
            [Slot(step, number, sub_round) for sub_round in range(exchange.sub_rounds(step))]
            for number, exchange in enumerate(recipe.exchanges)
        ]
        if not all(slot in said for exchange in slots for slot in exchange):
            break
        steps[step] = [tuple(said[slot] for slot in exchange) for exchange in slots]
    return steps
