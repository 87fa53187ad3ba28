"""Looks out for whose values are late in a node's conversation, and what to ask of whom for them. Pure: the time is
passed in."""

from collections.abc import Collection

from p2pnode.node import Node
from p2pnode.punctuality import ENTERED_MAX, Late, Punctuality
from p2pnode.storage.vectors import Vectors
from protocols.header import Header, PeerId, Slot

_RECENT_SLOTS = 4
"""Slots whose values are looked for whenever something came. Those of older ones are late anyway, and wait for the next
look at who is."""


class Lookout:
    """One node's.

    Args:
        node: whose conversation it is.
        vectors: the bytes that are here.
    """

    def __init__(self, node: Node, vectors: Vectors) -> None:
        self._node = node
        self._vectors = vectors
        self._punctuality = Punctuality(node.party.me, node.party.committee)
        self._told: set[PeerId] = set()
        self._asked: tuple[Slot, set[PeerId]] = (node.position, set())

    def note(self, now: float) -> None:
        """Something came: learn whose values of recent slots are here."""
        self._note(_RECENT_SLOTS, now)

    def deadline(self, slot: Slot) -> float:
        """After how many seconds a value of such a slot is late."""
        return self._punctuality.deadline(slot)

    def late(self, banned: Collection[PeerId], now: float) -> tuple[Late, ...]:
        """Whose values are late. Who is banned may not speak, and owes none."""
        if self._node.finished:
            return ()
        return tuple(one for one in self._punctuality.late(now) if one.peer not in banned)

    def newly_late(self, banned: Collection[PeerId], now: float) -> tuple[Late, ...]:
        """Who became late since this was asked last: each lateness once."""
        self._note(ENTERED_MAX, now)
        late = self.late(banned, now)
        new = tuple(one for one in late if one.peer not in self._told)
        self._told = {one.peer for one in late}
        return new

    def missing(self, connected: Collection[PeerId]) -> list[tuple[Header, tuple[PeerId, ...]]]:
        """The bytes that the current slot lacks of who was late at the last look, and whom to ask for them: f+1 others,
        so one at least that is honest. Each member's once a slot. The late one itself is sending them already."""
        slot, committee = self._node.position, self._node.party.committee
        if self._asked[0] != slot:
            self._asked = (slot, set())
        if not self._punctuality.knows(slot):
            return []
        found = []
        for peer in sorted(self._told.intersection(self._node.waits_for) - self._asked[1]):
            header = self._vectors.awaited(peer, slot)
            if header is not None:
                self._asked[1].add(peer)
                others = [other for other in connected if other != peer]
                # Who keeps up first, and not the same one every time.
                others.sort(key=lambda other: (other in self._told, (other - slot.step) % committee.n))
                found.append((header, tuple(others[: committee.one_honest])))
        return found

    def _note(self, slots: int, now: float) -> None:
        if self._node.entered:
            self._punctuality.enter(self._node.position, now)
        for slot in self._punctuality.recent(slots):
            self._punctuality.here(slot, self._node.here(slot), now)
