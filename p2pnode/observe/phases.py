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
        self._under_way = dict.fromkeys(order, 0)
        self._seconds = dict.fromkeys([*order, rest], 0.0)
        self._rest = rest
        self._now = rest
        self._since = clock()

    def begin(self) -> float:
        """Count from now on, and nothing that went before; what the clock says."""
        with self._lock:
            self._seconds = dict.fromkeys(self._seconds, 0.0)
            self._since = self._clock()
            return self._since

    def during(self, phase: str) -> "_During":
        """The phase is under way inside."""
        return _During(self, phase)

    def rest(self, phase: str) -> None:
        """From now on this is the phase of moments in which none is under way."""
        with self._lock:
            self._rest = phase
            self._count()

    def seconds(self) -> dict[str, float]:
        """Of each phase so far, in order."""
        with self._lock:
            self._count()
            return dict(self._seconds)

    def change(self, phase: str, by: int) -> None:
        """So many times more the phase is under way."""
        with self._lock:
            self._under_way[phase] += by
            self._count()

    def _count(self) -> None:
        """Count the time since the last change for the phase that it was in."""
        now = self._clock()
        self._seconds[self._now] = self._seconds.get(self._now, 0.0) + now - self._since
        self._since = now
        self._now = next((phase for phase, count in self._under_way.items() if count), self._rest)


class _During:
    """A phase that is under way inside; a generator takes twice as long, and a step has a hundred of them."""

    __slots__ = ("_phase", "_phases")

    def __init__(self, phases: Phases, phase: str) -> None:
        self._phases = phases
        self._phase = phase

    def __enter__(self) -> None:
        self._phases.change(self._phase, 1)

    def __exit__(self, *_: object) -> None:
        self._phases.change(self._phase, -1)


class TimedSigner:
    """A signer that says when it signs."""

    def __init__(self, signer: Signer, phases: Phases) -> None:
        self._phases = phases
        self._signer = signer
        self.promise = signer.promise
        self.promised = signer.promised

    def sign(self, claim: Claim) -> Signature | None:
        with self._phases.during("signatures"):
            return self._signer.sign(claim)


def timed(verify: Verify, phases: Phases) -> Verify:
    """The same check, that says when it checks."""

    def check(member: PeerId, statement: bytes, signature: Signature, /) -> bool:
        with phases.during("signatures"):
            return verify(member, statement, signature)

    return check
