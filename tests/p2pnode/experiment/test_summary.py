"""Results summed up: over the seeds of a cell, and against the reference seed by seed."""

from dataclasses import replace

import pytest

from p2pnode.experiment.grid import key_of
from p2pnode.experiment.store import Record
from p2pnode.experiment.summary import Spread, machine, rows
from tests.trials import experiment, learned

TEXT = """
name = "x"
[base]
nodes = 13
byzantine = 2
[grid]
attack = ["alie"]
seed = [1, 2, 3]
[reference]
recipe = "dsgd"
attack = "none"
"""


def records(asked, accuracy):
    """Records in which a trial has the accuracy (mean, worst) that `accuracy` of it says; None: it failed."""
    found = {}
    for trial in asked.trials:
        pair = accuracy(trial)
        outcome = None if pair is None else replace(learned(trial), mean=pair[0], worst=pair[1])
        found[key_of(trial)] = Record.of(trial, outcome, None if outcome else "ValueError: no\nTraceback")
    return found


@pytest.fixture
def asked(tmp_path):
    return experiment(tmp_path, TEXT)


def test_a_row_is_mean_and_sample_deviation_over_seeds(asked):
    attacked, reference = rows(asked, records(asked, lambda trial: (trial.seed / 10, trial.seed / 20)))
    assert attacked.mean == Spread(pytest.approx(0.2), pytest.approx(0.1))
    assert attacked.worst == Spread(pytest.approx(0.1), pytest.approx(0.05))
    assert reference.gap == Spread(0.0, 0.0)


def test_the_gap_is_taken_seed_by_seed(asked):
    """What a seed does to both runs is no part of it: here 1 point below for each seed, among seeds 30 points apart."""
    attacked, _ = rows(asked, records(asked, lambda trial: (trial.seed * 0.3 - 0.01 * bool(trial.attack), 0.0)))
    assert attacked.mean.std == pytest.approx(0.3)
    assert attacked.gap == Spread(pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))


@pytest.mark.parametrize("missing", [("alie",), ()])
def test_a_seed_that_only_one_of_the_two_has_does_not_count(asked, missing):
    def accuracy(trial):
        return (
            None if (trial.seed, trial.attack) == (2, missing) else (trial.seed / 10 + 0.05 * (not trial.attack), 0.0)
        )

    attacked, reference = rows(asked, records(asked, accuracy))
    assert attacked.gap == Spread(pytest.approx(5.0), pytest.approx(0.0, abs=1e-9))
    failed = attacked if missing else reference
    assert failed.errors == {2: "ValueError: no"}
    assert list(failed.results) == [1, 3]


def test_a_single_seed_has_no_deviation_and_no_result_no_number(asked):
    attacked, _ = rows(asked, records(asked, lambda trial: (0.5, 0.4) if trial.seed == 1 else None))
    assert attacked.mean == Spread(0.5, None)
    nothing, _ = rows(asked, {})
    assert (nothing.mean, nothing.worst, nothing.gap, nothing.errors) == (None, None, None, {})


def test_without_a_reference_there_is_no_gap(tmp_path):
    asked = experiment(tmp_path, TEXT.partition("[reference]")[0])
    (row,) = rows(asked, records(asked, lambda trial: (0.5, 0.4)))
    assert row.gap is None


def test_broken_guarantees_are_told_once_each(asked):
    found = records(asked, lambda trial: (0.5, 0.4))
    for key, record in found.items():
        broken = record.outcome.model_copy(update={"violations": "two delivered differently"})
        found[key] = record.model_copy(update={"outcome": broken})
    attacked, _ = rows(asked, found)
    assert attacked.violations == ("two delivered differently",)


def test_what_machines_are_told(asked):
    told = machine(asked, rows(asked, records(asked, lambda trial: (0.5, 0.4) if trial.seed < 3 else None)))
    assert (told["name"], told["trials"], told["failed"]) == ("x", 6, 2)
    assert told["cells"][0] == {
        "kind": "grid",
        "attack": "alie",
        "seeds": [1, 2],
        "mean": {"mean": 0.5, "std": 0.0},
        "worst": {"mean": 0.4, "std": 0.0},
        "gap_points": {"mean": 0.0, "std": 0.0},
        "seconds": 3.0,
        "violations": [],
        "errors": {"3": "ValueError: no"},
    }
    assert told["cells"][1]["recipe"] == "dsgd"
