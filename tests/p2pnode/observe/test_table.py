"""What people are shown."""

from pathlib import Path

import pytest
from rich.console import Console

from p2pnode.home import Home
from p2pnode.observe import table
from p2pnode.testnet import NodeView, Plan

SAID = {"what": "digest echo", "step": 3, "exchange": 0, "sub_round": 2, "seconds": 1.26}
OWED = {"step": 2, "exchange": 0, "sub_round": 1}

STATUS = {
    "name": "node0",
    "recipe": "trimmed",
    "step": 3,
    "steps": 9,
    "exchange": 1,
    "sub_round": 0,
    "phase": "waiting",
    "phase_seconds": 2.04,
    "waits_for": ["node1", "node2"],
    "waiting": {
        "here": 2,
        "needed": 4,
        "deadline": 0.25,
        "missing": [
            {"peer": "node1", "connected": True, "lacks": "bytes", "late": False, "said": SAID},
            {"peer": "node2", "connected": False, "lacks": "announcement", "late": True, "said": None},
        ],
    },
    "late": [],
    "connected": ["node1", "node3"],
    "accuracy": None,
    "loss": None,
    "faults": [],
    "bytes_sent": 2**20,
    "bytes_received": 2**21,
    "peak_rss_mib": 99.6,
    "banned": [],
    "evidence": [],
}


def rows(told):
    """The lines of each row, by its name."""
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table.status(told))
    lines = [line.strip("│ ") for line in capture.get().splitlines() if "│" in line]
    read = {}
    for key, value in ((key.strip(), value.strip()) for key, _, value in (line.partition("│") for line in lines)):
        if key and value:
            read[key] = [value]
        else:  # what belongs to the row before comes without a name
            read[list(read)[-1]].append(key or value)
    return read


SUMMARY = {
    "recipe": "trimmed",
    "task": "digits",
    "nodes": 7,
    "byzantine": 1,
    "attack": "alie,equivocate",
    "f": 1,
    "exchanges": [{"what": "model", "rule": "trimmed-mean", "broadcast": "signed-echo"}],
    "honest": [
        {
            "name": "node0",
            "accuracy": 0.975,
            "loss": 0.0756,
            "steps": 200,
            "bytes_sent": 23 * 2**20,
            "bytes_received": 22 * 2**20,
            "peak_rss_mib": 240.0,
            "exit": 0,
        }
    ],
}


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_summary_shows_every_number_whole_however_narrow_the_terminal(width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table.summary(SUMMARY, width))
    (row,) = (line for line in capture.get().splitlines() if "node0" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "node0", "0.9750", "0.0756", "200", "23.0", "22.0", "240", "0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "result", "shown"), [(0, {"steps": 200}, "200 / 200 done"), (2, None, "59 / 200 ended: 2")]
)
def test_a_node_that_ended_is_shown_as_done_or_with_its_exit_code(code, result, shown):
    node = NodeView("node0", Home(Path("node0")), honest=True, status={"step": 59}, result=result, exit=code)
    plan = Plan(Path("out"), {"training": {"steps": 200}}, 1, 0, (), None, 60.0)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table._live_table([node], plan))
    (row,) = (line for line in capture.get().splitlines() if "node0" in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert f"{cells[1]} {cells[4]}" == shown


def test_a_status_says_why_the_node_waits_and_that_nobody_is_late_or_banned():
    told = rows(STATUS)
    assert told["phase"] == ["waiting for 2.0 s, in slot 3.1.0"]
    assert told["waits for"] == [
        "2 values of 4 are here",
        "node1: no bytes yet; last heard: digest echo of slot 3.0.2, 1.3 s ago",
        "node2, late, not connected: no announcement yet; nothing heard",
    ]
    assert (told["late"], told["banned"], told["proofs against"]) == (["nobody"], ["nobody"], ["nobody"])
    assert rows({**STATUS, "waiting": None})["waits for"] == ["nobody"]


def test_a_status_names_who_is_late_since_when_and_who_is_banned():
    late = [
        {"peer": "node1", **OWED, "seconds": 3.14, "deadline": 0.25, "said": {"what": "vector", "seconds": 4.0}},
        {"peer": "node2", **OWED, "seconds": 90.0, "deadline": 1.0, "said": None},
    ]
    told = rows({**STATUS, "late": late, "banned": ["node2", "node4"], "evidence": ["node4"]})
    assert told["late"] == [
        "node1 owes slot 2.0.1: awaited for 3.1 s, expected within 0.2 s; last heard: vector, 4.0 s ago",
        "node2 owes slot 2.0.1: awaited for 90.0 s, expected within 1.0 s; nothing heard",
    ]
    assert (told["banned"], told["proofs against"]) == (["node2, node4"], ["node4"])
