"""What looking costs is told beside steps without it, and adds up."""

import json

import pytest
from typer.testing import CliRunner

from p2pnode.bench import observe
from p2pnode.bench.app import app
from p2pnode.bench.scale import Point


def test_a_real_node_s_steps_with_and_without_are_told_beside_each_other():
    result = CliRunner().invoke(app, ["observe", "--quick", "--json"], catch_exceptions=False)
    [row] = map(json.loads, result.stdout.splitlines())
    assert (row["n"], row["d"]) == (5, observe.QUICK_D)
    assert row["ratio"] == pytest.approx(row["on_ms"] / row["off_ms"])
    assert 0 < row["observe_ms"] < row["on_ms"]
    assert 0 < row["share"] < 1


def test_looking_is_told_by_step_and_of_the_runs_with_it_alone(monkeypatch):
    accounts = iter(
        {"tallies": [{"at": at} for at in (0.0, 1.0, 2.0 * step, 3.0 * step)], "phases": {"observe": looked}}
        for step, looked in [(1.1, 0.4), (1.0, 0.0)] * 2
    )

    async def played(point, steps, observe):
        assert steps == 200
        asked.append(observe)
        return next(accounts)

    asked = []
    monkeypatch.setattr(observe, "play", played)
    [row] = observe.measure([Point("signed-echo", 7, 10**5)], 2)
    assert asked == [observe.ON, 0.0] * 2
    assert (row.on_ms, row.off_ms) == (pytest.approx(1100), pytest.approx(1000))
    assert row.ratio == pytest.approx(1.1)
    assert row.observe_ms == pytest.approx(100)
    assert row.share == pytest.approx(0.1 / 1.1)
    monkeypatch.setattr(observe, "measure", lambda points, pairs: [row])
    shown = CliRunner().invoke(app, ["observe"], catch_exceptions=False).stdout
    assert "100,000" in shown
    assert "1.100" in shown
