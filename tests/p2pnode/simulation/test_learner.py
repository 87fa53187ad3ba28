"""What simulated nodes learn: chance that a seed fixes, or exactly what a trainer does."""

import numpy as np
import pytest
import torch

from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.local import mix_gathered
from p2pnode.learning.partition import partition
from p2pnode.learning.task import build
from p2pnode.learning.trainer import Trainer
from p2pnode.recipe import choose
from p2pnode.simulation.learner import LENGTH, MIXTURES_MAX, Chance, Machine, School, SharedMixer
from p2pnode.simulation.scenario import schooling
from protocols.committee import Committee

SEED, NODE, NODES = 3, 1, 4
STEPS = 3


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def chance(seed, process, recipe="trimmed"):
    return Chance(seed, process, choose(recipe, Committee(4, 0)), 0, mix_gathered)


def drawn(seed, process, steps=STEPS):
    learner = chance(seed, process)
    return np.stack([learner.train(step) for step in range(steps)])


# Mixing for all.


def vectors(count, seed=0):
    return list(np.random.default_rng(seed).standard_normal((count, LENGTH)).astype(np.float32))


def test_what_was_gathered_alike_is_mixed_once_and_as_each_node_would():
    mixer, rows = SharedMixer(), vectors(6)
    first = mixer("multi-krum", rows, 1, 0, None, pytest.fail)
    assert mixer("multi-krum", list(rows), 1, 3, None, pytest.fail)[0] is first[0]
    plain, kept = mix_gathered("multi-krum", rows, 1, 0, None, pytest.fail)
    assert np.array_equal(first[0], plain)
    assert first[1] == kept


@pytest.mark.parametrize(
    "other",
    [
        {"rule": "trimmed-mean"},
        {"f": 0},
        {"seed": 1},
        {"own": None},
        {"rows": vectors(7)},
        {"rows": [row.copy() for row in vectors(7)][::-1]},
    ],
    ids=str,
)
def test_whatever_differs_is_mixed_anew(other):
    mixer, asked = SharedMixer(), {"rule": "bucketing+median", "rows": vectors(7), "f": 1, "own": 0, "seed": 0}
    before = mixer(centre=None, warn=pytest.fail, **asked)
    after = mixer(centre=None, warn=pytest.fail, **asked | other)
    assert after[0] is not before[0]
    assert np.array_equal(after[0], mix_gathered(centre=None, warn=pytest.fail, **asked | other)[0])


def test_rules_that_begin_at_ones_own_are_not_shared():
    mixer, rows, centre = SharedMixer(), vectors(7), torch.zeros(LENGTH)
    mine, its = (mixer("nearest-neighbour", rows, 3, own, None, pytest.fail)[0] for own in (0, 1))
    assert not np.array_equal(mine, its)
    near, far = (mixer("comparative-elimination", rows, 3, 0, at, pytest.fail)[1] for at in (centre, centre + 100))
    assert near != far


def test_a_mixture_that_is_not_finite_is_each_nodes_own_vector():
    mixer, rows, told = SharedMixer(), vectors(4), []
    for row in rows[2:]:
        row[:] = np.nan
    for own in (0, 1):
        assert np.array_equal(mixer("median", rows, 1, own, None, told.append)[0], rows[own])
    assert len(told) == 2


def test_no_more_mixtures_are_remembered_than_named():
    mixer = SharedMixer()
    for seed in range(3 * MIXTURES_MAX):
        mixer("median", vectors(4, seed), 1, 0, None, pytest.fail)
    assert len(mixer._made) == MIXTURES_MAX


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
    return School(schooling("digits", recipe, STEPS), plan, SEED, NODES, 0, mix_gathered, Machine())


def training(recipe="trimmed"):
    return school(recipe).learner(NODE)


def trainer(momentum, *, grows):
    task, defaults = build("digits", None), TASKS["digits"]
    part = partition(task.data.train_y, NODE, NODES, SEED, None)
    options = (defaults.local_batch, momentum, defaults.lr, defaults.lr_decay_every, "cpu")
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
