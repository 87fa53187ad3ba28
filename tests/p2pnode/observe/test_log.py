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


def test_the_file_says_where_an_error_came_from(tmp_path):
    path = tmp_path / "log.jsonl"
    try:
        {}["no such vector"]
    except KeyError:
        open_log(path, "node0").exception("failed", exc_info=True)
    [event] = map(json.loads, path.read_text().splitlines())
    assert "KeyError: 'no such vector'" in event["exception"]
    assert "in test_the_file_says" in event["exception"]


def test_each_line_says_where_the_node_is_unless_it_is_about_another_place(tmp_path):
    here = {"step": 3, "phase": "waiting"}
    log = open_log(tmp_path / "log.jsonl", "node0", where=lambda: here)
    log.info("late", peer="node2", step=2)
    here = {"step": 4, "phase": "mixing"}
    log.info("connected", peer="node1")
    said = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["phase"], line["peer"]) for line in said] == [
        (2, "waiting", "node2"),
        (4, "mixing", "node1"),
    ]


@pytest.mark.parametrize(("shown", "wanted"), [("info", 3), ("warning", 2), ("error", 1)])
@pytest.mark.parametrize("console", ["people", "json"])
def test_a_level_chooses_what_is_shown_and_the_file_has_all(tmp_path, capsys, console, shown, wanted):
    log = open_log(tmp_path / "log.jsonl", "node0", console, shown)
    log.info("heard it")
    log.warning("heard it")
    log.error("heard it")
    out, err = capsys.readouterr()
    assert (out if console == "json" else err).count("heard it") == wanted
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3


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
