import json

import pytest
from typer.testing import CliRunner

from p2pnode.bench.app import app
from p2pnode.bench.rounds import QUICK_RUNS
from p2pnode.driver import PHASES


def test_real_networks_and_torch_take_their_turns():
    result = CliRunner().invoke(app, ["round", "--quick", "--steps", "3", "--json"], catch_exceptions=False)
    rows = {(row["recipe"], row["n"]): row for row in map(json.loads, result.stdout.splitlines())}
    assert list(rows) == list(QUICK_RUNS)
    plain = rows["dsgd", 5]
    assert plain["ratio_to_plain"] == 1
    for (recipe, _), row in rows.items():
        assert row["task"] == "digits"
        assert row["ratio_to_plain"] * row["steps_per_second"] == pytest.approx(plain["steps_per_second"])
        assert set(row["phases"]) == (set() if recipe == "ddp-gloo" else {*PHASES, "wire", "idle"})
    assert rows["trimmed", 5]["phases"]["signatures"] > 0
