"""What simulated nodes learn: chance that a seed fixes, or exactly what a trainer does."""

import numpy as np
import pytest
import torch

from p2pnode.aggregation import aggregate
from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.partition import partition
from p2pnode.learning.task import build
from p2pnode.learning.trainer import Trainer
from p2pnode.recipe import choose
from p2pnode.simulation.learner import LENGTH, Chance, Machine, Mixtures, School
from p2pnode.simulation.scenario import schooling
from protocols.committee import Committee

SEED, NODE, NODES = 3, 1, 4
STEPS = 3


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def drawn(seed, process, steps=STEPS):
    learner = Chance(seed, process)
    return np.stack([learner.train(step) for step in range(steps)])


# Chance.


def test_chance_is_a_function_of_seed_and_process():
    assert np.array_equal(drawn(1, 2), drawn(1, 2))
    assert not np.array_equal(drawn(1, 2, 20), drawn(1, 3, 20))
    assert len({drawn(seed, 2, 20).tobytes() for seed in range(20)}) == 20
    assert not np.array_equal(*drawn(1, 2, 40).reshape(2, 20, LENGTH))


def test_all_processes_of_a_run_draw_from_the_cube_or_all_from_its_corners():
    kinds = []
    for seed in range(20):
        draws = [drawn(seed, process, 10) for process in range(3)]
        assert all(vectors.dtype == np.float32 and vectors.shape == (10, LENGTH) for vectors in draws)
        assert all(((vectors >= 0) & (vectors <= 1)).all() for vectors in draws)
        corners = {bool(np.isin(vectors, (0, 1)).all()) for vectors in draws}
        assert len(corners) == 1
        kinds += corners
    assert set(kinds) == {True, False}


def test_a_way_along_a_direction_of_chance_is_a_vector_less_the_direction():
    direction = np.array([5, 6, 7], np.float32)
    model = Chance(1, 2).descend(0, direction)
    assert model.dtype == np.float32
    assert np.array_equal(model, Chance(1, 2).train(0) - direction)


def test_chance_has_nothing_to_restore():
    learner = Chance(1, 2)
    learner.adopt(0, learner.train(0))
    assert learner.state() is None
    learner.restore(None)


# Training.


def school(recipe="trimmed"):
    plan = choose(recipe, Committee(NODES, 0))
    return School(schooling("digits", recipe, STEPS), plan, SEED, NODES, Machine())


def training(recipe="trimmed"):
    return school(recipe).learner(NODE)


def trainer(momentum, *, grows):
    task, defaults = build("digits", None), TASKS["digits"]
    part = partition(task.data.train_y, NODE, NODES, SEED, None)
    options = (defaults.local_batch, momentum, defaults.lr, defaults.lr_decay_every)
    return Trainer(task, part, SEED, NODE, *options, batch_grows=grows)


def test_models_are_trained_as_a_trainer_driven_by_hand_does():
    learner, by_hand = training(), trainer(TASKS["digits"].momentum, grows=False)
    assert learner.length == len(by_hand.vector)
    for step in range(STEPS):
        vector, expected = learner.train(step), by_hand.step(step)
        assert np.array_equal(vector, expected.numpy())
        learner.adopt(step, vector)
        by_hand.adopt(expected)


def test_gradients_are_trained_as_a_trainer_driven_by_hand_does():
    learner, by_hand = training("jungle-rb"), trainer(0.0, grows=True)
    for step in (0, 1, 40):
        direction, expected = learner.train(step), by_hand.direction(step)
        assert np.array_equal(direction, expected.numpy())
        model, after = learner.descend(step, direction), by_hand.descend(step, expected)
        assert np.array_equal(model, after.numpy())
        learner.adopt(step, model)
        by_hand.adopt(after)


def test_after_a_restart_the_steps_come_out_as_they_did():
    learner = training()
    learner.adopt(0, learner.train(0))
    kept = learner.state()
    first = learner.train(1)
    learner.adopt(1, first)
    learner.train(2)
    learner.restore(kept)
    assert np.array_equal(learner.train(1), first)


def test_an_update_that_is_not_finite_is_discarded():
    for recipe, nothing in (("trimmed", lambda model: model), ("jungle-rb", np.zeros_like)):
        learner = training(recipe)
        model = np.full(learner.length, 3e38, np.float32)
        learner.adopt(0, model)
        assert np.array_equal(learner.train(1), nothing(model))
        assert np.array_equal(learner.descend(1, np.full(learner.length, -np.inf, np.float32)), model)
        assert np.array_equal(learner.trainer.vector.numpy(), model)


# Mixtures.

ROWS = [np.array(row, np.float32) for row in ([0, 0], [1, 5], [2, 9], [90, 1])]


@pytest.mark.parametrize("rule", ["mean", "median", "trimmed-mean", "nearest-neighbour", "minimum-diameter"])
def test_a_mixture_is_by_the_rule(rule):
    stacked = torch.from_numpy(np.stack(ROWS))
    mixed = Mixtures().mixture(rule, ROWS, 1, 2)
    assert np.array_equal(mixed, aggregate(rule, stacked, f=1, own=2).numpy())
    assert mixed.dtype == np.float32


def test_nearest_neighbour_averaging_starts_from_ones_own_row():
    assert not np.array_equal(
        Mixtures().mixture("nearest-neighbour", ROWS, 1, 0), Mixtures().mixture("nearest-neighbour", ROWS, 1, 3)
    )


def test_without_ones_own_row_it_is_the_median():
    rows = ROWS[:3]
    assert np.array_equal(Mixtures().mixture("nearest-neighbour", rows, 1, None), [1, 5])


def test_a_mixture_that_is_not_finite_is_discarded_for_ones_own_row():
    huge = [np.full(2, value, np.float32) for value in (3e38, -3e38, 3.2e38, -3.1e38)]
    for own in range(4):
        assert np.array_equal(Mixtures().mixture("mean", huge, 0, own), huge[own])


def test_a_later_mixture_leaves_earlier_ones_as_they_are(monkeypatch):
    mixtures, later = Mixtures(), [row + 7 for row in ROWS]
    first = mixtures.mixture("mean", ROWS, 0, 0)
    kept = first.copy()
    mixtures.mixture("mean", later, 0, 0)
    assert np.array_equal(first, kept)
    # a rule may answer with one of the rows it was given
    monkeypatch.setattr("p2pnode.simulation.learner.aggregate", lambda rule, rows, f, own: rows[own])
    first = mixtures.mixture("mean", ROWS, 0, 1)
    mixtures.mixture("mean", later[:2], 0, 1)
    assert np.array_equal(first, ROWS[1])
