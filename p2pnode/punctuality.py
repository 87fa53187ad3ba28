"""When the members' values come, and who is late. Pure: the time is passed in.

Of each slot the node enters, the delay of each other member's value is learned: from when the node's own was announced
until that one is here, 0 where it was here before. The deadline of a slot is median + K·MAD of the last delays in slots
of its kind: a value that others train for takes longer than a mixture. No delay is set by hand, so the deadline fits a
fast machine and a slow network alike.

A deadline decides nothing. Who is late is named, and what it owes is asked for once more; no slot ends by it, nobody is
charged for it, and nothing that the node signs depends on it.

Why f liars cannot move it far. Each member has a window of its own, as long as everyone's, and a slot puts at most one
delay into it: whoever says more, or comes at once, or always late, fills its own window and no other. A slot ends with
n−f values, n−2f−1 or more of them from other honest members, and the rest of these come after it. So with n ≥ 3f+2, or
n = 3f+1 as long as every honest member's values arrive, more than half of all delays are honest ones. The median then
lies between the least and the greatest honest delay, and no more than half of the delays are farther from it than
these two are from each other; so

    max(FLOOR_S, least) ≤ deadline ≤ max(FLOOR_S, greatest + K·(greatest − least)).

Who never comes puts nothing into its window, and changes nothing.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import TypeAlias

from protocols.committee import Committee
from protocols.header import PeerId, Slot

K = 6.0
"""Deviations that count as usual: for a normal delay some four standard deviations, one in ten thousand."""

FLOOR_S = 0.25
"""No deadline is shorter: a slow flush or a busy machine takes as long, and to ask then would add to it."""

FIRST_S = 1.0
"""The deadline of which nothing is known yet."""

WINDOW = 16
"""Delays of one member that are remembered: enough for a spread, and a change shows within as many slots."""

ENTERED_MAX = 256
"""Slots whose values are noted when they come late; more than are retained of most recipes. Of older ones they are not
noted any more, which is no loss: their members owe later ones."""

_Kind: TypeAlias = tuple[int, bool]
"""Exchange, and whether it is its first sub-round: what a value waits for before it can be announced."""


@dataclass(frozen=True, slots=True)
class Late:
    """A member whose value is late.

    Args:
        peer: the member.
        slot: the first slot that it owes.
        seconds: how long its value has been awaited.
        deadline: after how many seconds it was late.
    """

    peer: PeerId
    slot: Slot
    seconds: float
    deadline: float


@dataclass(slots=True)
class _Entered:
    """A slot that was entered `at` a time, and whose values of it are here."""

    at: float
    here: set[PeerId] = field(default_factory=set)


class Punctuality:
    """The delays of all other members' values, as one member sees them.

    Args:
        me: the member.
        committee: among whom.
    """

    def __init__(self, me: PeerId, committee: Committee) -> None:
        self._others = tuple(peer for peer in committee.members if peer != me)
        self._learned_from = len(self._others) - committee.f
        self._entered: dict[Slot, _Entered] = {}
        self._open: dict[Slot, None] = {}
        """Those of them of which something is still awaited, in order."""
        self._owed: dict[PeerId, tuple[Slot, float]] = {}
        self._delays: dict[_Kind, dict[PeerId, deque[float]]] = {}
        self._deadlines: dict[_Kind, float] = {}

    def enter(self, slot: Slot, now: float) -> None:
        """One's own value of the slot is announced; from now on the others' are awaited. Slots come in order."""
        if slot in self._entered:
            return
        self._entered[slot] = _Entered(now)
        if self._others:
            self._open[slot] = None
        if len(self._entered) > ENTERED_MAX:
            first = next(iter(self._entered))
            del self._entered[first]
            self._open.pop(first, None)
        for peer in self._others:
            self._owed.setdefault(peer, (slot, now))

    def recent(self, count: int) -> list[Slot]:
        """The last slots, at most so many, that were entered and of which something is still awaited."""
        return list(islice(reversed(self._open), count))

    def here(self, slot: Slot, members: Collection[PeerId], now: float) -> None:
        """The values of these members in a slot that was entered are here."""
        entered = self._entered[slot]
        for peer in self._others:
            if peer in members and peer not in entered.here:
                entered.here.add(peer)
                self._learn(slot, peer, now - entered.at)
                self._settle(slot, peer)
        if len(entered.here) == len(self._others):
            self._open.pop(slot, None)

    def deadline(self, slot: Slot) -> float:
        """After how many seconds a value of a slot like this one is late."""
        kind = _kind(slot)
        if kind not in self._deadlines:
            self._deadlines[kind] = self._learned(kind)
        return self._deadlines[kind]

    def knows(self, slot: Slot) -> bool:
        """Whether the deadline of such a slot is learned, and not the first one."""
        return self._known(_kind(slot))

    def late(self, now: float) -> tuple[Late, ...]:
        """Who is late now: whose earliest value that it owes has been awaited for longer than the deadline."""
        found = []
        for peer, (slot, at) in sorted(self._owed.items()):
            deadline = self.deadline(slot)
            if now - at > deadline:
                found.append(Late(peer, slot, now - at, deadline))
        return tuple(found)

    def _learn(self, slot: Slot, peer: PeerId, delay: float) -> None:
        kind = _kind(slot)
        windows = self._delays.setdefault(kind, {})
        windows.setdefault(peer, deque(maxlen=WINDOW)).append(delay)
        self._deadlines.pop(kind, None)

    def _learned(self, kind: _Kind) -> float:
        if not self._known(kind):
            return FIRST_S
        delays = [delay for window in self._delays[kind].values() for delay in window]
        middle = median(delays)
        return max(FLOOR_S, middle + K * median(abs(delay - middle) for delay in delays))

    def _known(self, kind: _Kind) -> bool:
        """Once more have been heard than may lie: what a few say at first is no measure."""
        return len(self._delays.get(kind, ())) >= max(1, self._learned_from)

    def _settle(self, slot: Slot, peer: PeerId) -> None:
        """What a member owes next is its value of the first slot after its latest: of those it skips it owes none."""
        owed, _ = self._owed.get(peer, (slot, 0.0))
        if slot < owed:
            return
        self._owed.pop(peer, None)
        next_one = None
        for later in reversed(self._entered):  # it is the last one or near it; all are many
            if later <= slot:
                break
            next_one = later
        if next_one is not None:
            self._owed[peer] = (next_one, self._entered[next_one].at)


def _kind(slot: Slot) -> _Kind:
    return slot.exchange, slot.sub_round == 0
