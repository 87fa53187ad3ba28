"""What every broadcast of a vector shares: one signed header an origin and slot, and the proof when there are two."""

from abc import abstractmethod
from typing import ClassVar

from protocols import effects
from protocols.effects import BroadcastMessage, Effect, Expect, Proposal, Stream
from protocols.errors import UsageError
from protocols.faults import Equivocation, Fault
from protocols.header import Digest, Header, PeerId, SignedHeader, Slot
from protocols.protocol import Party, Protocol


class Broadcast(Protocol[Digest, BroadcastMessage]):
    """One origin's broadcast for one slot, at one member. Outputs `Deliver(header)` at most once.

    Every kind signs its headers and notices equivocation; what it guarantees beyond that, the kind says.
    """

    consistent: ClassVar[bool] = False
    """Whether no two honest members deliver different headers."""
    total: ClassVar[bool] = False
    """Whether every honest member delivers what one of them delivers."""

    def __init__(self, party: Party, slot: Slot, origin: PeerId) -> None:
        super().__init__(party)
        self.slot = slot
        self.origin = origin
        self.signed: SignedHeader | None = None
        self.delivered = False
        self._started = False
        self._equivocated = False

    @property
    def mine(self) -> bool:
        return self.party.me == self.origin

    def start(self, value: Digest) -> list[Effect]:
        """Propose one's own vector. Silent where another one was signed for this slot before a crash."""
        if not self.mine or self._started:
            raise UsageError(f"only member {self.origin} starts its broadcast for {self.slot}, and once")
        self._started = True
        header = self.party.header(self.origin, self.slot, value)
        signature = self.party.signer.sign(header.proposal())
        if signature is None:
            return self._refused()
        self.signed = SignedHeader(header, signature)
        return [Stream(header), effects.Broadcast(Proposal(self.signed)), *self._proposed()]

    @abstractmethod
    def _proposed(self) -> list[Effect]:
        """What follows one's own proposal."""

    def _refused(self) -> list[Effect]:
        """What follows where one proposed something else before a crash, and no longer knows what."""
        return []

    def unusable(self, digest: Digest) -> list[Effect]:
        if self.done or self.signed is None or self.signed.header.digest != digest:
            return []
        return self._accuse(self.origin, Fault.MALFORMED)

    def _propose(self, sender: PeerId, proposal: Proposal) -> list[Effect]:
        """Take the origin's own word for its header."""
        if sender != self.origin:
            return self._accuse(sender, Fault.IMPERSONATED)
        return self._see(sender, proposal.signed)

    def _see(self, sender: PeerId, signed: SignedHeader) -> list[Effect]:
        """Take a header that `sender` showed: keep the first, prove guilt by the second."""
        header = signed.header
        if self._knows(header) or self._equivocated:
            return []
        if self.mine and not self._started:  # signed before a crash; `start` signs it again
            return []
        if not self._fits(header) or not self._verifies(signed):
            return self._accuse(sender, Fault.MALFORMED)
        if self.signed is None:
            self.signed = signed
            return [Expect(header)]
        self._equivocated = True
        return self._accuse(self.origin, Fault.EQUIVOCATED, Equivocation.of(self.signed, signed))

    def _knows(self, header: Header) -> bool:
        return self.signed is not None and self.signed.header == header

    def _fits(self, header: Header) -> bool:
        return self.party.admits(header) and (header.origin, header.slot) == (self.origin, self.slot)

    def _verifies(self, signed: SignedHeader) -> bool:
        return self.party.verify(self.origin, signed.header.proposal().statement, signed.signature)
