"""Wait for a quorum of values of a slot, one's own among them; over a total broadcast also for as many witnesses.

The quorum is n−f unless one is given.

Guarantees, with a broadcast of the committee's bound and every honest member started: every honest member outputs,
once, n−f or more values of distinct members, its own among them, whatever f members do. With a consistent broadcast
no two honest members hold different values of one member. With a total one any two honest members share n−f values,
as long as none of them forgets in a crash what it reported. One's own is missing only where one proposed another vector
before a crash and lost it.

n−f is the most that can be waited for: f members may be silent for ever. With a quorum of all n any two honest members
hold the same values, as long as nobody is silent: that is the synchronous setting. A smaller one waits for no straggler
(arXiv 2110.10858). Source: the waiting step of each round in
averaging agreement (arXiv 2008.00742) and in MoNNA (arXiv 2209.10931).

The witness technique:

    on n−f values delivered: REPORT(their members) → all
    a member is a witness once all that it reported is delivered here; output on n−f witnesses all that is delivered

Two honest members have n−2f ≥ f+1 witnesses in common, so an honest one, whose n−f reported values both of them hold.
Totality sees to it that what an honest member reports arrives. Source: Abraham, Amit, Dolev, "Optimal resilience
asynchronous approximate agreement", 2004; used by averaging agreement (arXiv 2008.00742) for n ≥ 3f+1.
"""

from collections.abc import Collection
from itertools import pairwise

from protocols import effects
from protocols.broadcast import Broadcast
from protocols.effects import Deliver, Effect, Gathered, Message, Report, Send
from protocols.errors import UsageError
from protocols.faults import Fault
from protocols.header import Claim, Digest, Header, PeerId, Slot
from protocols.protocol import Party, Protocol


class Gather(Protocol[Digest, Message]):
    """The n broadcasts of one slot at one member, and the wait for enough of them."""

    def __init__(self, party: Party, slot: Slot, broadcast: type[Broadcast], quorum: int | None = None) -> None:
        super().__init__(party)
        self.slot = slot
        self.quorum = party.committee.gather_quorum if quorum is None else quorum
        self._broadcasts = {origin: broadcast(party, slot, origin) for origin in party.committee.members}
        self._with_witnesses = broadcast.total
        self._values: dict[PeerId, Digest] = {}
        self._reports: dict[PeerId, tuple[PeerId, ...]] = {}
        self._witnesses: set[PeerId] = set()
        self._started = False
        self.gathered = False

    @property
    def done(self) -> bool:
        """Gathered, and every broadcast of the slot is done: nobody needs our echo any more."""
        return self.gathered and all(broadcast.done for broadcast in self._broadcasts.values())

    @property
    def here(self) -> Collection[PeerId]:
        """Members whose value is here, after the gather is over, too."""
        return self._values.keys()

    @property
    def missing(self) -> tuple[PeerId, ...]:
        """Members whose value is not here; or, where enough are, who is no witness."""
        here = self._witnesses if self._reported else self._values
        return tuple(member for member in self._broadcasts if member not in here)

    def start(self, value: Digest) -> list[Effect]:
        if self._started:
            raise UsageError(f"the gather of {self.slot} was started before")
        self._started = True
        own = self._broadcasts[self.party.me]
        proposed = own.start(value)
        # One's own value counts from the start: an honest member does not contradict itself. Where it proposed another
        # one before a crash, that one counts, if it ever comes back.
        if own.signed is not None and own.signed.header.digest == value:
            self._values[self.party.me] = value
        return self._harvest(proposed)

    def restate(self, value: Digest) -> list[Effect]:
        """Propose again what one proposed before a crash, and answer others; output nothing."""
        self.gathered = True
        return self.start(value)

    def handle(self, sender: PeerId, message: Message) -> list[Effect]:
        if self.done:
            return []
        if isinstance(message, Report):
            return self._report(sender, message)
        broadcast = self._broadcasts.get(message.origin)
        if broadcast is None:
            return self._accuse(sender, Fault.OUT_OF_TURN)
        return self._harvest(broadcast.handle(sender, message))

    def arrived(self, digest: Digest) -> list[Effect]:
        if self.done:
            return []
        return self._harvest([e for broadcast in self._broadcasts.values() for e in broadcast.arrived(digest)])

    def claims(self, digest: Digest) -> list[Claim]:
        return [claim for broadcast in self._broadcasts.values() for claim in broadcast.claims(digest)]

    def unusable(self, digest: Digest) -> list[Effect]:
        if self.done:
            return []
        return [e for broadcast in self._broadcasts.values() for e in broadcast.unusable(digest)]

    def resume(self, peer: PeerId) -> list[Effect]:
        again: list[Effect] = [e for broadcast in self._broadcasts.values() for e in broadcast.resume(peer)]
        if self._reported:
            again.append(Send(peer, Report(self.slot, self._reports[self.party.me])))
        return again

    def close(self) -> list[Effect]:
        return [e for broadcast in self._broadcasts.values() for e in broadcast.close()]

    @property
    def _reported(self) -> bool:
        return self.party.me in self._reports

    def _harvest(self, harvest: list[Effect]) -> list[Effect]:
        """Keep what the broadcasts deliver, pass on what they ask for, and output when there is enough."""
        out: list[Effect] = []
        for effect in harvest:
            if isinstance(effect, Deliver):
                assert isinstance(effect.value, Header)
                self._values.setdefault(effect.value.origin, effect.value.digest)
                out += self._output()
            else:
                out.append(effect)
        return out + self._output()

    def _output(self) -> list[Effect]:
        if not self._started or len(self._values) < self.quorum:
            return []
        if not self._with_witnesses:
            return self._deliver()
        reported = self._make_report()
        return reported + (self._deliver() if self._count_witnesses() >= self.quorum else [])

    def _deliver(self) -> list[Effect]:
        if self.gathered:
            return []
        self.gathered = True
        return [Deliver(Gathered(self.slot, tuple(sorted(self._values.items()))))]

    def _make_report(self) -> list[Effect]:
        if self._reported:
            return []
        delivered = tuple(sorted(self._values))
        self._reports[self.party.me] = delivered
        return [effects.Broadcast(Report(self.slot, delivered))]

    def _report(self, sender: PeerId, report: Report) -> list[Effect]:
        """Take a member's report, or the next one of a member that forgot its report in a crash."""
        if not self._with_witnesses:
            return self._accuse(sender, Fault.OUT_OF_TURN)
        if sender in self._witnesses or self._reports.get(sender) == report.delivered:
            return []
        members, committee = report.delivered, self.party.committee
        increasing = all(one < other for one, other in pairwise(members))
        if len(members) < self.quorum or not increasing or members[0] < 0 or members[-1] >= committee.n:
            return self._accuse(sender, Fault.MALFORMED)
        self._reports[sender] = members
        return self._output()

    def _count_witnesses(self) -> int:
        for member, members in self._reports.items():
            if member not in self._witnesses and all(reported in self._values for reported in members):
                self._witnesses.add(member)
        return len(self._witnesses)
