"""The gradients of many nodes at once are those that each node's trainer computes by itself."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from p2pnode.learning import cohort as computing
from p2pnode.learning.cohort import Cohort
from p2pnode.learning.partition import partition
from p2pnode.learning.task import build, lenet
from p2pnode.learning.trainer import Trainer

SEED, NODES, BATCH = 3, 5, 16
STEP = 7

ROUNDING = 1e-6
"""Of the largest element of a gradient."""


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def task(factory=None):
    digits = build("digits", None)
    return digits if factory is None else replace(digits, factory=factory)


def trainers(of, batches=(BATCH,) * NODES):
    """Each at a model of its own, nodes in turn."""
    made = []
    for node, size in enumerate(batches):
        part = partition(of.data.train_y, node, len(batches), SEED, None)
        one = Trainer(of, part, SEED, node, size, 0.0, 0.5, 0, "cpu")
        one.adopt(one.vector + 0.01 * torch.randn(len(one.vector), generator=torch.Generator().manual_seed(node)))
        made.append(one)
    return made


def supplied(cohort, *of):
    """(gradients by the cohort, and by each trainer alone), at a step that differs by node."""
    together, alone = trainers(*of), trainers(*of)
    cohort.supply([(one, STEP + node) for node, one in enumerate(together)])
    return [[one.direction(STEP + node) for node, one in enumerate(some)] for some in (together, alone)]


def computes_nothing(trainer, monkeypatch):
    """A trainer that was supplied asks for no batch of its own."""
    monkeypatch.setattr(trainer, "minibatch", lambda t: pytest.fail("computed by itself"))


def assert_close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= ROUNDING * other.abs().max()
        assert other.abs().max() > 0.01


def small_convolution():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 10),
    )


@pytest.mark.parametrize("factory", [None, small_convolution], ids=["perceptron", "convolution"])
def test_as_a_batch_gradients_are_the_trainers_but_for_rounding(factory):
    of = task(factory)
    assert_close(*supplied(Cohort(of), of))


def test_a_batch_is_of_mini_batches_of_one_size_and_each_size_has_its_own(monkeypatch):
    of = task()
    monkeypatch.setattr(Cohort, "_share", None)
    assert_close(*supplied(Cohort(of), of, (16, 8, 16, 4, 8)))


def test_a_batch_is_computed_in_chunks_of_bounded_size(monkeypatch):
    of, seen = task(), []
    whole = supplied(Cohort(of), of)[0]
    monkeypatch.setattr(computing, "CHUNK_NUMBERS_MAX", 2 * (3 * of.dimension + 64 * 64 * BATCH))
    batching = computing.vmap
    monkeypatch.setattr(
        computing, "vmap", lambda f, chunk_size: seen.append(chunk_size) or batching(f, chunk_size=chunk_size)
    )
    assert_close(supplied(Cohort(of), of)[0], whole)
    assert seen == [2]


@pytest.mark.parametrize("workers", [1, 3])
def test_side_by_side_gradients_are_the_trainers_bit_for_bit(monkeypatch, workers):
    monkeypatch.setattr(computing, "BATCHED_PARAMETERS_MAX", 0)
    monkeypatch.setattr(computing, "vmap", None)
    of = task(small_convolution)
    ours, theirs = supplied(Cohort(of, workers=workers), of)
    assert all(one.equal(other) for one, other in zip(ours, theirs, strict=True))


def test_large_models_go_side_by_side_and_small_ones_as_a_batch():
    assert task().dimension <= computing.BATCHED_PARAMETERS_MAX < sum(p.numel() for p in lenet().parameters())


@pytest.mark.parametrize("batched", [True, False])
def test_who_was_supplied_computes_no_gradient_of_that_step_and_does_of_the_next(monkeypatch, batched):
    monkeypatch.setattr(computing, "BATCHED_PARAMETERS_MAX", 10**9 if batched else 0)
    of = task()
    one = trainers(of)[0]
    Cohort(of).supply([(one, STEP)])
    with monkeypatch.context() as patch:
        computes_nothing(one, patch)
        one.step(STEP)
    assert one.direction(STEP + 1).equal(trainers(of)[0].direction(STEP + 1))


class _Branching(nn.Linear):
    """Does what no map over models can: looks at a value."""

    def forward(self, features):
        return super().forward(features) * (2.0 if self.weight.sum() > 1000 else 1.0)


@pytest.mark.parametrize("batched", [True, False])
def test_a_model_that_draws_is_left_to_its_trainer(monkeypatch, batched):
    monkeypatch.setattr(computing, "BATCHED_PARAMETERS_MAX", 10**9 if batched else 0)
    of = task(lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 10)))
    outside = torch.get_rng_state()
    ours, theirs = supplied(Cohort(of, workers=2), of)
    assert all(one.equal(other) for one, other in zip(ours, theirs, strict=True))
    assert torch.get_rng_state().equal(outside)


def test_a_model_that_cannot_be_batched_goes_side_by_side():
    of = task(lambda: _Branching(64, 10))
    cohort = Cohort(of)
    for _ in range(2):
        ours, theirs = supplied(cohort, of)
        assert all(one.equal(other) for one, other in zip(ours, theirs, strict=True))


def test_side_by_side_torch_keeps_the_callers_threads(monkeypatch):
    monkeypatch.setattr(computing, "BATCHED_PARAMETERS_MAX", 0)
    torch.set_num_threads(2)
    of = task()
    used = []
    taken = computing.FlatModel.backward
    monkeypatch.setattr(
        computing.FlatModel, "backward", lambda self, loss: used.append(torch.get_num_threads()) or taken(self, loss)
    )
    cohort, some = Cohort(of, workers=2), trainers(of)
    cohort.supply([(one, STEP) for one in some])
    assert used == [1] * NODES
    assert torch.get_num_threads() == 2


def test_nobody_asks_for_nothing():
    Cohort(task()).supply([])


def test_models_are_judged_as_their_trainers_judge_them():
    of = task()
    some = trainers(of)
    cohort = Cohort(of, workers=2)
    for limit in (None, 50):
        assert cohort.evaluate([one.vector for one in some], limit) == [one.evaluate(limit) for one in some]


@pytest.mark.parametrize("factory", [None, lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 10))])
def test_gradients_at_other_models_than_the_trainers_own_are_taken_there(factory):
    """Also where the model draws, and its trainer computes them."""
    of = task(factory)
    together, alone = trainers(of), trainers(of)
    at = {one: one.vector * (1 + node) for node, one in enumerate(together) if node % 2}
    Cohort(of).supply([(one, STEP) for one in together], at)
    for one, other in zip(together, alone, strict=True):
        expected = other.direction(STEP, at.get(one))
        assert (one.direction(STEP) - expected).abs().max() <= ROUNDING * expected.abs().max()
