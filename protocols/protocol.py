"""The contract that every protocol keeps.

Six laws, checked for each by one generic suite (`tests/laws`):

* deterministic: the same inputs give the same effects, under any hash seed;
* total: no decoded message raises, whoever sent it;
* idempotent: a duplicate yields `[]`;
* bounded: the state depends on n, never on traffic;
* innocent: no correct peer is ever accused;
* finished: once `done`, every input yields `[]`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from protocols.committee import Committee
from protocols.effects import Accuse, Effect
from protocols.faults import Equivocation, Fault
from protocols.header import Claim, Digest, Header, PeerId, Signer, Slot, Verify

Input = TypeVar("Input")
Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class Party:
    """Whom a protocol instance acts as, and what all its instances share.

    Args:
        me: the member it acts as.
        committee: who takes part.
        network: hash of the genesis, 32 bytes.
        dtype: wire code that every vector must have.
        length: number of elements that every vector must have.
        signer: signs as `me`.
        verify: checks any member's signature.
    """

    me: PeerId
    committee: Committee
    network: bytes
    dtype: int
    length: int
    signer: Signer
    verify: Verify

    def header(self, origin: PeerId, slot: Slot, digest: Digest) -> Header:
        """The header of the vector of this digest."""
        return Header(self.network, origin, slot, self.dtype, self.length, digest)

    def admits(self, header: Header) -> bool:
        """Whether a header speaks of this network and of a vector of the model's type."""
        return (header.network, header.dtype, header.length) == (self.network, self.dtype, self.length)


class Protocol(ABC, Generic[Input, Message]):
    """One instance of one protocol at one member."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self._accused: set[tuple[PeerId, Fault]] = set()

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the instance may be dropped."""

    @abstractmethod
    def start(self, value: Input) -> list[Effect]:
        """Begin with one's own value.

        Raises:
            UsageError: if it was started before.
        """

    @abstractmethod
    def handle(self, sender: PeerId, message: Message) -> list[Effect]:
        """Take a message; the link vouches for `sender`, and nothing else is trusted."""

    @abstractmethod
    def arrived(self, digest: Digest) -> list[Effect]:
        """The bytes of `digest` are here, complete, finite and of the model's length."""

    def claims(self, digest: Digest) -> list[Claim]:
        """What will be signed if the bytes of `digest` come next, so that it can be signed together with other things.
        Not an input: it changes nothing."""
        return []

    @abstractmethod
    def unusable(self, digest: Digest) -> list[Effect]:
        """The bytes of `digest` are here and not finite: they count as never sent."""

    @abstractmethod
    def resume(self, peer: PeerId) -> list[Effect]:
        """A link to `peer` was lost and is back: send again what it may have missed. Not an input of the laws."""

    @abstractmethod
    def close(self) -> list[Effect]:
        """Last words before the instance is dropped unfinished."""

    def _accuse(self, peer: PeerId, fault: Fault, evidence: Equivocation | None = None) -> list[Effect]:
        """Accuse once: a repeated fault says nothing new, and must not fill anyone's memory."""
        if (peer, fault) in self._accused:
            return []
        self._accused.add((peer, fault))
        return [Accuse(peer, fault, evidence)]
