"""A trial trains a whole network, and its outcome is a function of the trial; real nodes come to the same models."""

import asyncio
import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from p2pnode.driver import Driver
from p2pnode.errors import ConfigError
from p2pnode.simulation import learner
from p2pnode.simulation import trial as trying
from p2pnode.simulation.learner import Machine
from p2pnode.simulation.network import Network
from p2pnode.simulation.trial import Trial, perform
from tests.loopback import LogBook, found_network

NODES, STEPS = 6, 8
MONNA = Trial("digits", "monna", NODES, 1, 1, ("sign-flip",), steps=STEPS, evaluate_every=3, evaluate_samples=100)

ROUNDING = 1e-5
"""Between real and simulated models, relative to the largest weight: gradients in a batch are summed otherwise."""


class Judges:
    """The only number of a model is its accuracy."""

    def evaluate(self, models, limit):
        assert limit == MONNA.evaluate_samples
        return [SimpleNamespace(accuracy=model.item()) for model in models]


def without_time(outcome):
    return replace(outcome, seconds=0.0)


def test_an_outcome_tells_how_good_the_honest_models_are_and_how_far_apart():
    outcome = perform(MONNA)
    assert list(outcome.accuracies) == ["node0", "node1", "node2", "node3", "node4"]
    assert outcome.mean == pytest.approx(sum(outcome.accuracies.values()) / 5)
    assert 0.2 < outcome.worst == min(outcome.accuracies.values()) < outcome.mean < 1
    assert 0 < outcome.honest_diameter < 10
    assert outcome.violations is None
    assert outcome.deliveries > STEPS * NODES**2
    assert json.loads(json.dumps(asdict(outcome)))["curve"] == [list(point) for point in outcome.curve]


def test_what_all_nodes_gathered_is_mixed_once_for_them_though_each_liar_made_its_lie_itself(monkeypatch):
    mixed = []
    monkeypatch.setattr(learner, "mix_gathered", lambda rule, rows, *rest: mixed.append(rows) or (rows[0], (0,)))
    everyone = {"options": {"gather": "all"}, "beyond_the_bound": True}
    trial = replace(MONNA, recipe="distributed-momentum", attack=("zero",), nodes=12, byzantine=4, f=4, **everyone)
    perform(replace(trial, steps=4, evaluate_every=0))
    # Of its own lie a liar holds the array it made, so two or three of them mix for themselves; left to chance, whose
    # array each node holds, there were 16.
    assert len(mixed) <= 12


def test_the_curve_is_of_the_models_that_honest_nodes_adopt_on_the_way():
    curve = perform(MONNA).curve
    assert [steps for steps, _, _ in curve] == [3, 6]
    assert all(worst <= mean for _, mean, worst in curve)
    shorter = perform(replace(MONNA, steps=6, evaluate_samples=None))
    assert shorter.curve[-1] == (6, shorter.mean, shorter.worst)
    assert perform(replace(MONNA, evaluate_every=0)).curve == []


def test_who_was_left_behind_is_missing_from_a_point_which_is_in_its_place():
    curve = trying._Curve(replace(MONNA, evaluate_every=1), Judges(), 2, None)
    for member, steps, worth in ((0, 1, 0.25), (0, 2, 0.5), (0, 3, 0.75), (1, 1, 0.5), (1, 3, 0.25)):
        curve.adopted(member, steps, np.array([worth], np.float32))
    curve.adopted(0, 4, np.array([1], np.float32))
    expected = [(1, 0.375, 0.25), (2, 0.5, 0.5), (3, 0.5, 0.25)]
    assert curve._points == expected  # as soon as all are there, so that no models wait
    assert curve.points() == [*expected, (4, 1.0, 1.0)]


def test_progress_is_the_slowest_honest_nodes():
    told = []
    perform(MONNA, lambda *steps: told.append(steps))
    assert told == [(taken, STEPS) for taken in range(1, STEPS + 1)]


def test_a_trial_has_one_outcome_whatever_the_threads():
    threads = torch.get_num_threads()
    try:
        outcomes = []
        for count in (1, 3):
            torch.set_num_threads(count)
            outcomes.append(perform(MONNA))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert without_time(outcomes[0]) == without_time(outcomes[1])
    assert without_time(perform(replace(MONNA, seed=1))) != without_time(outcomes[0])


@pytest.mark.parametrize(
    "other", [{"alpha": 0.1}, {"local_batch": 8}, {"momentum": 0.5}, {"lr": 0.1}, {"lr_decay_every": 1}, {"attack": ()}]
)
def test_every_setting_matters(other):
    assert perform(replace(MONNA, steps=3, **other)).accuracies != perform(replace(MONNA, steps=3)).accuracies


def test_without_an_attack_all_are_honest():
    assert len(perform(replace(MONNA, attack=(), steps=1)).accuracies) == NODES


def test_a_guarantee_that_does_not_hold_is_told(monkeypatch):
    honest = trying.Network.run

    def broken(self):
        honest(self)
        raise trying.Violation("agreement", "made up")

    monkeypatch.setattr(trying.Network, "run", broken)
    outcome = perform(replace(MONNA, steps=1))
    assert outcome.violations == "agreement: made up"
    assert len(outcome.accuracies) == 5


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        ({"task": "digit"}, "task = 'digit'"),
        ({"nodes": 5}, "n ≥ 5f+1"),
        ({"attack": ("sing-flip",)}, "did you mean 'sign-flip'?"),
        ({"schedule": "storm"}, "schedule = 'storm'"),
        ({"lr": -1.0}, "lr = '-1.0'"),
        ({"task": "mnist"}, "data_dir"),
    ],
)
def test_a_wrong_trial_is_refused(wrong, wanted):
    with pytest.raises(ConfigError) as refused:
        perform(replace(MONNA, **wrong))
    assert wanted in str(refused.value)


# Real nodes.


async def _run(drivers):
    async with asyncio.timeout(60):
        await asyncio.gather(*(driver.run() for driver in drivers))


@pytest.mark.parametrize(
    ("batched", "options"),
    [(True, {}), (False, {}), (False, {"wire": "bfloat16"}), (False, {"wire": "float16", "staleness": 1})],
)
def test_simulated_nodes_learn_what_real_ones_learn_with_the_same_seed(tmp_path, monkeypatch, batched, options):
    genesis, homes = found_network(tmp_path, 3, steps=4, recipe={"name": "dsgd", **options}, data_dir=None)
    asyncio.run(_run([Driver(home, LogBook()) for home in homes]))
    training = genesis.training
    if not batched:
        monkeypatch.setattr("p2pnode.learning.cohort.BATCHED_PARAMETERS_MAX", 0)
    given = {"local_batch": 16, "momentum": 0.9, "lr": 0.5, "options": options}
    trial = Trial("digits", "dsgd", 3, 0, 0, steps=4, seed=genesis.seed, **given)
    assert trial.sweep().train == training
    network = Network(trial.sweep().scenario(genesis.seed), genesis.seed, machine=Machine(workers=2))
    network.run()
    for home, model in zip(homes, network.models().values(), strict=True):
        real = load_file(home.checkpoint)["model"]
        assert np.abs(real).max() > 0.1
        if batched:
            assert np.abs(model.numpy() - real).max() <= ROUNDING * np.abs(real).max()
        else:
            assert np.array_equal(model.numpy(), real)
