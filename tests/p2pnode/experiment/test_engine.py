"""Trials side by side: whatever happens to one of them, or to the experiment, what is finished is kept and counts."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest

from p2pnode.experiment import summary
from p2pnode.experiment.engine import Began, Ended, Stepped, attempt, conduct, local
from p2pnode.experiment.store import Store
from tests.trials import RULES, dying, experiment, failing, learned, stuck_after_three, telling_its_threads

ROOT = Path(__file__).parents[3]
MISHAPS = """
name = "x"
[base]
nodes = 13
byzantine = 2
steps = 20
[grid]
attack = ["random", "sign-flip", "zero", "alie", "none"]
seed = [1]
"""


def in_process(trials, perform, workers):
    """An engine without processes."""
    for index, trial in enumerate(trials):
        yield Began(index)
        yield attempt(index, trial, perform, lambda report: None)


def run(asked, folder, engine=in_process, watch=lambda trials, event: None, perform=learned):
    with Store(folder) as store:
        conduct(asked, store, engine, watch, 2, perform)
        return summary.machine(asked, summary.rows(asked, store.records))


def test_all_trials_are_run_each_with_one_thread_and_said_of(tmp_path):
    asked = experiment(tmp_path)
    events = list(local(asked.trials, telling_its_threads, 2))
    for index in range(len(asked.trials)):
        own = [event for event in events if event.index == index]
        assert isinstance(own[0], Began)
        assert isinstance(own[-1], Ended)
        assert own[-1].outcome == replace(learned(asked.trials[index]), deliveries=1)
        assert all(isinstance(event, Stepped) and event.steps == 20 for event in own[1:-1])
    assert any(isinstance(event, Stepped) for event in events)


def test_a_trial_that_fails_or_takes_its_worker_along_costs_itself_alone(tmp_path):
    told = run(experiment(tmp_path, MISHAPS), tmp_path / "out", local, perform=dying)
    errors = {cell["attack"]: cell["errors"].get("1") for cell in told["cells"]}
    assert "the outcome is none" in errors.pop("alie")
    assert errors == {
        "sign-flip": "ValueError: lost the way",
        "random": "the worker died (SIGKILL)",
        "zero": "the worker died (exit code 3)",
        "none": None,
    }
    with Store(tmp_path / "out") as store:
        assert len(store.records) == told["trials"]
        assert any("Traceback" in (record.error or "") for record in store.records.values())


def test_an_interrupted_experiment_goes_on_to_the_very_same_table(tmp_path):
    asked = experiment(tmp_path)
    whole = run(asked, tmp_path / "whole")
    ended = []

    def interrupt(trials, event):
        ended.append(event)
        if sum(isinstance(event, Ended) for event in ended) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(asked, tmp_path / "cut", watch=interrupt)
    again = []
    assert run(asked, tmp_path / "cut", watch=lambda trials, event: again.append(event)) == whole
    assert sum(isinstance(event, Ended) for event in again) == len(asked.trials) - 5


def test_an_experiment_that_is_killed_goes_on_to_the_very_same_table(tmp_path):
    """Its last line may be cut anywhere; its workers end with it."""
    asked = experiment(tmp_path)
    script = (
        "import sys; from pathlib import Path; from tests.trials import *\n"
        "from p2pnode.experiment.engine import *; from p2pnode.experiment.store import Store\n"
        "def watch(trials, event):\n"
        "    if isinstance(event, Ended): print('ended', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    folder = Path(sys.argv[1])\n"
        "    with Store(folder / 'cut') as store:\n"
        "        conduct(read(folder / 'x.toml'), store, local, watch, 1, stuck_after_three)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BEGUN": str(tmp_path / "begun")}
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, env=environment
    ) as runner:
        assert [runner.stdout.readline() for _ in range(3)] == ["ended\n"] * 3
        runner.send_signal(signal.SIGKILL)
        assert runner.communicate(timeout=60)[0] == "", (
            "the file ends once the workers, who hold it open too, have ended"
        )
    results = tmp_path / "cut" / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-1])
    again = []
    told = run(asked, tmp_path / "cut", watch=lambda trials, event: again.append(event))
    assert told == run(asked, tmp_path / "whole")
    assert sum(isinstance(event, Ended) for event in again) == len(asked.trials) - 2


def test_failed_trials_are_tried_again_and_finished_ones_are_not(tmp_path):
    asked = experiment(tmp_path)
    run(asked, tmp_path / "out", perform=failing)
    again = []
    run(asked, tmp_path / "out", watch=lambda trials, event: again.append(trials[event.index].attack))
    assert set(again) == {("sign-flip",), ("alie",)}
    assert run(asked, tmp_path / "out", watch=None) == run(asked, tmp_path / "whole")


def test_a_changed_file_runs_only_what_is_new(tmp_path):
    run(experiment(tmp_path), tmp_path / "out")
    more = experiment(tmp_path, RULES.replace('"median",', '"median", "krum",').replace("seed = [1, 2]", "seed = [2]"))
    new = set()
    run(
        more,
        tmp_path / "out",
        watch=lambda trials, event: new.add((trials[event.index].rule, trials[event.index].seed)),
    )
    assert new == {("krum", 2)}


def test_an_engine_that_is_closed_ends_its_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("BEGUN", str(tmp_path / "begun"))
    (tmp_path / "begun").write_text("xxx")
    events = local(experiment(tmp_path).trials, stuck_after_three, 2)
    assert [next(events), next(events)] == [Began(0), Began(1)]
    assert len(active_children()) == 2
    events.close()
    assert active_children() == []
