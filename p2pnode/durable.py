"""Files replaced in one piece, and names made durable: what a power cut leaves is the old content or the new."""

import os
from collections.abc import Callable
from pathlib import Path

from p2pnode.errors import asking_disk

UNFINISHED = ".new"
"""Ends the name of a file that is being written, or that a crash left so."""


def replace_file(path: Path, write: Callable[[int], None]) -> None:
    """Make `path` hold what `write` writes to a file descriptor: after a crash the old content or the new, whole.

    It is its owner's alone, from the first byte.

    Raises:
        DiskError: if the disk refuses; the old content stays.
    """
    temporary = path.with_name(path.name + UNFINISHED)
    with asking_disk(path):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.fchmod(fd, 0o600)  # a killed process may have left the file, of any mode
            write(fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
        sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make the folder, durably, if it is not there; it is emptied of what a crash left unfinished.

    Raises:
        DiskError: if the disk refuses.
    """
    with asking_disk(path):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)
        for unfinished in path.glob(f"*{UNFINISHED}"):
            unfinished.unlink()
        sync_folder(path)  # names that a killed process left can be read before they are durable


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: renaming or creating a file is not, by itself."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`: a plain write may take less."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
