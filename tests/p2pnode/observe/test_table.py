"""What people are shown."""

from rich.console import Console

from p2pnode.observe import table

STATUS = {
    "name": "node0",
    "recipe": "trimmed",
    "step": 3,
    "steps": 9,
    "phase": "waiting",
    "waits_for": ["node1", "node2"],
    "late": [],
    "connected": ["node1", "node3"],
    "accuracy": None,
    "loss": None,
    "faults": [],
    "bytes_sent": 2**20,
    "bytes_received": 2**21,
    "peak_rss_mib": 99.6,
    "banned": [],
}


def rows(told):
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table.status(told))
    lines = [line.strip("│ ") for line in capture.get().splitlines() if "│" in line]
    return {key.strip(): value.strip() for key, _, value in (line.partition("│") for line in lines)}


def test_a_status_names_who_is_waited_for_and_that_nobody_is_late_or_banned():
    told = rows(STATUS)
    assert told["waits for"] == "node1, node2"
    assert (told["late"], told["banned"]) == ("nobody", "nobody")


def test_a_status_names_who_is_late_since_when_and_who_is_banned():
    late = [{"peer": "node1", "seconds": 3.14, "deadline": 0.25}, {"peer": "node2", "seconds": 90.0, "deadline": 1.0}]
    told = rows({**STATUS, "late": late, "banned": ["node2", "node4"]})
    assert told["late"] == "node1 (3.1 s, expected within 0.2 s), node2 (90.0 s, expected within 1.0 s)"
    assert told["banned"] == "node2, node4"
