"""What a node proposes in its slots: rounded as the recipe says, named by its digest, durable before it is signed."""

import secrets

import numpy as np

from p2pnode.learning.wire import narrow
from p2pnode.observe.log import Log
from p2pnode.observe.phases import Phases
from p2pnode.storage.checkpoint import Outbox
from p2pnode.storage.vectors import Announced, Vector, Vectors, digest_of
from protocols.header import DIGEST_BYTES, Digest, Slot


class Proposals:
    """One node's own vectors, each the same for ever in its slot.

    Args:
        outbox: keeps them over a crash.
        vectors: those in play.
        dtype: wire code of what is announced.
        phases: told when the node is at `hash` and at `journal`.
        log: told of numbers that are too great for the type.
    """

    def __init__(self, outbox: Outbox, vectors: Vectors, dtype: int, phases: Phases, log: Log) -> None:
        self._outbox = outbox
        self._vectors = vectors
        self._dtype = dtype
        self._phases = phases
        self._log = log

    def said(self) -> dict[Slot, Digest]:
        """What the node proposed last before it stopped, put in play again."""
        said = {}
        for slot, vector in self._outbox.kept().items():
            if self._vectors.fits(vector):
                said[slot] = digest_of(vector)
                self._vectors.put(slot, said[slot], vector)
        return said

    def make(self, slot: Slot | None, vector: Vector) -> tuple[Digest, Announced | Vector]:
        """What to propose in a slot, rounded and made durable: after a crash what was proposed before it, even if it
        would come out otherwise today. A vector that is proposed nowhere stays as it is, and has its name by chance:
        nobody else hears of it, and to hash it can take as long as to mix it."""
        if slot is None:
            return secrets.token_bytes(DIGEST_BYTES), np.ascontiguousarray(vector)
        with self._phases.during("journal"):
            kept = self._outbox.get(slot)
        if kept is not None and self._vectors.fits(kept):
            return self._named(kept)
        digest, announced = self._named(self._rounded(slot, vector))
        with self._phases.during("journal"):
            self._outbox.put(slot, announced, digest)
        return digest, announced

    def _rounded(self, slot: Slot, vector: Vector) -> Announced:
        def saturated(why: str) -> None:
            self._log.warning("vector saturated", step=slot.step, reason=why)

        with self._phases.during("hash"):
            return narrow(vector, self._dtype, saturated)

    def _named(self, vector: Announced) -> tuple[Digest, Announced]:
        vector = np.ascontiguousarray(vector)
        with self._phases.during("hash"):
            return digest_of(vector), vector
