"""Wait for n−f values of a slot, one's own among them.

Guarantees, with a broadcast of the committee's bound and every honest member started: every honest member outputs,
once, n−f or more values of distinct members, its own among them, whatever f members do. With a consistent broadcast
no two honest members hold different values of one member.

n−f is the most that can be waited for: f members may be silent for ever. Source: the waiting step of each round in
averaging agreement (arXiv 2008.00742) and in MoNNA (arXiv 2209.10931).
"""

from protocols.broadcast import Broadcast
from protocols.effects import Deliver, Effect, Gathered, Message
from protocols.errors import UsageError
from protocols.faults import Fault
from protocols.header import Digest, Header, PeerId, Slot
from protocols.protocol import Party, Protocol


class Gather(Protocol[Digest, Message]):
    """The n broadcasts of one slot at one member, and the wait for enough of them."""

    def __init__(self, party: Party, slot: Slot, broadcast: type[Broadcast]) -> None:
        super().__init__(party)
        self.slot = slot
        self._broadcasts = {origin: broadcast(party, slot, origin) for origin in party.committee.members}
        self._values: dict[PeerId, Digest] = {}
        self._quorum = party.committee.gather_quorum
        self._started = False
        self.gathered = False

    @property
    def done(self) -> bool:
        """Gathered, and every broadcast of the slot is done: nobody needs our echo any more."""
        return self.gathered and all(broadcast.done for broadcast in self._broadcasts.values())

    @property
    def missing(self) -> tuple[PeerId, ...]:
        """Members whose value is not here."""
        return tuple(member for member in self._broadcasts if member not in self._values)

    def start(self, value: Digest) -> list[Effect]:
        if self._started:
            raise UsageError(f"the gather of {self.slot} was started before")
        self._started = True
        proposed = self._broadcasts[self.party.me].start(value)
        # One's own value counts from the start: an honest member does not contradict itself.
        self._values[self.party.me] = value
        return self._harvest(proposed)

    def join(self) -> list[Effect]:
        """Begin without a value of one's own: gather n−f−1 values of others, which is all that f silent ones leave.

        Raises:
            UsageError: if it was started before.
        """
        if self._started:
            raise UsageError(f"the gather of {self.slot} was started before")
        self._started = True
        self._quorum -= 1
        return self._harvest([])

    def handle(self, sender: PeerId, message: Message) -> list[Effect]:
        broadcast = self._broadcasts.get(message.origin)
        if self.done:
            return []
        if broadcast is None:
            return self._accuse(sender, Fault.OUT_OF_TURN)
        return self._harvest(broadcast.handle(sender, message))

    def arrived(self, digest: Digest) -> list[Effect]:
        if self.done:
            return []
        return self._harvest([e for broadcast in self._broadcasts.values() for e in broadcast.arrived(digest)])

    def unusable(self, digest: Digest) -> list[Effect]:
        if self.done:
            return []
        return [e for broadcast in self._broadcasts.values() for e in broadcast.unusable(digest)]

    def resume(self, peer: PeerId) -> list[Effect]:
        return [e for broadcast in self._broadcasts.values() for e in broadcast.resume(peer)]

    def close(self) -> list[Effect]:
        return [e for broadcast in self._broadcasts.values() for e in broadcast.close()]

    def _harvest(self, effects: list[Effect]) -> list[Effect]:
        """Keep what the broadcasts deliver, pass on what they ask for, and output when there is enough."""
        out: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Deliver):
                assert isinstance(effect.value, Header)
                self._values.setdefault(effect.value.origin, effect.value.digest)
            else:
                out.append(effect)
            out += self._output()
        return out + self._output()

    def _output(self) -> list[Effect]:
        if self.gathered or not self._started or len(self._values) < self._quorum:
            return []
        self.gathered = True
        return [Deliver(Gathered(self.slot, tuple(sorted(self._values.items()))))]
