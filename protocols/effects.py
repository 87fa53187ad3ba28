"""What a protocol may ask for. Its whole output is an ordered list of these."""

from dataclasses import dataclass
from typing import TypeAlias

from protocols.faults import Equivocation, Fault
from protocols.header import Digest, Header, PeerId, Signature, SignedHeader, Slot


@dataclass(frozen=True, slots=True)
class _Shown:
    """A message that shows a signed header."""

    signed: SignedHeader

    @property
    def slot(self) -> Slot:
        return self.signed.header.slot

    @property
    def origin(self) -> PeerId:
        return self.signed.header.origin


@dataclass(frozen=True, slots=True)
class Proposal(_Shown):
    """origin → all: my vector of this slot has this digest."""


@dataclass(frozen=True, slots=True)
class Echo:
    """member → origin: I hold the bytes, and saw no other header of yours for this slot."""

    slot: Slot
    origin: PeerId
    signature: Signature


@dataclass(frozen=True, slots=True)
class Certificate(_Shown):
    """origin → all: a quorum vouches for this header. Anyone may pass it on.

    Args:
        signed: the header.
        echoes: (member, signature on `header.echo()`), members strictly increasing; never the origin's, whose header
            vouches.
    """

    echoes: tuple[tuple[PeerId, Signature], ...]

    def signed_by(self) -> tuple[tuple[PeerId, bytes, Signature], ...]:
        """All signatures that it holds by: whose, on what, and the signature."""
        header = self.signed.header
        statement = header.echo().statement
        echoes = tuple((member, statement, signature) for member, signature in self.echoes)
        return ((header.origin, header.proposal().statement, self.signed.signature), *echoes)


@dataclass(frozen=True, slots=True)
class Sighting(_Shown):
    """member → all: I saw this header and never its certificate. Whoever saw another one holds a proof."""


@dataclass(frozen=True, slots=True)
class DigestEcho(_Shown):
    """member → all: I hold the bytes, and echo no other header of this origin and slot."""


@dataclass(frozen=True, slots=True)
class Ready:
    """member → all: no other digest of this origin and slot can be delivered by anyone honest."""

    slot: Slot
    origin: PeerId
    digest: Digest


@dataclass(frozen=True, slots=True)
class Report:
    """member → all: of these members I delivered the value of this slot.

    Args:
        slot: the slot.
        delivered: n−f members or more, strictly increasing.
    """

    slot: Slot
    delivered: tuple[PeerId, ...]


BroadcastMessage: TypeAlias = Proposal | Echo | Certificate | Sighting | DigestEcho | Ready
"""What one origin's broadcast consists of."""

Message: TypeAlias = BroadcastMessage | Report


@dataclass(frozen=True, slots=True)
class Hello:
    """member → member, whenever a link between them comes up: of my steps from `since` on you will hear all I say."""

    since: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """member → all, and to whom a link comes up: this proves that a member equivocated."""

    proof: Equivocation


@dataclass(frozen=True, slots=True)
class Send:
    """Send `message` to one member."""

    to: PeerId
    message: Message | Hello | Evidence


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send `message` to every other member."""

    message: Message | Evidence


@dataclass(frozen=True, slots=True)
class Stream:
    """Send the bytes that `header` names to `to`, or to every other member where that is None."""

    header: Header
    to: PeerId | None = None


@dataclass(frozen=True, slots=True)
class Expect:
    """The bytes that `header` names are welcome; say `arrived(digest)` when they are here and usable."""

    header: Header


@dataclass(frozen=True, slots=True)
class Fetch:
    """The bytes that `header` names are certified and not here: get them from any of `holders`."""

    header: Header
    holders: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Values of one slot, (member, digest) by increasing member, one's own among them."""

    slot: Slot
    values: tuple[tuple[PeerId, Digest], ...]


@dataclass(frozen=True, slots=True)
class Deliver:
    """The protocol's output: a header, what was gathered, or the digest of the agreed vector."""

    value: Header | Gathered | Digest


@dataclass(frozen=True, slots=True)
class Mix:
    """Mix these vectors by the recipe's rule; say `mixed(digest)` with the digest of the outcome.

    Args:
        gathered: what to mix.
        into: the slot in which the mixture will be proposed; None where that is not known yet.
    """

    gathered: Gathered
    into: Slot | None = None


@dataclass(frozen=True, slots=True)
class Accuse:
    """`peer` misbehaved; with a proof where third parties can be convinced."""

    peer: PeerId
    fault: Fault
    evidence: Equivocation | None = None


Effect: TypeAlias = Send | Broadcast | Stream | Expect | Fetch | Deliver | Mix | Accuse
