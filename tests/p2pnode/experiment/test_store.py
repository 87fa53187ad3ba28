"""What is kept: every finished trial, through kills and damage, and nothing twice."""

import json
import os
from dataclasses import replace

import pytest

from p2pnode.errors import ConfigError
from p2pnode.experiment.grid import canonical, key_of
from p2pnode.experiment.store import Record, Store
from tests.trials import experiment, learned


@pytest.fixture
def trials(tmp_path):
    return experiment(tmp_path).trials


def kept(folder, trials):
    """A folder with the records of these trials; the bytes of its file."""
    with Store(folder) as store:
        for trial in trials:
            store.append(Record.of(trial, learned(trial), None))
    return store.path.read_bytes()


def test_what_was_appended_is_there_when_it_is_opened_again(tmp_path, trials):
    content = kept(tmp_path / "new" / "folder", trials[:2])
    with Store(tmp_path / "new" / "folder") as store:
        assert list(store.records) == [key_of(trial) for trial in trials[:2]]
        outcome = learned(trials[0])
        assert store.records[key_of(trials[0])].outcome.mean == outcome.mean
        assert store.records[key_of(trials[0])].outcome.curve == tuple(outcome.curve)
    lines = [json.loads(line) for line in content.splitlines()]
    assert [set(line) for line in lines] == [{"key", "trial", "outcome", "error"}] * 2
    assert lines[0]["trial"] == json.loads(json.dumps(canonical(trials[0])))


def test_wherever_the_last_line_ends_the_lines_before_count_and_the_next_is_not_glued_to_it(tmp_path, trials):
    content = kept(tmp_path, trials[:2])
    first = content.index(b"\n") + 1
    path = tmp_path / "results.jsonl"
    for end in [*range(first, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:end])
        with Store(tmp_path) as store:
            assert list(store.records) == [key_of(trials[0])]
            store.append(Record.of(trials[2], learned(trials[2]), None))
        with Store(tmp_path) as store:
            assert list(store.records) == [key_of(trials[0]), key_of(trials[2])]


@pytest.mark.parametrize("damage", [b"\x00\xff", b"[]", b"{}", b'{"key": 7}', b"", b"null", b"[" * 10_000])
def test_a_damaged_line_costs_that_line_only(tmp_path, trials, damage):
    first, second = kept(tmp_path, trials[:2]).splitlines()
    (tmp_path / "results.jsonl").write_bytes(b"\n".join([first, damage, second, b""]))
    with Store(tmp_path) as store:
        assert list(store.records) == [key_of(trial) for trial in trials[:2]]


def test_each_record_is_on_the_disk_before_append_returns(tmp_path, trials, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "write", lambda file, line: calls.append("write") or len(line))
    monkeypatch.setattr(os, "fsync", lambda file: calls.append("fsync"))
    kept(tmp_path, trials[:2])
    assert calls == ["write", "fsync"] * 2


def test_a_full_disk_is_said(tmp_path, trials, monkeypatch):
    monkeypatch.setattr(os, "write", lambda file, line: len(line) - 1)
    with pytest.raises(ConfigError, match=r"results.jsonl: the disk took a part only. Remedy: make room"):
        kept(tmp_path, trials[:1])


def test_only_one_process_at_a_time_has_it_open(tmp_path):
    with Store(tmp_path), pytest.raises(ConfigError, match=r"another experiment writes.*Remedy: "):
        Store(tmp_path)
    Store(tmp_path).__exit__(None, None, None)


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file.*Remedy: choose another folder"):
        Store(tmp_path / "file")


def test_the_last_record_of_a_trial_counts(tmp_path, trials):
    with Store(tmp_path) as store:
        store.append(Record.of(trials[0], None, "out of memory"))
        assert store.records[key_of(trials[0])].outcome is None
        store.append(Record.of(trials[0], learned(trials[0]), None))
    with Store(tmp_path) as store:
        assert store.records[key_of(trials[0])].outcome is not None
        assert store.records[key_of(trials[0])].error is None


def test_a_diameter_beyond_numbers_is_kept_as_none_and_the_line_stays_json(tmp_path, trials):
    outcome = replace(learned(trials[0]), honest_diameter=float("inf"))
    with Store(tmp_path) as store:
        store.append(Record.of(trials[0], outcome, None))

    def refuse(word):
        raise AssertionError(word)

    (line,) = store.path.read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["outcome"]["honest_diameter"] is None
    with Store(tmp_path) as store:
        assert store.records[key_of(trials[0])].outcome.mean == outcome.mean
