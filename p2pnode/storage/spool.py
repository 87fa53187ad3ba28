"""Vectors that memory has no room for, on disk as long as the process runs."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from p2pnode.durable import write_all
from protocols.header import Digest, Slot


class Spool:
    """Vectors of one length and type, by digest, in a file without a name: nothing of it outlives the process.

    Nothing is made durable: what is here would be lost with the process in memory, too.

    Args:
        folder: on whose disk.
        array: what they are.
        length: elements of each.
        refused: is told why the disk takes no vector, once.
    """

    def __init__(self, folder: Path, array: "np.dtype[Any]", length: int, refused: Callable[[str], None]) -> None:
        self._folder = folder
        self._array = array
        self._length = length
        self._refused: Callable[[str], None] | None = refused
        self._file: IO[bytes] | None = None
        self._kept: dict[Digest, tuple[Slot, int]] = {}
        """For which slot, and at what place in the file."""
        self._free: list[int] = []
        """Places in the file whose vectors are forgotten."""

    def __contains__(self, digest: Digest) -> bool:
        """Whether `get` has it, but for what the disk lost."""
        return digest in self._kept

    def put(self, slot: Slot, digest: Digest, vector: NDArray[Any]) -> bool:
        """Write the vector of a slot; whether it is here then: the disk may refuse."""
        if self.also_for(slot, digest):
            return True
        place = self._free.pop() if self._free else len(self._kept)
        try:
            write_all(self._at(place).fileno(), vector.view(np.uint8).data)
        except OSError as error:
            self._free.append(place)
            if self._refused is not None:
                self._refused(f"{self._folder}: {error.strerror or error}")
                self._refused = None
            return False
        self._kept[digest] = slot, place
        return True

    def also_for(self, slot: Slot, digest: Digest) -> bool:
        """Keep what is here for this slot, too; whether it is here."""
        if digest not in self._kept:
            return False
        until, place = self._kept[digest]
        self._kept[digest] = max(slot, until), place
        return True

    def get(self, digest: Digest) -> NDArray[Any] | None:
        """Read a vector; shorter, or another, if the disk lost some of it."""
        if digest not in self._kept:
            return None
        _, place = self._kept[digest]
        try:
            return np.fromfile(self._at(place), self._array, self._length)
        except OSError:
            return None

    def forget(self, before: Slot) -> None:
        """Forget those of slots before this one; those to come take their places."""
        self._free += [place for slot, place in self._kept.values() if slot < before]
        self._kept = {digest: kept for digest, kept in self._kept.items() if kept[0] >= before}

    def _at(self, place: int) -> IO[bytes]:
        if self._file is None:
            self._file = TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115  as long as the process
        self._file.seek(place * self._length * self._array.itemsize)
        return self._file
