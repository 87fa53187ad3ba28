"""What people see of an experiment, while it runs and after."""

import io

import pytest
from rich.console import Console

from p2pnode.experiment import show
from p2pnode.experiment.engine import Began, Ended, Stepped
from p2pnode.experiment.grid import key_of
from p2pnode.experiment.store import Record
from p2pnode.experiment.summary import rows
from tests.trials import RULES, experiment, learned


@pytest.fixture
def asked(tmp_path):
    return experiment(tmp_path, RULES + '[[also]]\nrecipe = "monna"\nattack = "alie"\n')


def printed(*things, width=80, terminal=False):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal)
    for thing in things:
        console.print(thing)
    return console.file.getvalue()


def records(asked, failed=()):
    return {
        key_of(trial): Record.of(trial, None, "ValueError: [no]\nTraceback")
        if trial.attack in failed
        else Record.of(trial, learned(trial), None)
        for trial in asked.trials
    }


def test_a_table_has_a_line_for_each_cell_within_a_narrow_terminal(asked):
    told = printed(show.table(asked, rows(asked, records(asked))))
    assert max(map(len, told.splitlines())) <= 80
    for row in rows(asked, records(asked)):
        first = row.cell.choices["rule"] if row.cell.kind == "grid" else row.cell.label.split(",")[0]
        line = f"{100 * row.mean.mean:.1f} ± {100 * row.mean.std:.1f}"
        assert any(first in text and line in text for text in told.splitlines())
    assert "reference: recipe dsgd" in told
    assert "failed" not in told


def test_failures_and_broken_guarantees_are_said(asked):
    found = rows(asked, records(asked, failed=[("sign-flip",)]))
    told = printed(show.table(asked, found))
    assert sum("2 failed" in line and "–" in line for line in told.splitlines()) == 2
    assert show.mishaps(found)[0] == "rule median, attack sign-flip, seed 1: ValueError: [no]"
    assert len(show.mishaps(found)) == 4


def test_of_very_many_mishaps_the_first_are_shown(asked):
    found = rows(asked, records(asked, failed=[(), ("alie",), ("sign-flip",)]))
    lines = show.mishaps(found)
    assert len(lines) == 11
    assert lines[-1] == f"and {sum(len(row.errors) for row in found) - 10} more"


def test_an_experiment_of_one_cell_has_a_table(tmp_path):
    asked = experiment(tmp_path, 'name = "x"')
    (row,) = rows(asked, records(asked))
    assert f"  1     {100 * row.mean.mean:.1f}  " in printed(show.table(asked, [row]))


def test_bars_show_all_steps_and_each_running_trial(asked):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    watch = show.Watch(console, asked, quiet=False)
    for event in (Began(0), Began(1), Stepped(0, 5, 20), Stepped(1, 7, 20)):
        watch.show(asked.trials, event)
    whole, first, second = watch._bars.tasks
    assert (whole.completed, whole.total) == (12, 20 * len(asked.trials))
    assert (first.completed, second.completed) == (5, 7)
    assert "rule median, attack none, seed 1" in first.description
    watch.show(asked.trials, Ended(0, learned(asked.trials[0]), None))
    watch.show(asked.trials, Ended(1, None, "no"))
    (whole,) = watch._bars.tasks
    assert whole.completed == 40
    assert f"2 of {len(asked.trials)} trials, 1 failed" in whole.description


def test_elsewhere_a_line_now_and_then(asked, monkeypatch):
    monkeypatch.setattr(show, "_LINE_EVERY_S", 0.0)
    console = Console(file=io.StringIO(), width=100)
    with show.Watch(console, asked, quiet=False) as watch:
        watch.show(asked.trials, Began(0))
        watch.show(asked.trials, Ended(0, learned(asked.trials[0]), None))
    assert console.file.getvalue().splitlines() == [
        "0 of 16 trials, 0% of all steps",
        "1 of 16 trials, 6% of all steps",
    ]
