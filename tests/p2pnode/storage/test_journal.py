"""The journal across crashes and damage: a torn tail is cut, anything else is noticed, a rewrite is all or nothing."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pnode.durable import make_folder
from p2pnode.errors import DiskError, JournalCorrupt, JournalError, JournalMissing
from p2pnode.storage.journal import QUICK_S, RECENT, RECORD_BYTES_MAX, SECTOR_BYTES, Journal

RECORDS = [b"first", b"", bytes(300), b"the last one"]


def written(path, records):
    """The file's size after each record."""
    journal = Journal(path)
    sizes = [path.stat().st_size]
    for record in records:
        journal.append(record)
        sizes.append(path.stat().st_size)
    journal.flush()
    journal.close()
    return sizes


def read(path):
    journal = Journal(path)
    journal.close()
    return journal.records


@pytest.fixture
def path(tmp_path):
    Journal.make(tmp_path / "journal")
    return tmp_path / "journal"


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=40) | st.just(bytes(RECORD_BYTES_MAX)), max_size=6), st.integers(0, 6))
def test_records_come_back_in_order_and_more_can_follow(path, records, cut):
    Journal.make(path)
    written(path, records[:cut])
    written(path, records[cut:])
    assert read(path) == records
    assert path.stat().st_mode & 0o077 == 0


def test_a_record_torn_at_any_byte_is_cut_off_and_appending_goes_on(path):
    sizes = written(path, RECORDS)
    whole = path.read_bytes()
    for index in range(len(RECORDS)):
        for end in range(sizes[index], sizes[index + 1]):
            path.write_bytes(whole[:end])
            assert read(path) == RECORDS[:index]
            assert path.stat().st_size == sizes[index]
            written(path, [b"after"])
            assert read(path) == [*RECORDS[:index], b"after"]


def test_a_flipped_bit_in_any_complete_record_is_never_overlooked(path):
    """A damaged length, above all, must not make complete records look like an unfinished one."""
    written(path, RECORDS)
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(JournalCorrupt, match=r"record at byte \d+ is damaged.*give it a new key"):
                Journal(path)
            assert path.read_bytes() == damaged


def test_a_record_lost_from_the_middle_or_zeroed_is_noticed(path):
    sizes = written(path, RECORDS)
    whole = path.read_bytes()
    for begin, end in ((1, 5), (sizes[2] + 3, sizes[3])):
        path.write_bytes(whole[:begin] + bytes(end - begin) + whole[end:])
        with pytest.raises(JournalCorrupt, match=f"byte {sizes[2] if begin > 1 else 0} "):
            Journal(path)
        path.write_bytes(whole[:begin] + whole[end:])
        with pytest.raises(JournalCorrupt):
            Journal(path)


def test_a_record_longer_than_the_bound_is_a_bug_of_ours(path):
    journal = Journal(path)
    with pytest.raises(AssertionError):
        journal.append(bytes(RECORD_BYTES_MAX + 1))
    journal.close()


@pytest.fixture
def synced(monkeypatch):
    """What was synchronised, in order: (call, file or folder, its size)."""
    calls = []
    for real in (os.fsync, os.fdatasync):

        def spy(fd, real=real):
            place = Path(f"/proc/self/fd/{fd}").resolve()
            calls.append((real.__name__, place.name, place.stat().st_size if place.is_file() else None))
            real(fd)

        monkeypatch.setattr(os, real.__name__, spy)
    return calls


def test_flush_synchronises_all_that_was_appended(path, synced):
    journal = Journal(path)
    assert ("fsync", path.parent.name, None) in synced  # else the file's very name may be lost
    synced.clear()
    journal.append(b"one")
    journal.append(b"two")
    assert journal.dirty
    assert synced == []
    journal.flush()
    assert synced == [("fdatasync", path.name, path.stat().st_size)]
    assert not journal.dirty
    journal.close()


def test_a_disk_is_as_quick_as_the_quickest_of_its_last_flushes(path, monkeypatch):
    """On a busy machine others have the core meanwhile, so that most of them seem slow on any disk."""
    now, journal = [0.0], Journal(path)
    monkeypatch.setattr("p2pnode.storage.journal.time.perf_counter", lambda: now[0])

    def flush(seconds):
        monkeypatch.setattr(os, "fdatasync", lambda _: now.append(now.pop() + seconds))
        journal.flush()
        return journal.quick

    assert not journal.quick, "nothing is known of it"
    assert not flush(2 * QUICK_S)
    assert flush(QUICK_S / 2)
    assert all(flush(0.5) for _ in range(RECENT - 1))
    assert not flush(0.5), "it was quick, and is no more"
    journal.close()


