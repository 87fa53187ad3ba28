"""An append-only file of records, each with its length and checksum.

The length has a checksum of its own: else a damaged length could make complete records look like an unfinished one.
A record that the file ends within was never acted upon, because `flush` had not returned: it is cut off. So is one from
which on the file holds nothing but zeros, in whole sectors: file systems keep a file's new length before its new bytes,
and what `flush` wrote is not among them. Every record ends in a byte that is not zero, so a complete one is never taken
for such. A complete record whose checksum fails is another matter: the disk lost something that was relied on, and the
journal refuses.
"""

import os
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import blake3

from p2pnode.durable import replace_file, sync, write_all
from p2pnode.errors import JournalCorrupt, JournalError, JournalMissing, asking_disk

RECORD_BYTES_MAX = 4096

SECTOR_BYTES = 512
"""A disk writes so many bytes all or not at all; those of today more."""

QUICK_S = 0.001
"""A disk that makes records durable within so many seconds may be waited for where nothing else happens meanwhile."""

RECENT = 16
"""Flushes by which the disk is judged."""

_LENGTH = struct.Struct(">I")
_HEAD = struct.Struct(f">{_LENGTH.size}s4s8s")
_END = b"\xff"

REMEDY = (
    "This node cannot know what it signed, so it must not sign again under this key. Remedy: give it a new key and a "
    "new place in a new genesis; or put back the file as it was when the node last stopped, an older one never"
)
"""What to do about a record of signatures that is lost."""


class Journal:
    """Records on disk, in order.

    Args:
        path: the file, as `make` made it.

    Raises:
        JournalMissing: if there is none.
        JournalCorrupt: if a complete record fails its checksum.
        DiskError: if it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._dirty = False
        self._failed = False
        self._took: deque[float] = deque(maxlen=RECENT)
        with asking_disk(path):
            try:
                data = path.read_bytes()
            except FileNotFoundError as error:
                raise JournalMissing(f"{path}: there is none. {REMEDY}") from error
            self.records, sound = _parse(data, path)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND)
            if sound < len(data):
                os.ftruncate(self._fd, sound)
            # A process that was killed may have left records that can be read and are not durable yet, or a name.
            os.fsync(self._fd)
            sync(path.parent)

    @staticmethod
    def make(path: Path, records: Iterable[bytes] = ()) -> None:
        """Make `path` a journal of these records, durably and in one piece."""
        replace_file(path, lambda fd: write_all(fd, b"".join(map(_frame, records))))

    @property
    def dirty(self) -> bool:
        """Whether a record was appended since the last `flush`."""
        return self._dirty

    @property
    def quick(self) -> bool:
        """Whether one of the last flushes took less than `QUICK_S`: on a busy machine, where others have the core
        meanwhile, not all do on any disk."""
        return any(seconds < QUICK_S for seconds in self._took)

    def append(self, record: bytes) -> None:
        """Add a record; it is durable once `flush` returned."""
        assert len(record) <= RECORD_BYTES_MAX
        self._dirty = True
        with self._once():
            write_all(self._fd, _frame(record))

    def flush(self) -> None:
        """Make every record durable."""
        began = time.perf_counter()
        with self._once():
            os.fdatasync(self._fd)
        self._took.append(time.perf_counter() - began)
        self._dirty = False

    def rewrite(self, records: Iterable[bytes]) -> None:
        """Replace all records, durably and in one piece."""
        self._dirty = True
        with self._once():
            self.make(self.path, records)
            old, self._fd = self._fd, os.open(self.path, os.O_RDWR | os.O_APPEND)
            os.close(old)
        self._dirty = False

    def close(self) -> None:
        os.close(self._fd)

    @contextmanager
    def _once(self) -> Iterator[None]:
        """Let nothing follow what failed: the file may end in half a record, and a system that could not write what
        it held may say at the next try that nothing is left to write."""
        if self._failed:
            raise JournalError(f"{self.path}: an earlier write failed. Remedy: start the node again")
        self._failed = True
        with asking_disk(self.path):
            yield
        self._failed = False


def _frame(record: bytes) -> bytes:
    length = _LENGTH.pack(len(record))
    return _HEAD.pack(length, _checksum(length, 4), _checksum(record, 8)) + record + _END


def _checksum(data: bytes, length: int) -> bytes:
    return blake3.blake3(data).digest(length=length)


def _parse(data: bytes, path: Path) -> tuple[list[bytes], int]:
    """The records, and how many bytes of the file they fill."""
    records: list[bytes] = []
    position = 0
    while position + _HEAD.size <= len(data):
        length, length_checksum, checksum = _HEAD.unpack_from(data, position)
        begin = position + _HEAD.size
        if _checksum(length, 4) != length_checksum:
            if _unwritten(data, position, begin):
                break
            raise _corrupt(path, position)
        end = begin + _LENGTH.unpack(length)[0] + len(_END)
        if end > len(data):
            break
        record, mark = data[begin : end - len(_END)], data[end - len(_END) : end]
        if _checksum(record, 8) != checksum or mark != _END:
            if _unwritten(data, position, end):
                break
            raise _corrupt(path, position)
        records.append(record)
        position = end
    return records, position


def _unwritten(data: bytes, begin: int, end: int) -> bool:
    """Whether of data[begin:end], and of all that follows, the last bytes never reached the disk: they are zeros, from
    its first byte or from a sector's in it."""
    zeros = len(data.rstrip(b"\0"))
    sector = -(-zeros // SECTOR_BYTES) * SECTOR_BYTES
    return zeros <= begin or sector < end


def _corrupt(path: Path, position: int) -> JournalCorrupt:
    return JournalCorrupt(f"{path}: the record at byte {position} is damaged. {REMEDY}")
