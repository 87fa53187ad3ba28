"""Experiments: what they end in, and how they go on."""

import json
from functools import partial

import pytest

from p2pnode.experiment import engine
from tests import trials


@pytest.fixture
def learned(monkeypatch):
    """Trials that need no training."""
    conduct = engine.conduct
    monkeypatch.setattr(engine, "conduct", partial(conduct, perform=trials.learned))


def test_an_experiment_ends_in_a_table_and_plots(call, learned, tmp_path):
    (tmp_path / "x.toml").write_text(trials.RULES)
    code, out, err = call("experiment", tmp_path / "x.toml", "--out", tmp_path / "out", "--workers", 2)
    assert code == 0, err
    for part in ("rules", "trimmed-mean", "sign-flip", "reference: recipe dsgd", "results.jsonl", "heatmap.png"):
        assert part in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.jsonl", "heatmap.png", "curves.png"}


def test_an_experiment_tells_machines_all(call, learned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").write_text(trials.RULES)
    code, out, _ = call("experiment", "x.toml", "--json")
    told = json.loads(out)
    assert (code, told["name"], told["trials"], told["failed"], len(told["cells"])) == (0, "rules", 14, 0, 7)
    assert told["plots"] == ["runs/rules/heatmap.png", "runs/rules/curves.png"]


def test_an_experiment_in_which_a_trial_failed_exits_1(call, monkeypatch, tmp_path):
    (tmp_path / "x.toml").write_text(trials.RULES)
    monkeypatch.setattr(engine, "conduct", partial(engine.conduct, perform=trials.failing))
    code, out, _ = call("experiment", tmp_path / "x.toml", "--out", tmp_path / "out")
    assert code == 1
    assert "rule median, attack sign-flip, seed 1: ValueError: lost the way" in out


def test_an_interrupted_experiment_says_how_to_go_on(call, monkeypatch, tmp_path):
    (tmp_path / "x.toml").write_text(trials.RULES)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "conduct", interrupted)
    code, out, err = call("experiment", tmp_path / "x.toml", "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert "interrupted" in err
    assert "the same command goes on" in err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["experiment", "gone.toml"], ["gone.toml: No such file", "name an experiment file"]),
        (["experiment", "x.toml", "--engine", "spark"], ["engine = 'spark'", "local, ray"]),
    ],
)
def test_a_wrong_experiment_is_refused(call, monkeypatch, tmp_path, arguments, wanted):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").write_text(trials.RULES)
    code, _, err = call(*arguments)
    assert code == 2
    assert err.startswith("refused ")
    for part in [*wanted, "Remedy: "]:
        assert part in err
    assert not (tmp_path / "runs").exists()
