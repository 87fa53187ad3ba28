"""Vectors at hand, named by digest, and the door that bytes from peers must pass before memory is taken.

Bytes come in only for a digest that a valid header announced (`expect`), from its origin or from a peer that was asked
(`ask`), and of exactly the model's length. What belongs to a later slot waits on the wire, at its sender's expense.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import blake3
import numpy as np
from numpy.typing import NDArray

from p2pnode.storage.spool import Spool
from protocols.header import BFLOAT16, FLOAT16, FLOAT32, Digest, Header, PeerId, Slot

Vector = NDArray[np.float32]
Announced: TypeAlias = NDArray[Any]
"""(d,), of the dtype of the network; bfloat16, which NumPy lacks, by its bits, as uint16."""

ARRAYS: dict[int, np.dtype[Any]] = {
    FLOAT32: np.dtype(np.float32),
    BFLOAT16: np.dtype(np.uint16),
    FLOAT16: np.dtype(np.float16),
}
"""Wire code → what vectors that came in are held as."""

_INFINITY = {ARRAYS[FLOAT32]: 0x7F80_0000, ARRAYS[BFLOAT16]: 0x7F80, ARRAYS[FLOAT16]: 0x7C00}
"""The bits of infinity."""


class Verdict(Enum):
    """What to do with bytes that a peer wants to send."""

    TAKE = "take"
    WAIT = "wait"
    """Leave them on the wire: their header is on its way, or their slot is yet to come."""
    DISCARD = "discard"
    """They are here already, or nobody needs them any more."""
    REFUSE = "refuse"
    """No correct peer sends such bytes."""


@dataclass(slots=True)
class _Wanted:
    header: Header
    senders: set[PeerId] = field(default_factory=set)


class Vectors:
    """The vectors of the slots in play.

    Args:
        length: elements of every vector.
        dtype: wire code of those that are announced; little endian on the wire.
        spare: how many of others' that one has no use for any more are kept in memory while new ones come in; None for
            all of them.
        kept: reads one's own vector of a slot that was left, for which the disk has it; None to keep them in memory.
        spool: where those of others go that make way, if whoever is slow may need anyone's; None to let go of them.
    """

    def __init__(
        self,
        length: int,
        dtype: int = FLOAT32,
        spare: int | None = None,
        kept: Callable[[Slot], Announced | None] | None = None,
        spool: Spool | None = None,
    ) -> None:
        self.length = length
        self.array = ARRAYS[dtype]
        self.nbytes = self.array.itemsize * length
        self._oldest = Slot(0)
        self._horizon = Slot(0)
        self._current = Slot(0)
        self._spare = spare
        self._held: dict[Digest, tuple[Slot, Announced]] = {}
        self._own: dict[Digest, tuple[Slot, Announced]] = {}
        self._kept = kept
        self._on_disk: dict[Digest, Slot] = {}
        self._spool = spool
        self._read_again: WeakValueDictionary[Digest, Announced] = WeakValueDictionary()
        self._outcomes: dict[Digest, Vector] = {}
        self._wanted: dict[Digest, _Wanted] = {}
        self._welcomed: dict[tuple[PeerId, Digest], Slot] = {}
        """For which slot a peer's bytes were let in last: those that come once more wait for no header."""
        self._announced: dict[tuple[PeerId, Digest], Slot] = {}
        """For which slot a peer announced a vector of its own last."""

    def __len__(self) -> int:
        """How many vectors are kept in memory."""
        return len(self._held) + len(self._own) + len(self._outcomes)

    def fits(self, vector: NDArray[Any]) -> bool:
        """Whether it can be announced."""
        return (vector.shape, vector.dtype) == ((self.length,), self.array)

    def put(self, slot: Slot, digest: Digest, vector: Announced) -> None:
        """Keep what one announces oneself as long as `slot` is in play. It must not be written to any more."""
        assert self.fits(vector)
        _keep(self._own, slot, digest, vector)

    def get(self, digest: Digest) -> Announced | None:
        held = self._held.get(digest) or self._own.get(digest)
        return held[1] if held is not None else self._from_disk(digest)

    def has(self, digest: Digest) -> bool:
        """Whether `get` has it, but for what the disk lost."""
        return any(digest in place for place in (self._held, self._own, self._on_disk, self._spool or ()))

    def put_outcome(self, digest: Digest, vector: Vector) -> None:
        """Keep what came of an exchange, and is announced nowhere, until the window moves.

        It is not rounded, and so no vector of this network: a peer that guesses its digest must not find it.
        """
        assert vector.shape == (self.length,)
        assert vector.dtype == np.float32
        self._outcomes = {digest: vector}

    def outcome(self, digest: Digest) -> Vector | None:
        return self._outcomes.get(digest)

    def expect(self, header: Header) -> bool:
        """Welcome the bytes of this header from its origin; whether they are here already."""
        _remember(self._announced, header.origin, header)
        _remember(self._welcomed, header.origin, header)
        if self._keep_here(header.slot, header.digest):
            return True
        wanted = self._wanted.setdefault(header.digest, _Wanted(header))
        if header.slot > wanted.header.slot:
            wanted.header = header
        wanted.senders.add(header.origin)
        return False

    def ask(self, digest: Digest, peer: PeerId) -> Slot | None:
        """Welcome these bytes from `peer` too; their slot, or None if they are not wanted any more."""
        wanted = self._wanted.get(digest)
        if wanted is None:
            return None
        wanted.senders.add(peer)
        _remember(self._welcomed, peer, wanted.header)
        return wanted.header.slot

    def awaited(self, origin: PeerId, slot: Slot) -> Header | None:
        """The header of this member's vector of a slot, if its bytes are wanted and not here."""
        headers = (wanted.header for wanted in self._wanted.values())
        return next((header for header in headers if (header.origin, header.slot) == (origin, slot)), None)

    def announced(self, origin: PeerId, slot: Slot) -> bool:
        """Whether this member announced a vector of its own for a slot in play, whether or not its bytes are here."""
        return any(peer == origin and at == slot for (peer, _), at in self._announced.items())

    def wants(self, digest: Digest, peer: PeerId | None = None) -> bool:
        """Whether these bytes are still to come; from this peer, if one is given."""
        wanted = self._wanted.get(digest)
        return wanted is not None and (peer is None or peer in wanted.senders)

    def had_of(self, origin: PeerId) -> list[tuple[Slot, Digest]]:
        """Which of a member's own vectors came, and for which slots nothing more is needed of them, the latest last."""
        announced = ((slot, digest) for (peer, digest), slot in self._announced.items() if peer == origin)
        return sorted((slot, digest) for slot, digest in announced if digest not in self._wanted)

    def judge(self, peer: PeerId, slot: Slot, digest: Digest, nbytes: int) -> Verdict:
        """What to do with `nbytes` bytes that `peer` wants to send under this digest.

        What is here already is kept for the slot that these bytes are for: their header may be on its way, and nobody
        sends them twice, but who restarts. What was here and was let go of since does not wait: no header that is new
        would announce it, and all that this peer sends after it would wait behind it, for ever.
        """
        if nbytes != self.nbytes:
            return Verdict.REFUSE
        wanted = self._wanted.get(digest)
        if wanted is not None and peer in wanted.senders:
            if wanted.header.slot > self._horizon:
                return Verdict.WAIT
            self._make_way()
            return Verdict.TAKE
        if slot < self._oldest:
            return Verdict.DISCARD
        if slot <= self._horizon and self._keep_here(slot, digest):
            return Verdict.DISCARD
        if slot <= self._welcomed.get((peer, digest), Slot(-1)) and self.get(digest) is None:
            return Verdict.DISCARD
        return Verdict.WAIT

    def take(self, digest: Digest, vector: Announced, finite: bool | None = None) -> bool:
        """Keep bytes that came in whole under their digest; whether they are finite, and so a vector at all.

        Args:
            digest: of the bytes.
            vector: the bytes.
            finite: whether they are, if that is known.
        """
        wanted = self._wanted.pop(digest, None)
        if wanted is None and self.get(digest) is not None:
            return True
        if not (is_finite(vector) if finite is None else finite):
            return False
        # They were let in; if their slot went by meanwhile they are late, not wrong, and no reason to accuse anyone.
        _keep(self._held, wanted.header.slot if wanted is not None else self._oldest, digest, vector)
        return True

    def window(self, before: Slot, own: Slot, horizon: Slot, current: Slot | None = None) -> None:
        """Set what is in play: forget others' vectors older than `before` and one's own older than `own`.

        Others' older than `current`, the slot that one is in, make way for those that come in; None for none of them.

        Bytes of slots from `own` to `horizon` are let in, if a header announced them: who is slow needs our echo. What
        comes in that is older than `before` is forgotten again when the window moves next.
        """
        if own != self._oldest:
            self._welcomed = {sent: slot for sent, slot in self._welcomed.items() if slot >= own}
            self._announced = {sent: slot for sent, slot in self._announced.items() if slot >= own}
        self._oldest, self._horizon, self._current = own, horizon, current or before
        self._outcomes = {}
        self._held = {digest: held for digest, held in self._held.items() if held[0] >= before}
        self._own = {digest: held for digest, held in self._own.items() if held[0] >= own}
        self._on_disk = {digest: slot for digest, slot in self._on_disk.items() if slot >= own}
        self._leave_to_disk()
        if self._spool is not None:
            self._spool.forget(before)
        self._wanted = {digest: wanted for digest, wanted in self._wanted.items() if wanted.header.slot >= own}

    def _keep_here(self, slot: Slot, digest: Digest) -> bool:
        """Keep what is here for this slot, too, where it is; whether it is here."""
        if self._spool is not None and self._spool.also_for(slot, digest):
            return True
        vector = self.get(digest)
        if vector is None:
            return False
        _keep(self._held, slot, digest, vector)
        return True

    def _leave_to_disk(self) -> None:
        """Let go of one's own vectors of slots that were left."""
        if self._kept is not None:
            left = {digest: slot for digest, (slot, _) in self._own.items() if slot < self._current}
            self._on_disk.update(left)
            for digest in left:
                del self._own[digest]

    def _from_disk(self, digest: Digest) -> Announced | None:
        """Read it again; once for all who are told at the same time."""
        if digest not in self._on_disk and digest not in (self._spool or ()):
            return None
        vector = self._read_again.get(digest)
        if vector is None:
            vector = self._read(digest)
            if vector is None or not self.fits(vector) or digest_of(vector) != digest:
                return None
            self._read_again[digest] = vector
        return vector

    def _read(self, digest: Digest) -> Announced | None:
        slot = self._on_disk.get(digest)
        if slot is not None and self._kept is not None:
            return self._kept(slot)
        return self._spool.get(digest) if self._spool is not None else None

    def _make_way(self) -> None:
        """Before memory is taken for one more, let go of the oldest of those that only who is slow may ask for."""
        old = [(held[0], digest) for digest, held in self._held.items() if held[0] < self._current]
        if self._spare is None or len(old) <= self._spare:
            return
        slot, digest = min(old)
        if self._spool is None or self._spool.put(slot, digest, self._held[digest][1]):
            del self._held[digest]


