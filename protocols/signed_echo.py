"""Signed echo broadcast: no two honest members deliver different vectors, whatever the origin does.

    origin: PROPOSAL(header) and the bytes → all
    member: on the origin's first header, once its bytes are here: ECHO(signature) → origin
    origin: on ⌊(n+f)/2⌋ echoes of distinct others, its header vouching for itself: CERTIFICATE(header, echoes) → all
    member: on a certificate, once the bytes are here: deliver

Guarantees, for n ≥ 3f+1 over authenticated asynchronous links:

* validity: if the origin is honest, every honest member delivers its header;
* consistency: those who vouch in two certificates for one slot share an honest member, who signs or echoes one header
  only, so no two honest members deliver different ones;
* integrity: nobody delivers twice, or what the origin did not sign;
* availability: a certificate names at least f+1 honest members that hold the bytes, since one echoes after they came.

Not totality: a lying origin may hand its certificate to some and not to others.

Cost: three message delays; n−1 headers, n−1 echoes, n−1 certificates of ⌊(n+f)/2⌋ echoes, and n−1 vectors.

Source: Cachin, Guerraoui, Rodrigues, "Introduction to Reliable and Secure Distributed Programming", algorithm 3.17;
used by MoNNA (arXiv 2209.10931). Three deviations: the echo waits for the bytes, which buys availability; the last
message carries the digest and the certificate, never the vector again; and the origin's signature on its header stands
for its own echo, as an honest origin signs one header only: one signature less to make, and n−1 to check, each slot.
"""

from itertools import pairwise

from protocols import effects
from protocols.broadcast import Broadcast
from protocols.effects import (
    BroadcastMessage,
    Certificate,
    Deliver,
    Echo,
    Effect,
    Fetch,
    Proposal,
    Send,
    Sighting,
    Stream,
)
from protocols.faults import Fault
from protocols.header import Claim, Digest, Header, PeerId, Signature, Slot
from protocols.protocol import Party


