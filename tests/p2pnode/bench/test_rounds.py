import json

import pytest
from typer.testing import CliRunner

from p2pnode.bench import rounds
from p2pnode.bench.app import app
from p2pnode.bench.rounds import QUICK_RUNS
from p2pnode.driver import PHASES


def test_real_networks_and_torch_take_their_turns():
    result = CliRunner().invoke(app, ["round", "--quick", "--steps", "3", "--json"], catch_exceptions=False)
    rows = {(row["recipe"], row["n"], row["vectors"]): row for row in map(json.loads, result.stdout.splitlines())}
    assert list(rows) == list(QUICK_RUNS)
    plain = rows["dsgd", 5, "tls"]
    assert plain["ratio_to_plain"] == 1
    for (recipe, *_), row in rows.items():
        assert row["task"] == "digits"
        assert row["steps_per_second"] == pytest.approx(plain["steps_per_second"] * row["ratio_to_plain"])
        assert set(row["phases"]) == (set() if recipe == "ddp-gloo" else {*PHASES, "wire", "idle"} - {"evaluation"})
    assert rows["trimmed", 5, "tls"]["phases"]["signatures"] > 0


def test_people_get_two_tables(monkeypatch):
    rows = [
        rounds.Row("dsgd", 5, "tls", "digits", 4.0, 1.0, {"mix": 0.05, "wire": 0.2}),
        rounds.Row("ddp-gloo", 5, "plain", "digits", 8.0, 2.0, {}),
    ]
    monkeypatch.setattr(rounds, "measure", lambda *_: rows)
    out = CliRunner().invoke(app, ["round"], catch_exceptions=False).stdout
    for told in ("digits, 4,810 parameters", "8.00", "2.00", "dsgd 5 tls", "200.0"):
        assert told in out
