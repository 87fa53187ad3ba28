"""The log: a line an event, and a full disk silences nobody."""

import json
from pathlib import Path

import pytest

from p2pnode.errors import DiskError
from p2pnode.observe.log import open_log


def test_events_are_lines_of_json_and_more_are_appended(tmp_path):
    path = tmp_path / "log.jsonl"
    for number in range(2):
        open_log(path, "node0").warning("heard", number=number, what="é\n")
    said = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["event"], line["level"], line["node"], line["number"]) for line in said] == [
        ("heard", "warning", "node0", 0),
        ("heard", "warning", "node0", 1),
    ]
    assert said[0]["what"] == "é\n"
    assert said[0]["timestamp"].endswith("Z")


def test_what_a_full_disk_does_not_take_is_said_on_the_terminal_once(capsys):
    for console in ("none", "people", "json"):
        log = open_log(Path("/dev/full"), "node0", console)
        for _ in range(3):
            log.error("failed", reason="no room")
        out, err = capsys.readouterr()
        assert (out + err).count("no room") == 3


def test_a_log_that_cannot_be_opened_is_told_with_a_remedy(tmp_path):
    with pytest.raises(DiskError, match=f"{tmp_path}: Is a directory. Remedy: "):
        open_log(tmp_path, "node0")
