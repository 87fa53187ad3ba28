"""Who tests the sweeps of `tests/faults`: storage made wrong in one place, and the sweep that notices."""

import os
import types
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from p2pnode import durable
from p2pnode.errors import P2PNodeError, asking_disk
from p2pnode.storage import checkpoint, journal, signer
from p2pnode.storage.checkpoint import Outbox
from p2pnode.storage.journal import Journal
from p2pnode.storage.signer import DurableSigner
from tests.faults import sweep
from tests.faults.life import Broken, World


def skips_the_flush(patch):
    patch.setattr(Journal, "flush", lambda self: setattr(self, "_dirty", False))


def speaks_before_the_flush(patch):
    patch.setattr(DurableSigner, "dirty", False)


def skips_the_sync_of_folders(patch):
    for module in (durable, journal):
        patch.setattr(module, "sync", lambda folder: None)


def skips_the_sync_of_a_new_file(patch):
    replace_file = durable.replace_file

    def hasty(path, write):
        with without(patch, "fsync"):
            replace_file(path, write)
        durable.sync(path.parent)

    for module in (journal, checkpoint):
        patch.setattr(module, "replace_file", hasty)


def rewrites_in_place(patch):
    def in_place(path, write):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        write(fd)
        os.fsync(fd)
        os.close(fd)
        durable.sync(path.parent)

    for module in (journal, checkpoint):
        patch.setattr(module, "replace_file", in_place)


def makes_no_outbox_durable(patch):
    patch.setattr(checkpoint, "make_folder", lambda path: path.mkdir(exist_ok=True))


def skips_the_sync_of_what_is_written_over(patch):
    def hasty(path, write):
        fd = os.open(path, os.O_WRONLY)
        write(fd)
        os.close(fd)

    patch.setattr(checkpoint, "write_over", hasty)


def writes_over_what_is_needed(patch):
    patch.setattr(checkpoint, "SPARE_STEPS", -1)


def trusts_a_vector_that_a_killed_process_left(patch):
    patch.setattr(checkpoint, "sync", lambda path: None)


def believes_the_names_of_vectors(patch):
    patch.setattr(Outbox, "_recover", lambda self: None)


def records_no_floor(patch):
    rewrite = Journal.rewrite
    patch.setattr(
        Journal,
        "rewrite",
        lambda self, records: rewrite(self, [one for one in records if one[0] != signer._TAG_FLOOR]),
    )


def forgets_what_is_on_the_floor(patch):
    forget = DurableSigner.forget_before

    def forgetful(self, step):
        self._signed = {place: entry for place, entry in self._signed.items() if entry[0] > step}
        forget(self, step)

    patch.setattr(DurableSigner, "forget_before", forgetful)


def takes_a_torn_record_for_a_whole_one(patch):
    parse = journal._parse

    def trusting(data, path):
        records, sound = parse(data, path)
        begin = sound + journal._HEAD.size
        return ([*records, data[begin:]] if begin < len(data) else records), sound

    patch.setattr(journal, "_parse", trusting)


def leaves_the_torn_tail(patch):
    start = Journal.__init__

    def careless(self, path):
        with without(patch, "ftruncate"):
            start(self, path)

    patch.setattr(Journal, "__init__", careless)


def trusts_what_a_killed_process_left(patch):
    start = Journal.__init__

    def trusting(self, path):
        with without(patch, "fsync"):
            start(self, path)

    patch.setattr(Journal, "__init__", trusting)


def takes_zeros_for_damage(patch):
    patch.setattr(journal, "_unwritten", lambda data, begin, end: False)


def takes_damage_for_a_torn_tail(patch):
    patch.setattr(journal, "_unwritten", lambda data, begin, end: True)


def checks_no_record(patch):
    patch.setattr(journal, "_checksum", lambda data, length: bytes(length))


def begins_a_lost_journal_anew(patch):
    start = DurableSigner.__init__

    def obliging(self, identity, path):
        if not path.exists():
            self.begin(identity, path)
        start(self, identity, path)

    patch.setattr(DurableSigner, "__init__", obliging)


