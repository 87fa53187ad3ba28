"""What is signed: a header names a vector by its place in the conversation and its digest.

A header's statement and an echo's statement are fixed layouts of fixed-width integers, so one meaning has exactly one
encoding, and the two carry different domains, so that a signature on one is never a signature on the other.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple, NewType, Protocol

PeerId = NewType("PeerId", int)
"""A member's index in the genesis, 0 … n−1."""

DIGEST_BYTES = 32
NETWORK_BYTES = 32
SIGNATURE_BYTES = 64

Digest = bytes
Signature = bytes

FLOAT32 = 1
"""Wire code of IEEE 754 binary32, little endian."""

BFLOAT16 = 2
"""Wire code of the upper half of binary32, little endian: its range, and 8 significant bits."""

FLOAT16 = 3
"""Wire code of IEEE 754 binary16, little endian: 11 significant bits, up to 65504."""

STEP_MAX = 2**63 - 1
LENGTH_MAX = 2**40

_STATEMENT = struct.Struct(f">{NETWORK_BYTES}sIQBHBQ{DIGEST_BYTES}s")
_PROPOSAL_DOMAIN = b"p2pnode/proposal/v1\0"
_ECHO_DOMAIN = b"p2pnode/echo/v1\0"


class Slot(NamedTuple):
    """One place in the conversation, ordered as the conversation runs.

    Args:
        step: learning step, from 0.
        exchange: which exchange of the step's recipe, from 0.
        sub_round: which sub-round of that exchange's averaging agreement, from 0.
    """

    step: int
    exchange: int = 0
    sub_round: int = 0

    @property
    def place(self) -> str:
        """Its name in a `Claim`."""
        return f"{self.step} {self.exchange} {self.sub_round}"


@dataclass(frozen=True, slots=True)
class Header:
    """A vector's name: who sends it, where in the conversation, and what its bytes hash to.

    Args:
        network: hash of the genesis, 32 bytes; a header of another network means nothing here.
        origin: the member whose vector this is.
        slot: its place.
        dtype: wire code of the elements: `FLOAT32`, `BFLOAT16` or `FLOAT16`.
        length: number of elements.
        digest: BLAKE3 of the vector's bytes, 32 bytes.
    """

    network: bytes
    origin: PeerId
    slot: Slot
    dtype: int
    length: int
    digest: Digest

    def _statement(self, domain: bytes) -> bytes:
        slot = self.slot
        return domain + _STATEMENT.pack(
            self.network, self.origin, slot.step, slot.exchange, slot.sub_round, self.dtype, self.length, self.digest
        )

    def proposal(self) -> "Claim":
        """What the origin signs, once for its slot."""
        return Claim(self.slot.step, f"proposal {self.slot.place}", self._statement(_PROPOSAL_DOMAIN))

    def echo(self) -> "Claim":
        """What a member signs to vouch that it saw no other header of this origin and slot, and holds the bytes."""
        return Claim(self.slot.step, f"echo {self.origin} {self.slot.place}", self._statement(_ECHO_DOMAIN))


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A header with its origin's signature on `header.proposal()`."""

    header: Header
    signature: Signature


@dataclass(frozen=True, slots=True)
class Claim:
    """Something to be signed: at most one statement is ever signed for a place.

    Args:
        step: the learning step it belongs to.
        place: names the one statement that may be signed there.
        statement: the bytes that are signed.
    """

    step: int
    place: str
    statement: bytes


class Signer(Protocol):
    """Signs as one member, and never contradicts itself."""

    def sign(self, claim: Claim) -> Signature | None:
        """The signature, or None where a different statement was signed or promised for the same place before."""

    def promise(self, claim: Claim) -> bool:
        """Commit to the statement as `sign` does, for words that go out unsigned; False where `sign` gives None."""

    def promised(self, place: str) -> bytes | None:
        """The statement that was signed or promised for this place, before a crash too."""


class Verify(Protocol):
    """Tells whether `signature` is `member`'s on `statement`."""

    def __call__(self, member: PeerId, statement: bytes, signature: Signature, /) -> bool: ...
