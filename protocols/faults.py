"""What a peer can do wrong, and the proof of it that convinces a third party."""

from dataclasses import dataclass
from enum import Enum

from protocols.header import PeerId, SignedHeader, Verify


class Fault(Enum):
    """A kind of misbehaviour that no correct peer ever shows."""

    EQUIVOCATED = "equivocated"
    """Signed two headers for one slot."""
    MALFORMED = "malformed"
    """Sent a signature that does not verify, a certificate that does not hold, or a vector that cannot be used."""
    IMPERSONATED = "impersonated"
    """Sent, as its own, what only another member may send."""
    OUT_OF_TURN = "out of turn"
    """Sent what no correct peer sends here, such as a sub-round that the recipe does not have."""


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two headers that one member signed for one slot, in the order of their digests."""

    first: SignedHeader
    second: SignedHeader

    @classmethod
    def of(cls, one: SignedHeader, other: SignedHeader) -> "Equivocation":
        """The proof made of two headers, in its one order."""
        if _rank(other) < _rank(one):
            one, other = other, one
        return cls(one, other)

    @property
    def accused(self) -> PeerId:
        return self.first.header.origin

    def holds(self, network: bytes, verify: Verify) -> bool:
        """Whether it proves, to anyone who holds the genesis, that `accused` equivocated."""
        first, second = self.first.header, self.second.header
        return (
            first.network == second.network == network
            and (first.origin, first.slot) == (second.origin, second.slot)
            and _rank(self.first) < _rank(self.second)
            and all(
                verify(self.accused, signed.header.proposal().statement, signed.signature)
                for signed in (self.first, self.second)
            )
        )


def _rank(signed: SignedHeader) -> bytes:
    return signed.header.proposal().statement
