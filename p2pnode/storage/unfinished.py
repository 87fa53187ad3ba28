"""Vectors that were cut off in the middle, until somebody sends the rest.

A lost link costs no byte that had come: its peer, or any other that holds the vector, goes on where it stopped. The
digest of the whole decides, as ever. Where it does not fit and several peers had a part in it, no one of them can be
blamed: the vector comes again from its first byte, and from then on all of it from one peer.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from protocols.header import Digest, PeerId


class Part(Protocol):
    """The beginning of a vector."""

    filled: int
    """Bytes that are here."""
    senders: set[PeerId]
    """Who sent them."""


P = TypeVar("P", bound=Part)


class Unfinished(Generic[P]):
    """The beginnings that are here, one at most of each peer that was lost while it sent: that bounds their memory."""

    def __init__(self) -> None:
        self._parts: dict[Digest, tuple[PeerId, P]] = {}
        self._spoiled: set[Digest] = set()
        """Of which several peers had sent what did not fit together."""

    def __len__(self) -> int:
        return len(self._parts)

    def keep(self, peer: PeerId, digest: Digest, part: P) -> None:
        """Keep what had come of a vector when the link to `peer` was lost; of two beginnings the longer one."""
        part.senders.add(peer)
        self._parts = {kept: held for kept, held in self._parts.items() if held[0] != peer}
        if digest not in self._parts or self._parts[digest][1].filled < part.filled:
            self._parts[digest] = (peer, part)

    def offset(self, digest: Digest, peer: PeerId) -> int:
        """From which byte on `peer` should send this vector."""
        part = self._usable(digest, peer)
        return part.filled if part is not None else 0

    def offsets(self, peer: PeerId) -> list[tuple[Digest, int]]:
        """Of which vectors `peer` need not send the beginning, and how long it is."""
        return [(digest, offset) for digest in self._parts if (offset := self.offset(digest, peer))]

    def resume(self, digest: Digest, peer: PeerId, offset: int) -> P | None:
        """Hand out the beginning that `peer` sends the rest of; None where what is here does not end at `offset`."""
        part = self._usable(digest, peer)
        if part is None or part.filled != offset:
            return None
        del self._parts[digest]
        part.senders.add(peer)
        return part

    def spoil(self, digest: Digest) -> None:
        """What several peers sent of this vector together is not it: it is put together from them no more."""
        self._spoiled.add(digest)

    def drop(self, digest: Digest) -> None:
        """The vector is here."""
        self._parts.pop(digest, None)
        self._spoiled.discard(digest)

    def forget(self, wanted: Callable[[Digest], bool]) -> None:
        """Keep only what is still to come."""
        self._parts = {digest: held for digest, held in self._parts.items() if wanted(digest)}
        self._spoiled = {digest for digest in self._spoiled if wanted(digest)}

    def _usable(self, digest: Digest, peer: PeerId) -> P | None:
        _, part = self._parts.get(digest, (peer, None))
        if part is not None and digest in self._spoiled and part.senders != {peer}:
            return None
        return part
