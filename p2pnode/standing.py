"""Where a node stands, and why it waits: in which slot and phase, since when, whom it lacks there, and what each of
these said last. Pure: the time is passed in."""

import re
from collections.abc import Collection
from typing import Any

from p2pnode.codec import Finished, Holding, WireMessage
from p2pnode.lookout import Lookout
from p2pnode.node import Node
from p2pnode.storage.vectors import Vectors
from protocols.effects import Evidence, Hello
from protocols.header import PeerId, Slot

VECTOR = "vector"
"""What a peer said last, where it was the end of a vector's bytes and no message."""


class Standing:
    """One node's, in words that `/status` tells. What it keeps of each member is one message, whatever is said.

    Args:
        node: whose conversation it is.
        lookout: knows who is late.
        vectors: the bytes that are here.
        names: of the members, in their order.
    """

    def __init__(self, node: Node, lookout: Lookout, vectors: Vectors, names: list[str]) -> None:
        self._node = node
        self._lookout = lookout
        self._vectors = vectors
        self._names = names
        self._said: dict[PeerId, tuple[WireMessage | None, float]] = {}
        self.phase = "starting"
        """As it was noted last; threads may read it."""
        self._slot = node.position
        self._since = 0.0

    def heard(self, peer: PeerId, message: WireMessage | None, now: float) -> None:
        """A member said something; None: it sent the last byte of a vector."""
        self._said[peer] = message, now

    def note(self, phase: str, now: float) -> None:
        """The node is in this phase of its slot."""
        if (phase, self._node.position) != (self.phase, self._slot):
            self.phase, self._slot, self._since = phase, self._node.position, now

    def told(self, connected: Collection[PeerId], banned: Collection[PeerId], now: float) -> dict[str, Any]:
        """Where the node stands.

        Args:
            connected: members whose link is up.
            banned: members that may not speak, and owe nothing.
            now: as in `note`.
        """
        late = self._lookout.late(banned, now)
        return {
            **_place(self._node.position),
            "phase": self.phase,
            "phase_seconds": round(now - self._since, 3),
            "waits_for": [self._names[peer] for peer in self._node.waits_for],
            "waiting": self._waiting({one.peer for one in late}, connected, now),
            "late": [
                {
                    "peer": self._names[one.peer],
                    **_place(one.slot),
                    "seconds": round(one.seconds, 3),
                    "deadline": round(one.deadline, 3),
                    "said": self._last(one.peer, now),
                }
                for one in late
            ],
        }

    def _waiting(self, late: Collection[PeerId], connected: Collection[PeerId], now: float) -> dict[str, Any] | None:
        """How many values are here and how many are needed, and of each that is missing what is known; None where the
        node does not wait."""
        if not self._node.waits_for:
            return None
        slot = self._node.position
        exchange = self._node.recipe.exchanges[slot.exchange]
        return {
            "here": len(self._node.here(slot)),
            "needed": exchange.quorum(self._node.party.committee),
            "deadline": round(self._lookout.deadline(slot), 3),
            "missing": [
                {
                    "peer": self._names[peer],
                    "connected": peer in connected,
                    "lacks": self._lacks(peer, slot),
                    "late": peer in late,
                    "said": self._last(peer, now),
                }
                for peer in self._node.waits_for
            ],
        }

    def _lacks(self, peer: PeerId, slot: Slot) -> str:
        """What is missing of a member's value: that it announces it, the bytes, or what others must say of it."""
        if self._vectors.awaited(peer, slot) is not None:
            return "bytes"
        return "confirmation" if self._vectors.announced(peer, slot) else "announcement"

    def _last(self, peer: PeerId, now: float) -> dict[str, Any] | None:
        """What a member said last, about which slot if about one, and how long ago; None where it said nothing yet."""
        if peer not in self._said:
            return None
        message, at = self._said[peer]
        return {"what": _kind(message), **_subject(message), "seconds": round(now - at, 3)}


def _kind(message: WireMessage | None) -> str:
    return VECTOR if message is None else re.sub(r"\B[A-Z]", r" \g<0>", type(message).__name__).lower()


def _subject(message: WireMessage | None) -> dict[str, int]:
    match message:
        case None | Hello() | Evidence() | Holding() | Finished():
            return {}
        case _:
            return _place(message.slot)


def _place(slot: Slot) -> dict[str, int]:
    return {"step": slot.step, "exchange": slot.exchange, "sub_round": slot.sub_round}
