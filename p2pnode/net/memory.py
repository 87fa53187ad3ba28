"""Memory of vectors that came in, used again for those that come next.

What the system hands out anew it zeroes page by page while a vector is read, and takes back the same way: on a fast
link that takes a third of the time, and milliseconds at once, for which messages wait. All vectors of a network are as
long, so those that are gone make room for those that come.
"""

import weakref
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

RECYCLED_BYTES_MIN = 256 * 1024
"""Shorter ones are the allocator's business: it keeps what it is given back of them."""


class Memory:
    """Never more than was in use at one time: what nobody uses any more goes to who asks next."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[NDArray[np.uint8]]] = defaultdict(list)

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """So many bytes of anything: nobody else's while the array, or one that shares its memory, is referred to."""
        if nbytes < RECYCLED_BYTES_MIN:
            return np.empty(nbytes, np.uint8)
        free = self._free[nbytes]
        block = free.pop() if free else np.empty(nbytes, np.uint8)
        lease = _Lease(block)
        weakref.finalize(lease, free.append, block).atexit = False
        return np.asarray(lease)


class _Lease:
    """What an array and all that share its memory refer to: when it is gone, so are they."""

    def __init__(self, block: NDArray[np.uint8]) -> None:
        self.__array_interface__ = block.__array_interface__
