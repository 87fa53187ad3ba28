"""Where a node's time goes: every moment counts once, for the first of the phases that are under way in it.

A node does several things at once: it hears its peers while a thread trains. What counts is then the first in a fixed
order, so that the seconds of all phases add up to those that went by, and a phase's are what the run would miss least
without it.
"""

import threading
import time
from collections.abc import Callable, Sequence

from protocols.header import Claim, PeerId, Signature, Signer, Verify


class Phases:
    """A stopwatch that threads share; a change of phase costs about a microsecond.

    Args:
        order: the phases, what counts before what.
        rest: the phase of moments in which none is under way.
        clock: seconds, never going back.
    """

    def __init__(self, order: Sequence[str], rest: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._names = (*order, rest)
        self._under_way = [0] * len(order) + [1]
        self._seconds = dict.fromkeys(self._names, 0.0)
        self._now = len(order)
        self._since = clock()

    def begin(self) -> float:
        """Count from now on, and nothing that went before; what the clock says."""
        with self._lock:
            self._seconds = dict.fromkeys(self._seconds, 0.0)
            self._since = self._clock()
            return self._since

    def during(self, phase: str) -> "_During":
        """The phase is under way inside."""
        return _During(self, self._names.index(phase))

    def rest(self, phase: str) -> None:
        """From now on this is the phase of moments in which none is under way."""
        with self._lock:
            self._count()
            self._names = (*self._names[:-1], phase)

    def seconds(self) -> dict[str, float]:
        """Of each phase so far, in order."""
        with self._lock:
            self._count()
            return dict(self._seconds)

    def enter(self, rank: int) -> None:
        """Once more the phase of this place in the order is under way."""
        with self._lock:
            self._under_way[rank] += 1
            if rank < self._now:
                self._count()
                self._now = rank

    def leave(self, rank: int) -> None:
        """Once less it is."""
        with self._lock:
            self._under_way[rank] -= 1
            if rank == self._now and not self._under_way[rank]:
                self._count()
                while not self._under_way[self._now]:
                    self._now += 1

    def _count(self) -> None:
        """Count the time since the last change for the phase that it was in."""
        now, name = self._clock(), self._names[self._now]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


class _During:
    """A phase that is under way inside; a generator takes twice as long, and a step has a hundred of them."""

    __slots__ = ("_phases", "_rank")

    def __init__(self, phases: Phases, rank: int) -> None:
        self._phases = phases
        self._rank = rank

    def __enter__(self) -> None:
        self._phases.enter(self._rank)

    def __exit__(self, *_: object) -> None:
        self._phases.leave(self._rank)


class TimedSigner:
    """A signer that says when it signs."""

    def __init__(self, signer: Signer, phases: Phases) -> None:
        self._signer = signer
        self._signing = phases.during("signatures")
        self.promise = signer.promise
        self.promised = signer.promised

    def sign(self, claim: Claim) -> Signature | None:
        with self._signing:
            return self._signer.sign(claim)


def timed(verify: Verify, phases: Phases) -> Verify:
    """The same check, that says when it checks."""
    checking = phases.during("signatures")

    def check(member: PeerId, statement: bytes, signature: Signature, /) -> bool:
        with checking:
            return verify(member, statement, signature)

    return check
