"""One simulated process: a member's node, what it holds in memory, and the disk that survives a crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from p2pnode.courier import Courier
from p2pnode.node import Event, Node, NodeEffect
from p2pnode.recipe import BROADCASTS, Recipe
from p2pnode.storage.checkpoint import OUTBOX_STEPS
from p2pnode.storage.vectors import Announced, Vector, Vectors
from protocols.effects import Deliver, Effect, Message, Report
from protocols.errors import UsageError
from protocols.faults import Equivocation, Fault
from protocols.header import Claim, Digest, Header, PeerId, Signature, Slot
from protocols.protocol import Party
from protocols.protocol import Protocol as AnyProtocol

RETAINED = 3
"""Past steps that are answered; the driver's least."""


class Conversation(Protocol):
    """A `Node`, or one whose effects are tampered with."""

    def handle(self, event: Event) -> list[NodeEffect]: ...


class Learner(Protocol):
    """What the node's trainer does."""

    length: int

    def train(self, step: int) -> Vector: ...

    def differentiate(self, step: int, model: Vector) -> Vector: ...

    def descend(self, step: int, direction: Vector) -> Vector: ...

    def mix(
        self, step: int, exchange: int, rows: Sequence[Announced], own: int | None
    ) -> tuple[Vector, tuple[int, ...]]: ...

    def adopt(self, step: int, vector: Vector) -> None: ...

    def state(self) -> Any: ...  # noqa: ANN401  its own business

    def restore(self, state: Any) -> None: ...  # noqa: ANN401


class Disk:
    """Signs as one member, and remembers over a crash what it signed, proposed and learned."""

    def __init__(self, sign: Callable[[bytes], Signature]) -> None:
        self._sign = sign
        self._durable: dict[str, bytes] = {}
        self._pending: dict[str, bytes] = {}
        self.outbox: dict[Slot, tuple[Digest, Announced]] = {}
        self.checkpoint: tuple[int, Any] | None = None
        self.evidence: dict[PeerId, Equivocation] = {}

    def sign(self, claim: Claim) -> Signature | None:
        return self._sign(claim.statement) if self.promise(claim) else None

    def promise(self, claim: Claim) -> bool:
        known = self._durable.get(claim.place) or self._pending.setdefault(claim.place, claim.statement)
        return known == claim.statement

    def promised(self, place: str) -> bytes | None:
        return self._durable.get(place) or self._pending.get(place)

    def flush(self) -> None:
        """Nothing signed leaves before this."""
        self._durable |= self._pending
        self._pending = {}

    def tear(self) -> None:
        """Crash: what was signed and not flushed is gone."""
        self._pending = {}

    def propose(self, slot: Slot, digest: Digest, vector: Announced) -> tuple[Digest, Announced]:
        """What to propose in a slot, durable: what was proposed before a crash, if anything was."""
        self.outbox = {old: kept for old, kept in self.outbox.items() if old.step > slot.step - OUTBOX_STEPS}
        return self.outbox.setdefault(slot, (digest, vector))

    @property
    def first_step(self) -> int:
        """Where to go on, as the driver does."""
        spoken = max((slot.step for slot in self.outbox if slot == Slot(slot.step)), default=0)
        return max(spoken, self.checkpoint[0] if self.checkpoint is not None else 0)


@dataclass(slots=True)
class Process:
    """One running copy of a node.

    Args:
        member: whom it acts as. Twins act as the same.
        disk: survives a crash.
        epoch: how often it was started; what a stopped one asked for is not for the next.
        parked: bytes on the wire that may not be taken yet, by digest.
        congested: words on the wire from a peer of which too much waits.
        doomed: how many effects of the next event are performed before it stops; None: it does not.
    """

    member: PeerId
    disk: Disk
    learner: Learner
    node: Node
    conversation: Conversation
    vectors: Vectors
    courier: Courier
    epoch: int = 0
    alive: bool = True
    parked: dict[Digest, list[Any]] = field(default_factory=dict)
    congested: list[Any] = field(default_factory=list)
    doomed: int | None = None


class OneBroadcast(Node):
    """A node whose only step is one broadcast by one member."""

    def __init__(self, party: Party, recipe: Recipe, origin: PeerId, **options: Any) -> None:  # noqa: ANN401
        super().__init__(party, recipe, **options)
        self._single = _Single(party, recipe, origin)

    def _agreement(self, slot: Slot) -> Any:  # noqa: ANN401  behaves as an `Agreement`
        self._agreements[0, 0] = self._single  # type: ignore[assignment]
        return self._single


class _Single(AnyProtocol[Digest, Message]):
    """The broadcast, in the place of an agreement; its outcome is the digest delivered."""

    def __init__(self, party: Party, recipe: Recipe, origin: PeerId) -> None:
        super().__init__(party)
        self.slots = (Slot(0),)
        self.missing = (origin,)
        self._broadcast = BROADCASTS[recipe.exchanges[0].broadcast](party, Slot(0), origin)

    @property
    def done(self) -> bool:
        return self._broadcast.done

    def start(self, value: Digest) -> list[Effect]:
        return self._outcome(self._broadcast.start(value)) if self._broadcast.mine else []

    def restate(self, values: tuple[Digest, ...]) -> list[Effect]:
        raise UsageError(f"there is no step before {self.slots[0]}, so nothing of it to say again: {values}")

    def handle(self, sender: PeerId, message: Message) -> list[Effect]:
        if isinstance(message, Report) or message.origin != self._broadcast.origin:
            return self._accuse(sender, Fault.OUT_OF_TURN)
        return self._outcome(self._broadcast.handle(sender, message))

    def arrived(self, digest: Digest) -> list[Effect]:
        return self._outcome(self._broadcast.arrived(digest))

    def unusable(self, digest: Digest) -> list[Effect]:
        return self._broadcast.unusable(digest)

    def resume(self, peer: PeerId) -> list[Effect]:
        return self._broadcast.resume(peer)

    def close(self) -> list[Effect]:
        return self._broadcast.close()

    def _outcome(self, effects: list[Effect]) -> list[Effect]:
        return [
            Deliver(effect.value.digest) if isinstance(effect, Deliver) and isinstance(effect.value, Header) else effect
            for effect in effects
        ]
