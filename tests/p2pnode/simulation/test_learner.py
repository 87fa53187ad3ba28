"""What simulated nodes learn: chance that a seed fixes, or exactly what a trainer does."""

import numpy as np
import pytest
import torch

from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.local import Mixer
from p2pnode.learning.partition import partition
from p2pnode.learning.task import build
from p2pnode.learning.trainer import Trainer
from p2pnode.recipe import choose
from p2pnode.simulation.learner import LENGTH, Chance, Machine, School
from p2pnode.simulation.scenario import schooling
from protocols.committee import Committee

SEED, NODE, NODES = 3, 1, 4
STEPS = 3


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def chance(seed, process, recipe="trimmed"):
    return Chance(seed, process, choose(recipe, Committee(4, 0)), 0, Mixer())


def drawn(seed, process, steps=STEPS):
    learner = chance(seed, process)
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
    model = chance(1, 2).descend(0, direction)
    assert model.dtype == np.float32
    assert np.array_equal(model, chance(1, 2).train(0) - direction)


def test_chance_differentiates_at_a_model_and_mixes_by_the_rule():
    learner = chance(1, 2, "guanyu")
    model = np.array([5, 6, 7], np.float32)
    assert np.array_equal(learner.differentiate(0, model), chance(1, 2).train(0) - model)
    rows = [np.full(LENGTH, value, np.float32) for value in (0, 1, 5)]
    assert learner.mix(0, 0, rows, 0)[0].tolist() == [1.0] * LENGTH


def test_chance_has_nothing_to_restore():
    learner = chance(1, 2)
    learner.adopt(0, learner.train(0))
    assert learner.state() is None
    learner.restore(None)


# Training.


def school(recipe="trimmed"):
    plan = choose(recipe, Committee(NODES, 0))
    return School(schooling("digits", recipe, STEPS), plan, SEED, NODES, 0, Mixer(), Machine())


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
