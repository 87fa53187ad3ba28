import json

import pytest
from typer.testing import CliRunner

from p2pnode.bench import silence
from p2pnode.bench.app import app
from p2pnode.bench.silence import ABSENT, MUTE, NOBODY


def test_networks_whose_silent_peers_are_mute_or_absent_take_all_their_steps():
    result = CliRunner().invoke(app, ["silence", "--quick", "--steps", "3", "--json"], catch_exceptions=False)
    rows = {row["silent"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert list(rows) == [NOBODY, MUTE, ABSENT]
    assert rows[NOBODY]["ratio"] == 1
    for row in rows.values():
        assert (row["n"], row["f"], row["task"]) == (5, 1, "digits")
        assert row["ratio"] * row["steps_per_second"] == pytest.approx(rows[NOBODY]["steps_per_second"])


def test_people_get_a_table(monkeypatch):
    monkeypatch.setattr(silence, "measure", lambda *_: [silence.Row(9, 2, MUTE, "digits", 4.0, 1.05)])
    out = CliRunner().invoke(app, ["silence"], catch_exceptions=False).stdout
    for told in ("trimmed on digits", "mute", "4.00", "1.05"):
        assert told in out
