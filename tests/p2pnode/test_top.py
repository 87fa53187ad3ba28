"""The picture of many nodes: a row each, whatever becomes of one of them."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from p2pnode import top
from p2pnode.errors import ConfigError, P2PNodeError
from p2pnode.home import Home
from p2pnode.top import Watched, homes_of, pictures, show, table

SAID = {"what": "echo", "step": 3, "exchange": 0, "sub_round": 0, "seconds": 2.0}
MISSING = {"peer": "node2", "connected": True, "lacks": "bytes", "late": True, "said": SAID}
LATE = {"peer": "node2", "step": 3, "exchange": 0, "sub_round": 0, "seconds": 2.25, "deadline": 0.25, "said": SAID}
STATUS = {
    "name": "node0",
    "step": 3,
    "steps": 9,
    "steps_taken": 3,
    "seconds": 10.0,
    "loss": 0.5,
    "accuracy": None,
    "phase": "waiting",
    "phase_seconds": 2.0,
    "waiting": {"here": 2, "needed": 3, "deadline": 0.25, "missing": [MISSING]},
    "late": [LATE],
    "banned": ["node4"],
    "evidence": ["node4", "node5", "node6", "node7"],
    "peak_rss_mib": 120.4,
}


class Threads(ThreadPoolExecutor):
    """Whose work is done when it is asked for."""

    def submit(self, job, *arguments):
        future = super().submit(job, *arguments)
        future.exception()
        return future


def rows_of(tmp_path, *answers):
    """The row after each look, a second apart."""
    left = list(answers)

    def ask(home):
        told = left.pop(0)
        if isinstance(told, Exception):
            raise told
        return told

    node, rows = Watched(Home(tmp_path / "node0"), ask), []
    with Threads(1) as threads:
        node.look(threads, 100.0)
        for second in range(1, len(answers)):
            node.look(threads, 100.0 + second)
            rows.append(node.row(100.0 + second))
    return rows


def text(rows):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table(rows))
    return capture.get()


def test_a_row_tells_where_a_node_is_and_whom_it_waits_for(tmp_path):
    [row] = rows_of(tmp_path, STATUS, STATUS)
    assert (row["node"], row["silent"], row["step"], row["steps_per_second"]) == ("node0", 0.0, 3, None)
    assert (row["waits_for"], row["late"]) == ([MISSING], [LATE])
    shown = text([row])
    for word in ("3 / 9", "0.5000", "waiting 2.0 s", "node2: no bytes", "node2 2.2 s", "node4", "+1", "120"):
        assert word in shown, word


def test_steps_a_second_are_counted_by_the_nodes_clock_and_anew_after_a_restart(tmp_path):
    later, again = STATUS | {"seconds": 14.0, "steps_taken": 13}, STATUS | {"seconds": 1.0, "steps_taken": 13}
    more = again | {"seconds": 2.0, "steps_taken": 14}
    rows = rows_of(tmp_path, STATUS, later, again, more, more)
    assert [row["steps_per_second"] for row in rows] == [None, 2.5, None, 1.0]


def test_who_does_not_answer_keeps_its_row_and_says_for_how_long(tmp_path):
    failed = P2PNodeError("no answer")
    never, *_ = rows_of(tmp_path, failed, failed)
    assert never == {"node": "node0", "silent": None}
    assert "no answer yet" in text([never])
    rows = rows_of(tmp_path, STATUS, failed, failed, failed, failed)
    assert [row["silent"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1]["step"] == 3
    assert "no answer for 3 s" in text(rows[-1:])


def test_one_that_hangs_holds_up_no_other(tmp_path, monkeypatch):
    free = threading.Event()

    def ask(home, what, patience):
        if home.path.name == "node1":
            free.wait()
        return STATUS | {"name": home.path.name}

    monkeypatch.setattr(top, "ask", ask)
    looks = pictures([Home(tmp_path / "node0"), Home(tmp_path / "node1")], 0.01)
    try:
        rows = next(rows for rows in looks if rows[0]["silent"] is not None)
        assert rows[1] == {"node": "node1", "silent": None}
        free.set()
        assert next(rows for rows in looks if rows[1]["silent"] is not None)[1]["step"] == 3
    finally:
        free.set()


def test_one_picture_for_machines_is_a_line_and_none_without_an_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(top, "ask", lambda home, what, patience: STATUS)
    show([Home(tmp_path / "node0")], Console(), 0.05, once=True, as_json=True)
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["nodes"][0]["late"] == [LATE]
    show([Home(tmp_path / "node0")], Console(width=200), 0.05, once=False, as_json=False)
    assert "node2: no bytes" in capsys.readouterr().out, "where no terminal is, one picture"

    monkeypatch.undo()
    with pytest.raises(P2PNodeError, match="start one with `p2pnode run HOME`"):
        show([Home(tmp_path / "node0")], Console(), 0.05, once=True, as_json=True)


@pytest.mark.parametrize("as_json", [True, False])
def test_ctrl_c_ends_it_well(tmp_path, monkeypatch, as_json):
    def two(homes, every):
        yield [{"node": "node0", "silent": None}]
        raise KeyboardInterrupt

    monkeypatch.setattr(top, "pictures", two)
    show([Home(tmp_path)], Console(force_terminal=True), 0.05, once=False, as_json=as_json)


def test_homes_are_named_one_by_one_or_by_the_folder_of_a_testnet_in_the_order_of_their_numbers(tmp_path):
    for name in ("node10", "node2", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "node.toml").touch()
    (tmp_path / "summary").mkdir()
    assert [home.path.name for home in homes_of([tmp_path])] == ["node2", "node10", "other"]
    assert [home.path.name for home in homes_of([tmp_path / "other", tmp_path / "node2"])] == ["other", "node2"]
    with pytest.raises(ConfigError, match=f"{tmp_path / 'summary'}: neither a home nor .*Remedy: "):
        homes_of([tmp_path, tmp_path / "summary"])
