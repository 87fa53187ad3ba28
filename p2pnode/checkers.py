"""Signatures of certificates that came together, checked side by side in threads before the node asks for them."""

import asyncio
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from p2pnode.identity import Ahead
from p2pnode.node import Event, Node, Received
from p2pnode.observe.phases import Phases
from protocols.effects import Certificate

_AHEAD_MIN = 64
"""Signatures of certificates in one turn from which on threads check them: some 4 ms of the loop's thread. To wake the
threads costs a tenth of that, and more on a busy machine; and they check what the node itself would know already."""

_CHECKERS = min(4, os.cpu_count() or 1)
"""Threads that check signatures; libsodium lets them run side by side."""


class Checkers:
    """The threads.

    Args:
        keys: checks signatures, and remembers those that were found good.
        phases: told when the node is at `signatures`.
    """

    def __init__(self, keys: Ahead, phases: Phases) -> None:
        self._keys = keys
        self._phases = phases
        self._threads = ThreadPoolExecutor(_CHECKERS, thread_name_prefix="signatures")

    async def verify_ahead(self, events: Iterable[Event], node: Node) -> None:
        """Check the certificates that came together, so that the node, who asks again, finds it done.

        Only those that it will ask about: who sends others must not cost more than to read them.
        """
        certificates = [
            event.message
            for event in events
            if isinstance(event, Received) and isinstance(event.message, Certificate) and _awaits(node, event.message)
        ]
        if _CHECKERS == 1 or sum(1 + len(certificate.echoes) for certificate in certificates) < _AHEAD_MIN:
            return
        loop, each = asyncio.get_running_loop(), [certificate.signed_by() for certificate in certificates]
        with self._phases.during("signatures"):
            good = await asyncio.gather(
                *(loop.run_in_executor(self._threads, self._keys.check, signed) for signed in each)
            )
        for signed, holds in zip(each, good, strict=True):
            if holds:
                self._keys.remember(signed)

    def shut_down(self) -> None:
        """Wait for what is under way; nothing else begins."""
        self._threads.shutdown(cancel_futures=True)


def _awaits(node: Node, certificate: Certificate) -> bool:
    return (
        node.oldest <= certificate.slot.step
        and certificate.slot <= node.horizon
        and len(certificate.echoes) <= node.party.committee.n
    )
