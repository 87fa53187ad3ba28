"""Reliable broadcast, on digests: what one honest member delivers, every honest member delivers.

    origin: PROPOSAL(header) and the bytes → all
    member: on the origin's first header, once its bytes are here: ECHO(header) → all
    member: on ⌊(n+f)/2⌋+1 echoes of a digest, or f+1 readies of it: READY(digest) → all, once
    member: on 2f+1 readies of a digest, once the bytes are here: deliver

Guarantees, for n ≥ 3f+1 over authenticated asynchronous links:

* validity: if the origin is honest, every honest member delivers its header;
* consistency: two digests echoed by a quorum each share an honest echoer, who echoes one header only; so the honest are
  ready for one digest at most, and no two deliver different ones;
* totality: among 2f+1 readies f+1 are honest and reach all, which makes every honest member ready, and so 2f+1 in all;
* integrity: nobody delivers twice, or what the origin did not sign;
* availability: whoever delivers can have the bytes, since some honest member was ready after a quorum of echoes, f+1 of
  them by honest members that held the bytes.

Cost: three message delays; n−1 headers, n(n−1) echoes, n(n−1) readies, and n−1 vectors.

A member that crashes remembers, by its signer, which header it echoed and which digest it was ready for, and says again
that it is ready: so totality outlives crashes, as long as somebody remembers the bytes.

Source: Bracha, "Asynchronous Byzantine agreement protocols", 1987; Cachin, Guerraoui, Rodrigues, algorithm 3.18
(authenticated double-echo). Deviations: digests travel instead of the message; an echo waits for the bytes, which buys
availability; and it shows the signed header, so that whoever hears two echoes of an equivocator holds the proof.
"""

from collections import Counter

from protocols import effects
from protocols.broadcast import Broadcast
from protocols.effects import (
    BroadcastMessage,
    Deliver,
    DigestEcho,
    Effect,
    Fetch,
    Proposal,
    Ready,
    Send,
    Sighting,
    Stream,
)
from protocols.faults import Fault
from protocols.header import Claim, Digest, PeerId, SignedHeader, Slot
from protocols.protocol import Party


class _Tally:
    """Who is for which digest; only a member's first vote counts, which bounds it by n."""

    def __init__(self) -> None:
        self.votes: dict[PeerId, Digest] = {}
        self.count: Counter[Digest] = Counter()

    def add(self, member: PeerId, digest: Digest) -> int:
        """How many are for the digest with this vote; 0 where the vote does not count."""
        if member in self.votes:
            return 0
        self.votes[member] = digest
        self.count[digest] += 1
        return self.count[digest]