def _remember(table: dict[tuple[PeerId, Digest], Slot], sender: PeerId, header: Header) -> None:
    """For which slot a peer's bytes were last spoken of."""
    sent = (sender, header.digest)
    table[sent] = max(header.slot, table.get(sent, header.slot))


def _keep(table: dict[Digest, tuple[Slot, Announced]], slot: Slot, digest: Digest, vector: Announced) -> None:
    """Keep a vector as long as the latest slot that it belongs to is in play."""
    held = table.get(digest)
    table[digest] = (max(slot, held[0]) if held is not None else slot, vector)


def is_finite(vector: Announced) -> bool:
    """Whether no element is NaN or infinite, by their bits, without a copy.

    Of one sign numbers are ordered as their bits are, with NaN beyond infinity. As signed integers those without a sign
    bit are the largest; as unsigned ones those with it, if there are any. To look twice takes half the time of a sum.
    """
    infinity, sign = _INFINITY[vector.dtype], 1 << (8 * vector.itemsize - 1)
    signed, unsigned = (vector.view(f"{kind}{vector.itemsize}") for kind in "iu")
    return bool(signed.max() < infinity and unsigned.max() < sign | infinity)


def digest_of(vector: Announced | Vector) -> Digest:
    """BLAKE3 of a vector's bytes, 32 bytes."""
    return blake3.blake3(vector.view(np.uint8).data).digest()
