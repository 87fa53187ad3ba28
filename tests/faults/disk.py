"""A disk that forgets what was not synchronised, under one folder of the real file system.

The code under test calls `os` as ever. What it changes is done to real files, so that it can be read back, and recorded
here, so that at any moment it is known what a power cut may leave: `Disk.images`. What a killed process leaves is the
same disk, going on: all that it wrote can be read, and none of it is any more durable than before.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from p2pnode.durable import UNFINISHED

SECTOR = 512
"""Bytes that a disk writes all or not at all."""

UNREAD_EVERY = 64
"""Bytes between two tears of a file that has no name yet under which it is read."""

Files = dict[str, bytes | None]
"""What a folder holds, by relative path; None stands for a folder."""


@dataclass
class Inode:
    """A file's content, whatever its name.

    Args:
        durable: what a power cut leaves for certain.
        pending: changes that were not synchronised: (offset, bytes), or (length, None) for a cut.
        given_up: whether it failed once to synchronise them; a system may then say that nothing is left to write.
    """

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    given_up: bool = False

    @property
    def now(self) -> bytes:
        return self.after(len(self.pending))

    def after(self, changes: int) -> bytes:
        """The content when so many of the changes are made."""
        return _changed(self.durable, self.pending[:changes])

    def variants(self, every: int) -> Iterator[tuple[str, bytes]]:
        """What a power cut may leave, beside all of the changes and none; the last write is torn at every so many."""
        for count in range(1, len(self.pending)):
            yield "a part", self.after(count)
        if not self.pending:
            return
        offset, data = self.pending[-1]
        if data is not None:
            before = self.after(len(self.pending) - 1)
            yield from (("torn", _changed(before, [(offset, data[:end])])) for end in range(1, len(data), every))
        whole, begin = self.now, min(offset for offset, _ in self.pending)
        sectors = range((begin // SECTOR + 1) * SECTOR, len(whole), SECTOR)
        yield from (("zeros", whole[:cut] + bytes(len(whole) - cut)) for cut in (begin, *sectors))


def _changed(content: bytes, changes: list[tuple[int, bytes | None]]) -> bytes:
    for offset, data in changes:
        content = content[:offset] if data is None else content[:offset] + data + content[offset + len(data) :]
    return content


@dataclass(frozen=True)
class Naming:
    """A change of names in a folder, not durable before the folder is synchronised."""

    folder: str
    gone: str | None = None
    name: str | None = None
    inode: Inode | None = None

    def apply(self, names: dict[str, Inode | None]) -> None:
        if self.gone is not None:
            names.pop(self.gone, None)
        if self.name is not None:
            names[self.name] = self.inode


class Disk:
    """Everything under `root`.

    Args:
        root: a folder of the real file system; emptied, and filled with `files`.
        files: what is there, durably, to begin with.
        before: called with the name of each operation that writes or synchronises, before it is done. What it raises,
            the operation raises; of a write one half is done then.
    """

    def __init__(self, root: Path, files: Files, before: Callable[[str], None] = lambda name: None) -> None:
        self.root = root
        self.before = before
        self.durable: dict[str, Inode | None] = {
            name: None if data is None else Inode(data) for name, data in files.items()
        }
        self.names = dict(self.durable)
        self.namings: list[Naming] = []
        self._open: dict[int, tuple[str, Inode | None]] = {}
        self._fill()

    def fork(self) -> "Disk":
        """This disk as it is, to go on from on its own once `resume`d; the process that had files open is dead."""
        twin = object.__new__(Disk)
        twin.root, twin.before, twin._open = self.root, lambda name: None, {}
        copies: dict[int, Inode] = {}

        def copy(inode: Inode | None) -> Inode | None:
            if inode is None:
                return None
            return copies.setdefault(id(inode), replace(inode, pending=list(inode.pending)))

        twin.durable, twin.names = (
            {n: copy(inode) for n, inode in names.items()} for names in (self.durable, self.names)
        )
        twin.namings = [replace(naming, inode=copy(naming.inode)) for naming in self.namings]
        return twin

    def resume(self, before: Callable[[str], None] = lambda name: None) -> "Disk":
        """Bring the real files into the state of this disk."""
        self.before = before
        self._fill()
        return self

    @property
    def now(self) -> Files:
        """What a process reads."""
        return _contents(self.names)

    def images(self) -> Iterator[tuple[str, Files]]:
        """What a power cut may leave now: (how it came about, the files). The same files may come more than once."""
        for folders in ({"."}, {"."} ^ {naming.folder for naming in self.namings}, None):
            mine = [naming for naming in self.namings if folders is None or naming.folder in folders]
            for count in range(len(mine) + 1):
                names = dict(self.durable)
                for naming in mine[:count]:
                    naming.apply(names)
                yield "lost", _contents(names, lambda inode: inode.durable)
                yield "kept", _contents(names)
        for name, inode in self.names.items():
            if inode is None:
                continue
            for kind, content in inode.variants(UNREAD_EVERY if name.endswith(UNFINISHED) else 1):
                yield kind, _contents(self.names) | {name: content}

    # What `os` does.

    def open(self, path: Path, flags: int, mode: int) -> int:
        name = self._name(path)
        inode = self.names.get(name)
        if flags & (os.O_CREAT | os.O_TRUNC) and (name not in self.names or flags & os.O_TRUNC):
            self.before("open")
            fd = _REAL["open"](path, flags, mode)
            if inode is None:
                inode = Inode()
                self._rename(Naming(_folder(name), name=name, inode=inode))
            elif flags & os.O_TRUNC:
                inode.pending.append((0, None))
        else:
            fd = _REAL["open"](path, flags, mode)
        self._open[fd] = (name, inode)
        return fd

    def write(self, fd: int, data: bytes) -> int:
        _, inode = self._open[fd]
        assert inode is not None
        try:
            self.before("write")
        except OSError:
            self._put(fd, inode, data[: len(data) // 2])
            raise
        return self._put(fd, inode, data)

    def fsync(self, fd: int) -> None:
        name, inode = self._open[fd]
        try:
            self.before("fsync folder" if inode is None else "fsync")
        except OSError:
            if inode is not None:
                inode.given_up = True
            raise
        if inode is not None:
            if not inode.given_up:
                inode.durable, inode.pending = inode.now, []
            return
        for naming in self.namings:
            if naming.folder == name:
                naming.apply(self.durable)
        self.namings = [naming for naming in self.namings if naming.folder != name]

    def ftruncate(self, fd: int, length: int) -> None:
        self.before("ftruncate")
        _, inode = self._open[fd]
        assert inode is not None
        inode.pending.append((length, None))
        _REAL["ftruncate"](fd, length)

    def replace(self, source: Path, target: Path) -> None:
        self.before("rename")
        gone, name = self._name(source), self._name(target)
        self._rename(Naming(_folder(name), gone, name, self.names[gone]))
        _REAL["replace"](source, target)

    def unlink(self, path: Path) -> None:
        self.before("unlink")
        name = self._name(path)
        _REAL["unlink"](path)
        self._rename(Naming(_folder(name), gone=name))

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        name = self._name(path)
        if name in self.names:
            raise FileExistsError(path)
        self.before("mkdir")
        _REAL["mkdir"](path, mode)
        self._rename(Naming(_folder(name), name=name))

    def close(self, fd: int) -> None:
        del self._open[fd]
        _REAL["close"](fd)

    # Within.

    def holds(self, path: object) -> bool:
        return isinstance(path, str | Path) and Path(path).is_relative_to(self.root)

    def has_open(self, fd: int) -> bool:
        return fd in self._open

    def shut(self) -> None:
        """Close what a dead process had open."""
        for fd in list(self._open):
            self.close(fd)

    def _put(self, fd: int, inode: Inode, data: bytes) -> int:
        appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        inode.pending.append((len(inode.now) if appends else os.lseek(fd, 0, os.SEEK_CUR), bytes(data)))
        return _REAL["write"](fd, data)

    def _rename(self, naming: Naming) -> None:
        naming.apply(self.names)
        self.namings.append(naming)

    def _name(self, path: Path) -> str:
        return str(Path(path).relative_to(self.root))

    def _fill(self) -> None:
        lay_out(self.root, self.now)


def lay_out(root: Path, files: Files) -> None:
    """Make the folder hold these files and no others; what is right already is left alone."""
    root.mkdir(exist_ok=True)
    folders = [root, *(root / name for name, data in files.items() if data is None)]
    for entry in sorted(root.rglob("*"), reverse=True):  # what lies in a folder before the folder
        if str(entry.relative_to(root)) not in files:
            entry.rmdir() if entry.is_dir() else entry.unlink()
    for folder in folders:
        folder.mkdir(exist_ok=True)
    for name, data in files.items():
        if data is not None and not ((root / name).exists() and (root / name).read_bytes() == data):
            (root / name).write_bytes(data)


def _contents(names: dict[str, Inode | None], of: Callable[[Inode], bytes] = lambda inode: inode.now) -> Files:
    """Only what lies in a folder that is there itself."""
    return {
        name: None if inode is None else of(inode)
        for name, inode in names.items()
        if _folder(name) == "." or _folder(name) in names
    }


def _folder(name: str) -> str:
    return str(Path(name).parent) if name != "." else ""


_REAL = {
    name: getattr(os, name)
    for name in ("open", "write", "fsync", "fdatasync", "ftruncate", "replace", "unlink", "mkdir", "close")
}


class Machine:
    """Lets `os` work on the disk that is put in, and on the real one elsewhere."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.disk: Disk | None = None
        for name, real in _REAL.items():
            patch.setattr(os, name, self._call(name, real))

    def _call(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        method = {"fdatasync": "fsync"}.get(name, name)

        def call(first: object, *more: object, **options: object) -> object:
            disk = self.disk
            mine = disk is not None and (disk.has_open(first) if isinstance(first, int) else disk.holds(first))
            if not mine:
                return real(first, *more, **options)
            if name == "open" and len(more) == 1:
                more = (*more, 0o777)
            return getattr(disk, method)(first, *more)

        return call