def goes_on_after_a_failed_write(patch):
    @contextmanager
    def again(self):
        with asking_disk(self.path):
            yield

    patch.setattr(Journal, "_once", again)


def takes_a_second_flush_for_the_first(patch):
    def flush(self):
        with asking_disk(self.path):
            os.fdatasync(self._fd)
        self._dirty = self._failed = False

    patch.setattr(Journal, "flush", flush)


@contextmanager
def without(patch, call):
    """The storage's `os` leaves one call out."""
    lacking = types.SimpleNamespace(**vars(os) | {call: lambda *given: None})
    for module in (durable, journal):
        patch.setattr(module, "os", lacking)
    try:
        yield
    finally:
        for module in (durable, journal):
            patch.setattr(module, "os", os)


@dataclass(frozen=True)
class Mutant:
    """Args:
    change: makes the storage wrong.
    notices: the sweep that does.
    as_what: what it says then.
    """

    change: Callable[[pytest.MonkeyPatch], None]
    notices: Callable[[World], object]
    as_what: str


WHOLE_WRITES = partial(sweep.power_cuts, kinds=("lost", "kept"))
TORN_WRITES = partial(sweep.power_cuts, kinds=("torn", "zeros"))

MUTANTS = {
    "skips the flush": Mutant(skips_the_flush, WHOLE_WRITES, "is forgotten"),
    "speaks before the flush": Mutant(speaks_before_the_flush, WHOLE_WRITES, "is forgotten"),
    "skips the sync of folders": Mutant(skips_the_sync_of_folders, WHOLE_WRITES, "cannot be sent again"),
    "skips the sync of a new file": Mutant(skips_the_sync_of_a_new_file, WHOLE_WRITES, "cannot be sent again"),
    "rewrites in place": Mutant(rewrites_in_place, WHOLE_WRITES, "its beginning is lost"),
    "makes no outbox durable": Mutant(makes_no_outbox_durable, WHOLE_WRITES, "cannot be sent again"),
    "skips the sync of what is written over": Mutant(
        skips_the_sync_of_what_is_written_over, WHOLE_WRITES, "cannot be sent again"
    ),
    "writes over what is needed": Mutant(writes_over_what_is_needed, TORN_WRITES, "cannot be sent again"),
    "trusts a vector that a killed process left": Mutant(
        trusts_a_vector_that_a_killed_process_left, sweep.kills, "cannot be sent again"
    ),
    "believes the names of vectors": Mutant(believes_the_names_of_vectors, WHOLE_WRITES, "cannot be sent again"),
    "records no floor": Mutant(records_no_floor, WHOLE_WRITES, "is forgotten"),
    "forgets what is on the floor": Mutant(forgets_what_is_on_the_floor, WHOLE_WRITES, "is forgotten"),
    "takes a torn record for a whole one": Mutant(takes_a_torn_record_for_a_whole_one, TORN_WRITES, "no signer writes"),
    "takes zeros for damage": Mutant(takes_zeros_for_damage, TORN_WRITES, "is damaged"),
    "leaves the torn tail": Mutant(leaves_the_torn_tail, TORN_WRITES, "is damaged"),
    "trusts what a killed process left": Mutant(trusts_what_a_killed_process_left, sweep.kills, "is forgotten"),
    "goes on after a failed write": Mutant(goes_on_after_a_failed_write, sweep.refusals, "is damaged"),
    "takes a second flush for the first": Mutant(takes_a_second_flush_for_the_first, sweep.refusals, "is forgotten"),
    "takes damage for a torn tail": Mutant(takes_damage_for_a_torn_tail, sweep.damages, "two statements left"),
    "checks no record": Mutant(checks_no_record, sweep.damages, "another key"),
    "begins a lost journal anew": Mutant(begins_a_lost_journal_anew, sweep.damages, "two statements left"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_of_the_storage_is_killed_by_its_sweep(name, monkeypatch, tmp_path):
    mutant = MUTANTS[name]
    world = World(monkeypatch, tmp_path / "home")
    mutant.change(monkeypatch)
    with pytest.raises((Broken, P2PNodeError), match=mutant.as_what):
        mutant.notices(world)
