"""Averaging agreement: sub-rounds of broadcast, gather and mix, that bring the honest values together.

    for k = 0 … K−1:  broadcast the value; gather n−f values of sub-round k (or a given quorum); value ← mix of them

Guarantees: those of the mixing rule over the broadcast. For the coordinate-wise trimmed mean every coordinate of every
output lies between the least and the greatest honest input, and each sub-round shrinks that range by
`Committee.trimmed_mean_contraction`; for the rules that look at distances the diameter shrinks, by
`minimum_diameter_contraction` and `nearest_neighbour_contraction`.

Source: arXiv 2008.00742 (averaging agreement); with K sub-rounds of nearest-neighbour averaging, arXiv 2209.10931.
"""

from collections.abc import Collection

from protocols.broadcast import Broadcast
from protocols.effects import Deliver, Effect, Gathered, Message, Mix
from protocols.errors import UsageError
from protocols.faults import Fault
from protocols.gather import Gather
from protocols.header import Claim, Digest, PeerId, Slot
from protocols.protocol import Party, Protocol


class Agreement(Protocol[Digest, Message]):
    """One averaging agreement at one member: asks for `Mix` K times, and outputs the digest of the last mixture."""

    def __init__(
        self, party: Party, first: Slot, sub_rounds: int, broadcast: type[Broadcast], quorum: int | None = None
    ) -> None:
        super().__init__(party)
        self.slots = tuple(Slot(first.step, first.exchange, k) for k in range(sub_rounds))
        self._gathers = tuple(Gather(party, slot, broadcast, quorum) for slot in self.slots)
        self._sub_round: int | None = None
        self._mixing = False
        self._finished = False

    @property
    def done(self) -> bool:
        return self._finished and all(gather.done for gather in self._gathers)

    @property
    def missing(self) -> tuple[PeerId, ...]:
        """Members whose value the current sub-round still waits for, while it waits."""
        if self._sub_round is None or self._mixing or self._finished:
            return ()
        return self._gathers[self._sub_round].missing

    @property
    def entered(self) -> Slot | None:
        """The slot in which one's own value was proposed last."""
        return None if self._sub_round is None else self.slots[self._sub_round]

    def here(self, sub_round: int) -> Collection[PeerId]:
        """Members whose value of a sub-round is here."""
        return self._gathers[sub_round].here

    def start(self, value: Digest) -> list[Effect]:
        if self._sub_round is not None:
            raise UsageError(f"the agreement from {self.slots[0]} was started before")
        return self._enter(0, value)

    def restate(self, values: tuple[Digest, ...]) -> list[Effect]:
        """Say again what one proposed in each sub-round before a crash, for those who still need it; mix nothing.

        Raises:
            UsageError: if it was started before.
        """
        if self._sub_round is not None:
            raise UsageError(f"the agreement from {self.slots[0]} was started before")
        self._sub_round, self._finished = len(self.slots) - 1, True
        pairs = zip(self._gathers, values, strict=True)
        return [effect for gather, value in pairs for effect in gather.restate(value)]

    def handle(self, sender: PeerId, message: Message) -> list[Effect]:
        if self.done:
            return []
        if not 0 <= message.slot.sub_round < len(self._gathers):
            return self._accuse(sender, Fault.OUT_OF_TURN)
        return self._harvest(self._gathers[message.slot.sub_round].handle(sender, message))

    def arrived(self, digest: Digest) -> list[Effect]:
        return self._harvest([e for gather in self._gathers for e in gather.arrived(digest)])

    def claims(self, digest: Digest) -> list[Claim]:
        return [claim for gather in self._gathers for claim in gather.claims(digest)]

    def unusable(self, digest: Digest) -> list[Effect]:
        return [e for gather in self._gathers for e in gather.unusable(digest)]

    def mixed(self, value: Digest) -> list[Effect]:
        """The mixture that was asked for is `value`."""
        if not self._mixing:
            raise UsageError(f"no mixture was asked for in the agreement from {self.slots[0]}")
        assert self._sub_round is not None
        self._mixing = False
        if self._sub_round + 1 < len(self._gathers):
            return self._enter(self._sub_round + 1, value)
        self._finished = True
        return [Deliver(value)]

    def resume(self, peer: PeerId) -> list[Effect]:
        return [e for gather in self._gathers for e in gather.resume(peer)]

    def close(self) -> list[Effect]:
        return [e for gather in self._gathers for e in gather.close()]

    def _enter(self, sub_round: int, value: Digest) -> list[Effect]:
        self._sub_round = sub_round
        return self._harvest(self._gathers[sub_round].start(value))

    def _harvest(self, effects: list[Effect]) -> list[Effect]:
        return [self._translate(effect) for effect in effects]

    def _translate(self, effect: Effect) -> Effect:
        if not isinstance(effect, Deliver):
            return effect
        assert isinstance(effect.value, Gathered)
        assert self._sub_round is not None
        self._mixing = True
        later = self.slots[self._sub_round + 1 :]
        return Mix(effect.value, later[0] if later else None)
