"""Every honest member comes to hold a proof against whoever any honest member holds a proof against.

    on a proof of one's own finding, or EVIDENCE(proof) that holds, the first against its accused: EVIDENCE(proof) → all
    on a link to a peer that comes up: EVIDENCE(each proof held) → that peer

Guarantees, over links on which a message between honest members arrives or the link comes up anew, for any f < n:

* totality: if an honest member holds a proof against a member, every honest one does in the end, though the liar never
  lied to it;
* integrity: what is held proves, to anyone who has the genesis, that the accused signed two headers for one slot. So no
  honest member is ever convicted;
* bound: one proof is kept and passed on for each member, whichever came first, so n of them at most; what a peer says
  of the convicted is not looked at, and who showed a proof that does not hold is not listened to again: it costs two
  signatures, once.

Cost: one message delay from the one who found out; at most (n−1)² messages of two headers for each who is convicted.

It belongs to no slot, so it is no part of any broadcast; the node keeps one for its whole life, and what it holds
outlives a crash as all evidence does.
"""

from collections.abc import Mapping

from protocols import effects
from protocols.effects import Accuse, Effect, Evidence, Send
from protocols.faults import Equivocation, Fault
from protocols.header import PeerId
from protocols.protocol import Party


class Convictions:
    """The proofs that one member holds.

    Args:
        party: whom it acts as.
        held: what it held before a restart, by the accused; each must hold.
    """

    def __init__(self, party: Party, held: Mapping[PeerId, Equivocation] | None = None) -> None:
        self.party = party
        self.held = dict(held or {})
        self._unheard: set[PeerId] = set()

    def found(self, proof: Equivocation) -> list[Effect]:
        """A proof made of two headers that were both verified here."""
        if proof.accused in self.held:
            return []
        self.held[proof.accused] = proof
        return [effects.Broadcast(Evidence(proof))]

    def handle(self, sender: PeerId, evidence: Evidence) -> list[Effect]:
        """A proof that somebody else holds, or says to."""
        proof = evidence.proof
        if proof.accused in self.held or sender in self._unheard:
            return []
        if not proof.holds(self.party.network, self.party.verify):
            self._unheard.add(sender)
            return [Accuse(sender, Fault.MALFORMED)]
        return [Accuse(proof.accused, Fault.EQUIVOCATED, proof), *self.found(proof)]

    def resume(self, peer: PeerId) -> list[Effect]:
        """A link to `peer` came up: it may have missed any of them."""
        return [Send(peer, Evidence(proof)) for _, proof in sorted(self.held.items(), key=_accused)]


def _accused(item: tuple[PeerId, Equivocation]) -> PeerId:
    return item[0]
