"""Which bytes go to which peer, in which order and from which byte on. Pure: it sends nothing itself.

A vector is pushed to all peers as soon as it is proposed. Over a link that just came up nothing goes before the peer
said what it holds (`Holding`), nor before `Hello`: then what is retained, and what was proposed meanwhile, follows in
the order of the slots, without what is there already. The order matters. A vector of a slot that the peer has not come
to waits on the wire, and all behind it; were those it needs to get there among them, both would wait for ever. So who
asked a peer for bytes skips what would wait before them, and asks for that again when its slot has come.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from p2pnode.codec import HELD_MAX, Holding, Want
from p2pnode.storage.unfinished import Unfinished
from p2pnode.storage.vectors import Announced, Vectors
from protocols.header import Digest, Header, PeerId, Slot

SKIPPED_MAX = 256
"""Vectors that one peer's lane was freed of, the latest, to be asked for again."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A vector to send to one peer, from byte `offset` on."""

    to: PeerId
    slot: Slot
    digest: Digest
    vector: Announced
    offset: int = 0


@dataclass(slots=True)
class _Link:
    """What was said since the link to a peer came up.

    Args:
        hellos: how often Hello is still to be said: that of an earlier link may come late, and the retelling after it.
        heard: whether the peer said what it holds.
        whole: up to which slot it needs a vector no more.
        parts: how much it has of others.
        queue: what goes to it when it has spoken.
        answered: what it asked for and got; whether from the first byte.
    """

    hellos: int
    heard: bool = False
    whole: dict[Digest, Slot] = field(default_factory=dict)
    parts: dict[Digest, int] = field(default_factory=dict)
    queue: list[Header] = field(default_factory=list)
    answered: set[tuple[Digest, bool]] = field(default_factory=set)


class Courier:
    """What one node sends of its vectors, and asks of others'.

    Args:
        vectors: what is here.
        unfinished: what is here in part.
    """

    def __init__(self, vectors: Vectors, unfinished: Unfinished[Any]) -> None:
        self._vectors = vectors
        self._unfinished = unfinished
        self._links: dict[PeerId, _Link] = {}
        self._asked: dict[PeerId, set[Digest]] = {}
        self._skipped: dict[PeerId, deque[Digest]] = {}

    def connected(self, peer: PeerId) -> Holding:
        """A link is new; what to say on it first."""
        before = self._links.get(peer)
        self._asked.pop(peer, None)
        self._links[peer] = _Link(1 if before is None else before.hellos + 1)
        whole, parts = self._vectors.had_of(peer), self._unfinished.offsets(peer)
        parts = [(digest, offset) for digest, offset in parts if self._vectors.wants(digest, peer)]
        return Holding(tuple(whole[-HELD_MAX:]), tuple(parts[-HELD_MAX:]))

    def greeted(self, peer: PeerId) -> None:
        """Hello was said: what is to be told again comes next."""
        self._links[peer].hellos -= 1

    def heard(self, peer: PeerId, holding: Holding) -> list[Parcel]:
        """The peer said what it holds; what goes to it now."""
        link = self._links[peer]
        link.heard = True
        link.whole = {digest: slot for slot, digest in holding.whole}
        link.parts = dict(holding.parts)
        queue, link.queue = link.queue, []
        return [parcel for header in queue for parcel in self._to(peer, header)]

    def stream(self, header: Header, to: PeerId | None) -> list[Parcel]:
        """What goes out now of a vector that is proposed, or told again, to one peer or to all."""
        peers = sorted(self._links) if to is None else [peer for peer in self._links if peer == to]
        return [parcel for peer in peers if not self._links[peer].hellos for parcel in self._to(peer, header)]

    def asked(self, peer: PeerId, want: Want) -> list[Parcel]:
        """The peer asks for bytes. In a slot it gets them once from the first byte, and once from within."""
        link, vector = self._links[peer], self._vectors.get(want.digest)
        asked = (want.digest, want.offset == 0)
        if vector is None or asked in link.answered:
            return []
        link.answered.add(asked)
        return [Parcel(peer, want.slot, want.digest, vector, min(want.offset, vector.nbytes))]

    def ask(self, digest: Digest, peer: PeerId, offset: int | None = None) -> Want | None:
        """How to ask a peer for bytes; None where they are wanted no more."""
        slot = self._vectors.ask(digest, peer)
        if slot is None:
            return None
        self._asked.setdefault(peer, set()).add(digest)
        return Want(slot, digest, self._unfinished.offset(digest, peer) if offset is None else offset)

    def skips(self, peer: PeerId, digest: Digest) -> bool:
        """Whether a vector that would wait is to be thrown away, as what was asked for comes behind it."""
        if not any(self._vectors.wants(asked, peer) for asked in self._asked.get(peer, ())):
            return False
        self._skipped.setdefault(peer, deque(maxlen=SKIPPED_MAX)).append(digest)
        return True

    def due(self) -> list[tuple[PeerId, Want]]:
        """What was skipped and is welcome now, to be asked of who sent it too early."""
        wants = []
        for peer, skipped in self._skipped.items():
            for digest in [digest for digest in skipped if self._vectors.wants(digest, peer)]:
                skipped.remove(digest)
                want = self.ask(digest, peer)
                if want is not None:
                    wants.append((peer, want))
        return wants

    def moved(self) -> None:
        """The window of the vectors moved: forget what concerns those that are gone."""
        self._unfinished.forget(self._vectors.wants)
        for peer, asked in self._asked.items():
            self._asked[peer] = {digest for digest in asked if self._vectors.wants(digest, peer)}
        for link in self._links.values():
            link.answered.clear()
            link.queue = [header for header in link.queue if self._vectors.has(header.digest)]

    def _to(self, peer: PeerId, header: Header) -> list[Parcel]:
        link = self._links[peer]
        if not self._vectors.has(header.digest):  # told again after its slot
            return []
        if not link.heard:
            link.queue.append(header)
            return []
        if header.slot <= link.whole.get(header.digest, Slot(-1)):
            return []
        vector = self._vectors.get(header.digest)
        if vector is None:
            return []
        offset = min(link.parts.pop(header.digest, 0), vector.nbytes)
        return [Parcel(peer, header.slot, header.digest, vector, offset)]
