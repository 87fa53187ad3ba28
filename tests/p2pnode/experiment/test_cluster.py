"""The engine on Ray: the same events and outcomes as in processes; what is missing is said."""

import sys

import pytest

from p2pnode.errors import ConfigError
from p2pnode.experiment.cluster import on_ray
from p2pnode.experiment.engine import Began, Ended, Stepped
from tests.trials import RULES, dying, experiment, learned, telling_its_threads

FEW = RULES.replace('"median", ', "").replace("[1, 2]", "[1]")


@pytest.fixture
def ray(monkeypatch):
    """Ray, if it is installed: it is optional."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return pytest.importorskip("ray")


def test_without_ray_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray is not installed. Remedy: install p2pnode\[ray\], or .*local"):
        next(on_ray(experiment(tmp_path).trials, learned))


def test_a_cluster_that_does_not_answer_is_told(tmp_path, ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "nonsense://")
    with pytest.raises(ConfigError, match=r"(?s)Ray does not start: .*Remedy: set RAY_ADDRESS"):
        next(on_ray(experiment(tmp_path).trials, learned))


def test_all_trials_are_run_and_said_of(tmp_path, ray):
    trials = experiment(tmp_path, FEW).trials
    events = list(on_ray(trials, learned, 2))
    for index, trial in enumerate(trials):
        own = [event for event in events if event.index == index]
        assert isinstance(own[0], Began)
        assert own[-1] == Ended(index, learned(trial), None)
        assert own[1:-1] == [Stepped(index, 1, 20)]
    assert not ray.is_initialized()


def test_a_mishap_costs_its_trial_alone(tmp_path, ray):
    trials = experiment(tmp_path, FEW.replace("alie", "random")).trials
    errors = {trials[event.index].attack: event.error for event in on_ray(trials, dying, 2) if type(event) is Ended}
    assert len(errors) == 3
    assert errors[()] is None
    assert errors["sign-flip",].startswith("ValueError: lost the way")
    assert errors["random",].startswith("the worker died")


def test_each_task_has_one_thread(tmp_path, ray):
    (trial,) = experiment(tmp_path, 'name = "x"').trials
    *_, ended = on_ray([trial], telling_its_threads, 1)
    assert ended.outcome.deliveries == 1