class Reliable(Broadcast):
    """One instance of reliable broadcast at one member."""

    consistent = True
    total = True

    def __init__(self, party: Party, slot: Slot, origin: PeerId) -> None:
        super().__init__(party, slot, origin)
        self._echoes = _Tally()
        self._readies = _Tally()
        self._my_echo: SignedHeader | None = None
        self._my_ready: Digest | None = None
        self._ready_place = f"ready {origin} {slot.place}"
        self._recalled = party.signer.promised(self._ready_place)
        self._decided: Digest | None = None
        self._held: set[Digest] = set()

    @property
    def done(self) -> bool:
        return self.delivered

    def _proposed(self) -> list[Effect]:
        assert self.signed is not None
        self._held.add(self.signed.header.digest)
        return self._echo() + self._deliver()  # others may have been ready before, if this is after a crash

    def handle(self, sender: PeerId, message: BroadcastMessage) -> list[Effect]:
        if self.done:
            return []
        out = self._recall()
        match message:
            case Proposal():
                out += self._propose(sender, message)
            case Sighting():
                out += self._see(sender, message.signed)
            case DigestEcho(signed):
                out += self._echoed(sender, signed)
            case Ready(digest=digest):
                out += self._count_ready(sender, digest)
            case _:
                out += self._accuse(sender, Fault.OUT_OF_TURN)
        return out

    def arrived(self, digest: Digest) -> list[Effect]:
        wanted = (self.signed is not None and self.signed.header.digest == digest) or self._decided == digest
        if self.done or not wanted:
            return []
        self._held.add(digest)
        return self._echo() + self._deliver()

    def resume(self, peer: PeerId) -> list[Effect]:
        out = self._recall()
        if self.mine and self.signed is not None:
            out += [Stream(self.signed.header, peer), Send(peer, Proposal(self.signed))]
        if self._my_echo is not None:
            out.append(Send(peer, DigestEcho(self._my_echo)))
        if self._my_ready is not None:
            out.append(Send(peer, Ready(self.slot, self.origin, self._my_ready)))
        if self._decided is not None and not self.delivered:
            out.append(self._fetch(self._decided, (peer,)))
        return out

    def close(self) -> list[Effect]:
        return []

    def _recall(self) -> list[Effect]:
        """Say what one was ready for before a crash."""
        return self._become_ready(self._recalled) if self._recalled is not None and not self.done else []

    def _echo(self) -> list[Effect]:
        """Alg. 3.18: echo the first header, and no other. Knowing of a second one, do not help the first."""
        signed = self.signed
        if signed is None or self._my_echo is not None or self._equivocated or signed.header.digest not in self._held:
            return []
        if not self.party.signer.promise(signed.header.echo()):  # echoed another one before a crash
            return []
        self._my_echo = signed
        return [effects.Broadcast(DigestEcho(signed)), *self._count_echo(self.party.me, signed.header.digest)]

    def _echoed(self, sender: PeerId, signed: SignedHeader) -> list[Effect]:
        """Count an echo. Only a quorum means anything, and the honest part of it has verified the header."""
        if not self._fits(signed.header):
            return self._accuse(sender, Fault.MALFORMED)
        return self._see(sender, signed) + self._count_echo(sender, signed.header.digest)

    def _count_echo(self, member: PeerId, digest: Digest) -> list[Effect]:
        """Alg. 3.18: ready on more than (n+f)/2 echoes."""
        if self._echoes.add(member, digest) < self.party.committee.echo_quorum:
            return []
        return self._become_ready(digest)

    def _count_ready(self, member: PeerId, digest: Digest) -> list[Effect]:
        """Alg. 3.18: ready on more than f readies, deliver on more than 2f."""
        count, out = self._readies.add(member, digest), []
        if count >= self.party.committee.one_honest:
            out = self._become_ready(digest)
            count = self._readies.count[digest]
        if count >= self.party.committee.ready_quorum and self._decided is None:
            out += self._decide(digest)
        return out

    def _become_ready(self, digest: Digest) -> list[Effect]:
        claim = Claim(self.slot.step, self._ready_place, digest)
        if self._my_ready is not None or not self.party.signer.promise(claim):
            return []
        self._my_ready = digest
        return [effects.Broadcast(Ready(self.slot, self.origin, digest)), *self._count_ready(self.party.me, digest)]

    def _decide(self, digest: Digest) -> list[Effect]:
        self._decided = digest
        if delivered := self._deliver():
            return delivered
        echoed = [member for member, voted in self._echoes.votes.items() if voted == digest]
        others = [member for member in self.party.committee.members if member not in echoed]
        return [self._fetch(digest, tuple(member for member in echoed + others if member != self.party.me))]

    def _fetch(self, digest: Digest, holders: tuple[PeerId, ...]) -> Effect:
        """From those first who said that they hold it: f+1 honest members do, and their echoes may be under way."""
        return Fetch(self.party.header(self.origin, self.slot, digest), holders)

    def _deliver(self) -> list[Effect]:
        if self.delivered or self._decided is None or self._decided not in self._held:
            return []
        self.delivered = True
        return [Deliver(self.party.header(self.origin, self.slot, self._decided))]