class SignedEcho(Broadcast):
    """One instance of signed echo broadcast at one member."""

    consistent = True

    def __init__(self, party: Party, slot: Slot, origin: PeerId) -> None:
        super().__init__(party, slot, origin)
        self.certificate: Certificate | None = None
        self._my_echo: Signature | None = None
        self._echoes: dict[PeerId, Signature] = {}
        self._early: dict[PeerId, BroadcastMessage] = {}
        self._held: set[Digest] = set()

    @property
    def done(self) -> bool:
        return self.delivered

    def _proposed(self) -> list[Effect]:
        assert self.signed is not None
        self._held.add(self.signed.header.digest)
        return self._certify() + self._refused()

    def _refused(self) -> list[Effect]:
        return [effect for member, early in self._early.items() for effect in self.handle(member, early)]

    def handle(self, sender: PeerId, message: BroadcastMessage) -> list[Effect]:
        if self.done:
            return []
        if self.mine and not self._started:  # only a peer that remembers us from before a crash speaks first
            self._early.setdefault(sender, message)
            return []
        match message:
            case Proposal():
                return self._propose(sender, message)
            case Sighting():
                return self._see(sender, message.signed)
            case Echo():
                return self._echoed(sender, message)
            case Certificate():
                return self._certified(sender, message)
            case _:
                return self._accuse(sender, Fault.OUT_OF_TURN)

    def arrived(self, digest: Digest) -> list[Effect]:
        if self.done or digest in self._held or not self._wants(digest):
            return []
        self._held.add(digest)
        return self._deliver() if self.certificate is not None else self._echo(digest)

    def claims(self, digest: Digest) -> list[Claim]:
        if self.certificate is not None or digest in self._held or self._my_echo is not None:
            return []
        return [self.signed.header.echo()] if self.signed is not None and self._may_echo(digest) else []

    def resume(self, peer: PeerId) -> list[Effect]:
        if self.signed is None:
            return []
        asked = self._fetch((peer,)) if self.certificate is not None and not self.delivered else []
        if self.mine:
            again: BroadcastMessage = self.certificate or Proposal(self.signed)
            return [Stream(self.signed.header, peer), Send(peer, again), *asked]
        if peer != self.origin:
            return asked
        if self.certificate is not None:  # the origin may have lost it in a crash
            return [Send(peer, self.certificate), *asked]
        if self._my_echo is not None:
            return [Send(peer, Echo(self.slot, self.origin, self._my_echo))]
        return []

    def close(self) -> list[Effect]:
        """Show a header that never got its certificate, so that whoever holds a second one has the proof."""
        if self.mine or self.signed is None or self.certificate is not None:
            return []
        return [effects.Broadcast(Sighting(self.signed))]

    def _wants(self, digest: Digest) -> bool:
        """Bounds `_held`: the first header's digest and the certified one's."""
        certified = self.certificate.signed if self.certificate is not None else None
        return any(signed is not None and signed.header.digest == digest for signed in (self.signed, certified))

    def _echo(self, digest: Digest) -> list[Effect]:
        if self.signed is None or not self._may_echo(digest):
            return []
        self._my_echo = self.party.signer.sign(self.signed.header.echo())
        if self._my_echo is None:  # echoed another one before a crash
            return []
        return [Send(self.origin, Echo(self.slot, self.origin, self._my_echo))]

    def _may_echo(self, digest: Digest) -> bool:
        """Alg. 3.17: echo the first header, and no other. Knowing of a second one, do not help the first."""
        first = self.signed is not None and self.signed.header.digest == digest
        return first and not self.mine and not self._equivocated

    def _echoed(self, sender: PeerId, echo: Echo) -> list[Effect]:
        if not self.mine:
            return self._accuse(sender, Fault.OUT_OF_TURN)
        if self.signed is None or sender in self._echoes:
            return []
        if not self.party.verify(sender, self.signed.header.echo().statement, echo.signature):
            return self._accuse(sender, Fault.MALFORMED)
        self._echoes[sender] = echo.signature
        return self._certify()

    def _certify(self) -> list[Effect]:
        """Alg. 3.17: once more than (n+f)/2 vouch, oneself among them, certify."""
        assert self.signed is not None
        if len(self._echoes) + 1 < self.party.committee.echo_quorum:
            return []
        self.certificate = Certificate(self.signed, tuple(sorted(self._echoes.items())))
        return [effects.Broadcast(self.certificate), *self._complete()]

    def _certified(self, sender: PeerId, certificate: Certificate) -> list[Effect]:
        if self.certificate is not None:
            # A second, different certificate would need more than f liars. What remains is its two headers.
            return self._see(sender, certificate.signed)
        if not self._holds(certificate):
            return self._accuse(sender, Fault.MALFORMED)
        out = self._see(sender, certificate.signed)
        self.certificate = certificate
        if self.mine:  # made before a crash
            out.append(effects.Broadcast(certificate))
        return out + self._complete()

    def _complete(self) -> list[Effect]:
        """Deliver; where the bytes are missing, after a crash even one's own, ask those who vouch; the origin last, as
        it sends them already."""
        assert self.certificate is not None
        vouching = (*(member for member, _ in self.certificate.echoes), self.origin)
        return self._deliver() or self._fetch(tuple(member for member in vouching if member != self.party.me))

    def _fetch(self, holders: tuple[PeerId, ...]) -> list[Effect]:
        assert self.certificate is not None
        return [Fetch(self.certificate.signed.header, holders)]

    def _holds(self, certificate: Certificate) -> bool:
        """Whether a quorum of distinct members vouches, each by a valid signature: the origin's is the header's."""
        signed, echoes = certificate.signed, certificate.echoes
        members = [member for member, _ in echoes]
        committee, statement = self.party.committee, signed.header.echo().statement
        return (
            len(members) + 1 >= committee.echo_quorum
            and all(one < other for one, other in pairwise((-1, *members, committee.n)))
            and self.origin not in members
            and self._fits(signed.header)
            and (self._knows(signed.header) or self._verifies(signed))
            and all(
                self._is_my_echo(signed.header, member, signature) or self.party.verify(member, statement, signature)
                for member, signature in echoes
            )
        )

    def _is_my_echo(self, header: Header, member: PeerId, signature: Signature) -> bool:
        """Whether it is what one signed oneself, which needs no check."""
        return member == self.party.me and signature == self._my_echo and self._knows(header)

    def _deliver(self) -> list[Effect]:
        assert self.certificate is not None
        header = self.certificate.signed.header
        if header.digest not in self._held:
            return []
        self.delivered = True
        return [Deliver(header)]
