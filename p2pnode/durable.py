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
        sync(path.parent)


def write_over(path: Path, write: Callable[[int], None]) -> None:
    """Write over what `path` holds, durably; after a crash it may hold anything between the old content and the new.

    What is as long takes no new place on the disk, and waits for it once, where `replace_file` does three times.

    Raises:
        DiskError: if the disk refuses.
    """
    with asking_disk(path):
        fd = os.open(path, os.O_WRONLY)
        try:
            write(fd)
            end = os.lseek(fd, 0, os.SEEK_CUR)
            if end != os.fstat(fd).st_size:
                os.ftruncate(fd, end)
            os.fdatasync(fd)
        finally:
            os.close(fd)


def make_folder(path: Path) -> None:
    """Make the folder, durably, if it is not there; it is emptied of what a crash left unfinished.

    Raises:
        DiskError: if the disk refuses.
    """
    with asking_disk(path):
        path.mkdir(exist_ok=True)
        sync(path.parent)
        for unfinished in path.glob(f"*{UNFINISHED}"):
            unfinished.unlink()
        sync(path)  # names that a killed process left can be read before they are durable


def sync(path: Path) -> None:
    """Make durable what can be read of a file, or the names in a folder: renaming or creating a file is not, by itself,
    and what a killed process wrote can be read before it is."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`: a plain write may take less."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
