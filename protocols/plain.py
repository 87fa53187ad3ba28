"""Best-effort broadcast: the baseline, under which a liar may tell each peer something else.

Guarantees, over authenticated links: if the origin is honest, every honest member delivers its header (validity);
nobody delivers twice, or what the origin did not sign (integrity). Not consistency: two honest members may deliver
different headers of a lying origin.

Bound: none. Cost: one message delay, n−1 headers and n−1 vectors a broadcast.
"""

from protocols.broadcast import Broadcast
from protocols.effects import BroadcastMessage, Deliver, Effect, Proposal, Send, Sighting, Stream
from protocols.faults import Fault
from protocols.header import Digest, PeerId


class Plain(Broadcast):
    """Delivers the first signed header of the origin, once its bytes are here."""

    @property
    def done(self) -> bool:
        return self.delivered

    def _proposed(self) -> list[Effect]:
        assert self.signed is not None
        self.delivered = True
        return [Deliver(self.signed.header)]

    def handle(self, sender: PeerId, message: BroadcastMessage) -> list[Effect]:
        if self.done:
            return []
        match message:
            case Proposal():
                return self._propose(sender, message)
            case Sighting():
                return self._see(sender, message.signed)
            case _:  # nobody echoes or certifies a plain broadcast
                return self._accuse(sender, Fault.OUT_OF_TURN)

    def arrived(self, digest: Digest) -> list[Effect]:
        if self.done or self.signed is None or self.signed.header.digest != digest:
            return []
        self.delivered = True
        return [Deliver(self.signed.header)]

    def resume(self, peer: PeerId) -> list[Effect]:
        if not self.mine or self.signed is None:
            return []
        return [Stream(self.signed.header, peer), Send(peer, Proposal(self.signed))]

    def close(self) -> list[Effect]:
        return []
