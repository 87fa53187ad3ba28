"""Vectors on disk: as they were, in no more room than there are of them at one time, and none left over."""

import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from p2pnode.storage.spool import Spool
from protocols.header import Slot

LENGTH = 1000


def numbers(value):
    return np.full(LENGTH, value, np.uint16)


def name(value):
    return bytes([value]) * 32


@contextmanager
def files_of_at_most(nbytes):
    """A disk that is full, to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def told():
    return []


@pytest.fixture
def spool(tmp_path, told):
    return Spool(tmp_path, np.dtype(np.uint16), LENGTH, told.append)


def of_disk():
    """Bytes of the files without a name that this process has open."""
    open_files = [Path("/proc/self/fd") / fd.name for fd in Path("/proc/self/fd").iterdir()]
    return sum(fd.stat().st_size for fd in open_files if fd.exists() and fd.is_file() and fd.stat().st_nlink == 0)


def test_what_is_put_in_comes_out_bit_for_bit(spool, tmp_path):
    assert [spool.put(Slot(value), name(value), numbers(value)) for value in range(5)] == [True] * 5
    assert spool.put(Slot(3), name(3), numbers(3)), "once more"
    for value in range(5):
        read = spool.get(name(value))
        assert read.dtype == np.uint16
        assert read.tobytes() == numbers(value).tobytes()
    assert spool.get(name(5)) is None
    assert list(tmp_path.iterdir()) == []


def test_those_to_come_take_the_places_of_those_that_are_forgotten(spool):
    before = of_disk()
    for value in range(200):
        spool.put(Slot(value), name(value), numbers(value))
        spool.forget(before=Slot(value - 2))
        for kept in range(max(0, value - 2), value + 1):
            assert (spool.get(name(kept)) == kept).all()
    assert spool.get(name(196)) is None
    assert of_disk() - before <= 4 * 2 * LENGTH


def test_a_disk_that_refuses_is_told_of_once_and_takes_again_when_it_can(spool, told, tmp_path):
    for value in (0, 1, 4):
        assert spool.put(Slot(value), name(value), numbers(value))
    spool.forget(before=Slot(1))
    with files_of_at_most(LENGTH):
        assert not spool.put(Slot(2), name(2), numbers(2))
        assert not spool.put(Slot(3), name(3), numbers(3))
        assert spool.get(name(2)) is None
    assert len(told) == 1
    assert str(tmp_path) in told[0]
    assert spool.put(Slot(2), name(2), numbers(2))
    here = (1, 2, 4)
    assert [spool.get(name(value)).tobytes() for value in here] == [numbers(value).tobytes() for value in here]
