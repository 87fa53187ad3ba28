"""A file is replaced in one piece: durable before it takes its name, and its owner's alone from the first byte."""

import os
import stat
from pathlib import Path

import pytest

from p2pnode.durable import UNFINISHED, replace_file, write_all
from p2pnode.errors import DiskError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def fail(*_args, **_kwargs):
    raise OSError("no power")


def test_the_new_content_is_durable_before_it_takes_the_name_and_the_name_after(path, monkeypatch):
    done = []

    def synced(fd, real=os.fsync):
        place = Path(f"/proc/self/fd/{fd}").resolve()
        done.append(("fsync", place.name, place.stat().st_size if place.is_file() else None))
        real(fd)

    def renamed(*args, real=Path.replace):
        done.append("rename")
        real(*args)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    replace_file(path, lambda fd: write_all(fd, b"content"))
    assert done == [("fsync", path.name + UNFINISHED, 7), "rename", ("fsync", path.parent.name, None)]
    assert path.read_bytes() == b"content"


def test_a_writer_that_fails_leaves_the_old_file(path):
    path.write_bytes(b"old")
    with pytest.raises(DiskError, match="no power"):
        replace_file(path, fail)
    assert path.read_bytes() == b"old"


def test_a_file_is_its_owners_alone_from_the_first_byte(path):
    """Whatever a killed process left under the name that it is written by."""
    left = path.with_name(path.name + UNFINISHED)
    left.touch(mode=0o644)
    left.chmod(0o644)
    modes = []

    def write(fd):
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
        write_all(fd, b"content")

    replace_file(path, write)
    assert modes == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