@pytest.mark.parametrize(("call", "broken"), [("flush", "fdatasync"), ("append", "write"), ("rewrite", "fsync")])
def test_after_a_write_that_failed_nothing_is_promised_any_more(path, monkeypatch, call, broken):
    """What the system could not write it may have forgotten, and say at the next try that all is written."""
    journal = Journal(path)
    journal.append(b"one")
    given = {"flush": (), "append": (b"two",), "rewrite": ([b"two"],)}
    with monkeypatch.context() as disk:
        disk.setattr(os, broken, fail)
        with pytest.raises(DiskError, match=f"^{path}: no power. Remedy: check the disk"):
            getattr(journal, call)(*given[call])
    for again, arguments in given.items():
        with pytest.raises(JournalError, match=f"{path}: an earlier write failed. Remedy: start the node again"):
            getattr(journal, again)(*arguments)
        assert journal.dirty
    journal.close()
    assert read(path) in ([], [b"one"])


def test_a_tail_of_zeros_was_never_written_and_is_cut_off(path):
    """A file's new length may outlive a crash that its new bytes do not."""
    sizes = written(path, [bytes(700), bytes(range(256)) * 4, b"the last one"])
    whole = path.read_bytes()
    for index in range(3):
        starts = [sizes[index], *range(-(-sizes[index] // SECTOR_BYTES) * SECTOR_BYTES, sizes[index + 1], SECTOR_BYTES)]
        for start in starts:
            for size in (sizes[index + 1], sizes[3], 5000):
                path.write_bytes(whole[:start] + bytes(size - start))
                assert len(read(path)) == index
                assert path.stat().st_size == sizes[index]


def test_zeros_within_a_sector_or_before_other_bytes_are_damage(path):
    sizes = written(path, [bytes(700), bytes(range(256)) * 4, b"the last one"])
    whole = path.read_bytes()
    for start, end in (
        (sizes[2] + 4, len(whole)),
        (sizes[2] + 20, len(whole)),
        (len(whole) - 1, len(whole)),
        (sizes[1], sizes[2]),
        (512, 1024),
    ):
        damaged = whole[:start] + bytes(end - start) + whole[end:]
        path.write_bytes(damaged)
        with pytest.raises(JournalCorrupt, match=r"is damaged"):
            Journal(path)
        assert path.read_bytes() == damaged


def test_what_can_be_read_is_durable_before_it_is_relied_on(path, synced):
    """A killed process leaves records that no flush ever reached."""
    written(path, RECORDS)
    path.write_bytes(path.read_bytes()[:-1])
    synced.clear()
    assert read(path) == RECORDS[:-1]
    assert synced == [("fsync", path.name, path.stat().st_size), ("fsync", path.parent.name, None)]


def test_a_journal_is_never_made_where_one_is_missing(path):
    path.unlink()
    with pytest.raises(JournalMissing, match=f"{path}: there is none. This node cannot know what it signed"):
        Journal(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room for this user on its disk"),
        (errno.EFBIG, "make room for this user on its disk"),
        (errno.EROFS, "let this user write there"),
        (errno.EIO, "check the disk and this user's limits"),
    ],
)
def test_what_the_disk_refuses_is_told_with_path_cause_and_remedy(path, monkeypatch, number, remedy):
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    told = f"^{path}: {os.strerror(number)}. Remedy: {remedy}, then start the node again$"
    for refused in (lambda: Journal(path), lambda: Journal.make(path), lambda: make_folder(path.parent)):
        with pytest.raises(DiskError, match=told.replace(str(path), f"{path.parent}.*")):
            refused()


def test_a_rewrite_replaces_all_and_appending_goes_on(path):
    journal = Journal(path)
    for record in RECORDS:
        journal.append(record)
    journal.rewrite([b"kept"])
    assert not journal.dirty
    journal.append(b"next")
    journal.flush()
    journal.close()
    assert read(path) == [b"kept", b"next"]


def fail(*_args, **_kwargs):
    raise OSError("no power")


def crash_at(monkeypatch, countdown):
    """The system call number `countdown`, of those that a replacement makes, fails, and so do all after it."""
    for place, real in ((os, os.write), (os, os.fsync), (Path, Path.replace)):

        def call(*args, real=real):
            nonlocal countdown
            countdown -= 1
            return fail() if countdown < 0 else real(*args)

        monkeypatch.setattr(place, real.__name__, call)


@pytest.mark.parametrize("calls", range(5))
def test_a_crash_anywhere_in_a_rewrite_leaves_the_old_or_the_new_whole(path, monkeypatch, calls):
    """The calls are: write, fsync of the file, rename, fsync of the folder."""
    written(path, RECORDS)
    journal = Journal(path)
    with monkeypatch.context() as crash:
        crash_at(crash, calls)
        if calls < 4:
            with pytest.raises(DiskError, match="no power"):
                journal.rewrite([b"new", b"newer"])
        else:
            journal.rewrite([b"new", b"newer"])
    assert read(path) == (RECORDS if calls < 3 else [b"new", b"newer"])
    written(path, [b"more"])
    assert read(path)[-1] == b"more"


def test_what_the_system_takes_in_pieces_is_written_whole(path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    written(path, RECORDS)
    assert read(path) == RECORDS
