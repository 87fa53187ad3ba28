"""An append-only file of records, each with its length and checksum; and files replaced in one piece.

The length has a checksum of its own: else a damaged length could make complete records look like an unfinished one.
A record that the file ends within was never acted upon, because `flush` had not returned: it is cut off. A complete
record whose checksum fails is another matter: the disk lost something that was relied on, and the journal refuses.
"""

import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import blake3

from p2pnode.errors import JournalCorrupt

RECORD_BYTES_MAX = 4096

UNFINISHED = ".new"
"""Ends the name of a file that is being written, or that a crash left so."""

_LENGTH = struct.Struct(">I")
_HEAD = struct.Struct(f">{_LENGTH.size}s4s8s")


class Journal:
    """Records on disk, in order.

    Args:
        path: the file; made if it is missing.

    Raises:
        JournalCorrupt: if a complete record fails its checksum.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._dirty = False
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        data = path.read_bytes()
        self.records, sound = _parse(data, path)
        if sound < len(data):
            os.ftruncate(self._fd, sound)
        sync_folder(path.parent)

    @property
    def dirty(self) -> bool:
        """Whether a record was appended since the last `flush`."""
        return self._dirty

    def append(self, record: bytes) -> None:
        """Add a record; it is durable once `flush` returned."""
        assert len(record) <= RECORD_BYTES_MAX
        self._dirty = True
        write_all(self._fd, _frame(record))

    def flush(self) -> None:
        """Make every record durable."""
        self._dirty = False
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._dirty = True
            raise

    def rewrite(self, records: Iterable[bytes]) -> None:
        """Replace all records, durably and in one piece."""
        replace_file(self.path, lambda fd: write_all(fd, b"".join(map(_frame, records))))
        old, self._fd = self._fd, os.open(self.path, os.O_RDWR | os.O_APPEND)
        os.close(old)
        self._dirty = False

    def close(self) -> None:
        os.close(self._fd)


def replace_file(path: Path, write: Callable[[int], None]) -> None:
    """Make `path` hold what `write` writes to a file descriptor: after a crash the old content or the new, whole."""
    temporary = path.with_name(path.name + UNFINISHED)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write(fd)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: renaming or creating a file is not, by itself."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _frame(record: bytes) -> bytes:
    length = _LENGTH.pack(len(record))
    return _HEAD.pack(length, _checksum(length, 4), _checksum(record, 8)) + record


def _checksum(data: bytes, length: int) -> bytes:
    return blake3.blake3(data).digest(length=length)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`: a plain write may take less."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _parse(data: bytes, path: Path) -> tuple[list[bytes], int]:
    """The records, and how many bytes of the file they fill."""
    records: list[bytes] = []
    position = 0
    while position + _HEAD.size <= len(data):
        length, length_checksum, checksum = _HEAD.unpack_from(data, position)
        if _checksum(length, 4) != length_checksum:
            raise _corrupt(path, position)
        begin = position + _HEAD.size
        end = begin + _LENGTH.unpack(length)[0]
        if end > len(data):
            break
        if _checksum(data[begin:end], 8) != checksum:
            raise _corrupt(path, position)
        records.append(data[begin:end])
        position = end
    return records, position


def _corrupt(path: Path, position: int) -> JournalCorrupt:
    return JournalCorrupt(
        f"{path}: the record at byte {position} is damaged. This node cannot know what it signed, so it must not sign "
        "again under this key: give it a new key and a new place in a new genesis, or restore the file"
    )
