"""A node's own part of a step: the trainer's numbers and the rule's, and where they are not finite no change."""

import gc
import weakref

import numpy as np
import pytest
import torch

from p2pnode.aggregation import aggregate, dispatch
from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.local import LocalWork, mix_gathered
from p2pnode.learning.task import build
from p2pnode.learning.trainer import Trainer
from p2pnode.learning.wire import narrow, widen
from p2pnode.recipe import choose
from protocols.committee import Committee
from protocols.header import BFLOAT16, FLOAT16

ROWS = [np.array(row, np.float32) for row in ([0, 0], [1, 5], [2, 9], [90, 1])]


def work(recipe, nodes=7, **options):
    """One node's local work on digits, its trainer, and what it is told to discard."""
    plan = choose(recipe, Committee(nodes, 1), **options)
    settings, task, discarded = TASKS["digits"], build("digits", None), []
    trainer = Trainer(
        task,
        task.part(1, nodes, 3, None),
        3,
        1,
        settings.local_batch,
        settings.momentum,
        settings.lr,
        0,
        "cpu",
        local_steps=plan.local_steps,
        placement=plan.placement,
    )
    return LocalWork(trainer, plan, 1, lambda *what: discarded.append(what[:2]), mix_gathered), trainer, discarded


def test_the_first_value_is_what_the_first_exchange_is_about():
    models, trainer, _ = work("trimmed")
    assert np.array_equal(models.train(0), trainer.step(0).numpy())
    gradients, trainer, _ = work("resam")
    assert np.array_equal(gradients.train(0), trainer.direction(0).numpy())
    parameters, trainer, _ = work("guanyu")
    assert np.array_equal(parameters.train(0), trainer.vector.numpy())
    at = trainer.step(4)
    assert np.array_equal(parameters.differentiate(0, at.numpy()), trainer.direction(0, at).numpy())
    assert np.array_equal(parameters.descend(0, at.numpy()), trainer.descend(0, at).numpy())


def test_what_is_not_finite_changes_nothing_and_is_told():
    nowhere = np.full(4_810, np.inf, np.float32)
    models, trainer, discarded = work("trimmed")
    trainer.adopt(torch.full((4_810,), 3e38))
    assert np.array_equal(models.train(0), trainer.vector.numpy())
    assert np.array_equal(models.descend(1, nowhere), trainer.vector.numpy())
    gradients, trainer, also = work("guanyu")
    assert not gradients.differentiate(2, np.full(4_810, 3e38, np.float32)).any()
    assert discarded + also == [("update", 0), ("update", 1), ("update", 2)]


def test_a_rule_around_a_centre_measures_from_the_model_at_which_the_round_began():
    local, trainer, _ = work("ce")
    start = trainer.vector.numpy()
    rows = [start + np.float32(size) for size in (0.1, 0.2, 0.3, 5.0, 0.15, 0.12)]
    mixed, kept = local.mix(0, 0, rows, 0)
    assert kept == (0, 1, 2, 4, 5)
    assert np.allclose(mixed, np.mean([rows[row] for row in kept], axis=0), atol=1e-6)


def test_a_gradient_that_was_foreseen_is_taken_at_what_was_announced():
    local, trainer, _ = work("trimmed")
    announced = narrow(trainer.step(0).numpy(), BFLOAT16)
    local.foresee(1, announced)
    foreseen = local.train(1)
    trainer.foresee(1, torch.from_numpy(widen(announced)))
    assert np.array_equal(foreseen, trainer.step(1).numpy())
    assert not np.array_equal(foreseen, trainer.step(1).numpy()), "the second time it is taken at the model"


# Mixtures.


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_a_mixture_is_of_the_numbers_that_were_announced(dtype):
    rows = [narrow(row, dtype) for row in ROWS]
    mixed, _ = mix_gathered("mean", rows, 0, 0, None, pytest.fail)
    assert mixed.tolist() == [23.25, 3.75]
    assert mixed.dtype == np.float32
    nowhere = [narrow(np.array([value], np.float32), dtype) for value in (1, np.nan, np.nan, 2)]
    assert mix_gathered("median", nowhere, 1, 3, None, lambda _: None)[0].tolist() == [2.0]


@pytest.mark.parametrize("rule", ["mean", "median", "trimmed-mean", "nearest-neighbour", "minimum-diameter"])
def test_a_mixture_is_by_the_rule(rule):
    stacked = torch.from_numpy(np.stack(ROWS))
    mixed, kept = mix_gathered(rule, ROWS, 1, 2, None, pytest.fail)
    assert np.array_equal(mixed, aggregate(rule, stacked, f=1, own=2).numpy())
    assert mixed.dtype == np.float32
    assert set(kept) <= set(range(4))


def test_where_ones_own_row_is_lost_the_median_is_taken():
    assert mix_gathered("nearest-neighbour", ROWS, 1, None, None, pytest.fail)[0].tolist() == [1.5, 3]


def test_where_a_mixture_is_not_finite_ones_own_row_is_kept_and_it_is_told():
    told = []
    rows = [np.array([value], np.float32) for value in (1, np.nan, np.nan, 2)]
    mixed, kept = mix_gathered("median", rows, 1, 3, None, told.append)
    assert (mixed.tolist(), kept) == ([2.0], (3,))
    assert "rows 1, 2 of 4" in told[0]
    mixed[0] = 9
    assert rows[3].tolist() == [2.0]


@pytest.mark.parametrize("d", [5, dispatch.NUMBERS_MIN])
def test_vectors_are_mixed_where_they_lie_and_left_as_they_are(d):
    rows = [np.full(d, value, np.float32) for value in (1, 2, 6)]
    mixture, _ = mix_gathered("mean", rows, 0, 0, None, pytest.fail)
    mixture[0] = 9
    assert [row[0] for row in rows] == [1, 2, 6]


@pytest.mark.parametrize("rule", ["mean", "median", "trimmed-mean", "nearest-neighbour", "nnm+trimmed-mean"])
def test_vectors_that_were_mixed_are_let_go_of_at_once(rule):
    """Half of a node's memory must not wait for the collector of circles, which comes by when it likes."""
    rows = [np.random.default_rng(seed).random(dispatch.NUMBERS_MIN, np.float32) for seed in range(6)]
    here = [weakref.ref(row) for row in rows]
    gc.disable()
    try:
        mix_gathered(rule, rows, 1, 0, None, pytest.fail)
        rows.clear()
        assert not any(row() is not None for row in here)
    finally:
        gc.enable()
