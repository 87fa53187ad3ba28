"""The trainer: the momentum of the paper, steps that a restart repeats, and no damage from a bad gradient."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from p2pnode.errors import ConfigError, NonFinite, ShapeMismatch, TrainingError
from p2pnode.learning import trainer as trainer_module
from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.partition import batch, partition
from p2pnode.learning.task import build
from p2pnode.learning.trainer import Trainer, resolve_device, step_size

NODES = 7


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits():
    return build("digits", None)


@pytest.fixture(scope="module")
def noisy(digits):
    """A task whose model has dropout, by module and by function."""

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.drop, self.out = nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 10)

        def forward(self, x):
            return self.out(self.drop(functional.dropout(self.hidden(x), 0.2, self.training)))

    return dataclasses.replace(digits, name="noisy", factory=Noisy)


def a_trainer(task, node=0, seed=3, local_batch=32, momentum=0.9, lr=0.5, lr_decay_every=0):
    indices = partition(task.data.train_y, node, NODES, seed, None)
    return Trainer(task, indices, seed, node, local_batch, momentum, lr, lr_decay_every, device="cpu")


def advance(trainer, steps):
    """Step and adopt one's own vector, as a node alone would."""
    for t in steps:
        trainer.adopt(trainer.step(t))


# The formula


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9, 0.99])
def test_steps_follow_the_formula_written_by_hand(digits, beta):
    trainer = a_trainer(digits, node=2, momentum=beta, lr_decay_every=3)
    indices = partition(digits.data.train_y, 2, NODES, 3, None)
    module = digits.model(3)
    theta = [parameter.detach().clone() for parameter in module.parameters()]
    m = [torch.zeros_like(part) for part in theta]
    for t in range(8):
        rows = indices[batch(len(indices), 32, 3, 2, t)]
        for parameter, value in zip(module.parameters(), theta, strict=True):
            parameter.data.copy_(value)
        loss = functional.cross_entropy(module(digits.data.train_x[rows]), digits.data.train_y[rows])
        g = torch.autograd.grad(loss, list(module.parameters()))
        m = [beta * old + (1 - beta) * new for old, new in zip(m, g, strict=True)]
        gamma = 0.5 / (1 + t // 3)
        theta = [value - gamma * part for value, part in zip(theta, m, strict=True)]
        x = trainer.step(t)
        assert torch.allclose(x, torch.cat([part.reshape(-1) for part in theta]), atol=1e-6)
        trainer.adopt(x)


def test_the_step_size_decays_as_one_over_the_number_of_periods():
    assert [step_size(0.75, 50, t) for t in (0, 49, 50, 99, 100, 299)] == [0.75, 0.75, 0.375, 0.375, 0.25, 0.125]
    assert step_size(0.75, 0, 10**9) == 0.75


def test_step_returns_its_own_vector_and_leaves_the_model(digits):
    trainer = a_trainer(digits)
    start = trainer.vector
    x = trainer.step(0)
    assert (x.shape, x.dtype, x.device.type, x.requires_grad) == ((4_810,), torch.float32, "cpu", False)
    assert not torch.equal(x, start)
    x.fill_(float("nan"))
    assert torch.equal(trainer.vector, start)
    assert trainer.step(1).isfinite().all()


def test_all_nodes_start_from_one_model_and_step_apart(digits):
    first, second = a_trainer(digits, node=0), a_trainer(digits, node=1)
    assert torch.equal(first.vector, second.vector)
    assert not torch.equal(first.step(0), second.step(0))


# Adopting and coming back


def test_adopt_moves_the_model_and_keeps_the_momentum(digits):
    trainer = a_trainer(digits)
    momentum = (trainer.vector - trainer.step(0)) / 0.5
    target = torch.full((digits.dimension,), 0.5)
    trainer.adopt(target)
    target.zero_()
    assert torch.equal(trainer.vector, torch.full((digits.dimension,), 0.5))
    torch.testing.assert_close(trainer.state()["momentum"], momentum, atol=1e-6, rtol=1e-3)


def test_a_step_that_was_not_adopted_leaves_no_trace(digits):
    trainer = a_trainer(digits)
    advance(trainer, range(2))
    before = trainer.state()
    vector = trainer.step(2)
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.state().items())
    assert torch.equal(trainer.step(2), vector)


def test_adopt_refuses_another_models_vector(digits):
    with pytest.raises(ShapeMismatch):
        a_trainer(digits).adopt(torch.zeros(10))


@pytest.mark.parametrize("name", ["digits", "noisy"])
def test_a_restored_trainer_repeats_its_steps_bit_for_bit(name, request):
    task = request.getfixturevalue(name)
    trainer = a_trainer(task)
    advance(trainer, range(3))
    state = trainer.state()
    expected = [trainer.step(3), trainer.step(4)]

    torch.manual_seed(1234)
    revived = a_trainer(task)
    revived.restore(state)
    revived.evaluate(limit=10)
    assert all(torch.equal(revived.step(t), vector) for t, vector in zip((3, 4), expected, strict=True))


def test_dropout_is_on_in_steps_off_in_evaluation_and_leaves_global_randomness_alone(noisy):
    trainer = a_trainer(noisy)
    assert trainer.evaluate() == trainer.evaluate()
    state = trainer.state()
    first = trainer.step(0)
    trainer.restore(state)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(trainer.step(0), first)
    assert torch.equal(torch.rand(3), expected)
    hidden = torch.rand(4, 64)
    trainer._model.module.train()
    assert not torch.equal(trainer._model.module(hidden), trainer._model.module(hidden))


def test_state_is_a_copy_of_two_vectors(digits):
    trainer = a_trainer(digits)
    state = trainer.state()
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()} == {
        "model": ((4_810,), torch.float32),
        "momentum": ((4_810,), torch.float32),
    }
    advance(trainer, [0])
    assert not state["momentum"].any()
    assert not torch.equal(state["model"], trainer.vector)


@pytest.mark.parametrize("name", ["model", "momentum"])
def test_a_state_of_another_model_is_refused_whole(digits, name):
    trainer = a_trainer(digits)
    trainer.step(0)
    before = trainer.state()
    bad = {"model": torch.ones(4_810), "momentum": torch.ones(4_810)} | {name: torch.ones(4_811)}
    with pytest.raises(ShapeMismatch):
        trainer.restore(bad)
    del bad[name]
    with pytest.raises(TrainingError, match=f"lacks {name}"):
        trainer.restore(bad)
    assert all(torch.equal(tensor, before[key]) for key, tensor in trainer.state().items())


# Bad gradients


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_gradient_is_refused_and_leaves_no_trace(digits, bad):
    poisoned = []
    loss = functional.cross_entropy
    trainer = a_trainer(dataclasses.replace(digits, loss=lambda x, y: loss(x, y) * (bad if poisoned else 1)))
    clean = a_trainer(digits)
    advance(trainer, range(2))
    advance(clean, range(2))
    before = trainer.state()
    poisoned.append(True)
    with pytest.raises(NonFinite, match="step 2"):
        trainer.step(2)
    assert all(torch.equal(tensor, before[key]) for key, tensor in trainer.state().items())
    poisoned.clear()
    assert torch.equal(trainer.step(2), clean.step(2))


def test_one_bad_component_among_many_is_seen(digits):
    trainer = a_trainer(digits)

    def one_bad(outputs, labels):
        loss = functional.cross_entropy(outputs, labels)
        bias = list(trainer._model.module.parameters())[-1]
        return loss + bias[3] * float("nan")

    trainer._task = dataclasses.replace(digits, loss=one_bad)
    with pytest.raises(NonFinite):
        trainer.step(0)


# Evaluation


def test_evaluation_is_the_mean_over_the_whole_test_set(digits):
    trainer = a_trainer(digits)
    advance(trainer, range(20))
    module = digits.model(3)
    nn.utils.vector_to_parameters(trainer.vector, module.parameters())
    outputs = module(digits.data.test_x).detach()
    evaluation = trainer.evaluate()
    hits = int((outputs.argmax(1) == digits.data.test_y).sum())
    assert evaluation.accuracy == pytest.approx(hits / 360, abs=1e-9)
    assert evaluation.loss == pytest.approx(float(functional.cross_entropy(outputs, digits.data.test_y)), rel=1e-5)
    assert evaluation.samples == 360


def test_a_limit_takes_the_first_samples(digits):
    trainer = a_trainer(digits)
    outputs = digits.model(3)(digits.data.test_x[:7])
    hits = int((outputs.argmax(1) == digits.data.test_y[:7]).sum())
    assert trainer.evaluate(limit=7).accuracy == pytest.approx(hits / 7)
    assert trainer.evaluate(limit=7).samples == 7
    assert trainer.evaluate(limit=10_000).samples == 360
    with pytest.raises(AssertionError, match="nothing to evaluate"):
        trainer.evaluate(limit=0)


def test_an_abort_ends_the_evaluation_after_the_batch(digits, monkeypatch):
    monkeypatch.setattr(trainer_module, "EVALUATION_BATCH", 100)
    trainer = a_trainer(digits)
    answers = iter([False, True])
    partial = trainer.evaluate(abort=lambda: next(answers))
    assert partial == trainer.evaluate(limit=200)
    assert partial.samples == 200


# Settings


@pytest.mark.parametrize("local_batch", [0, -1, 206])
def test_a_batch_larger_than_the_part_is_refused(digits, local_batch):
    with pytest.raises(ConfigError, match=r"local_batch: .* this node's 205"):
        a_trainer(digits, local_batch=local_batch)


def test_a_batch_may_be_the_whole_part(digits):
    assert a_trainer(digits, local_batch=205).step(0).isfinite().all()


def test_batch_normalisation_is_refused(digits):
    task = dataclasses.replace(digits, factory=lambda: nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10)))
    with pytest.raises(TrainingError, match=r"layer 1 .*BatchNorm1d.* running_mean"):
        a_trainer(task)


def machine_with(monkeypatch, gpus):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


@pytest.mark.parametrize(
    ("gpus", "name", "device"),
    [(0, "auto", "cpu"), (0, "cpu", "cpu"), (2, "auto", "cuda:0"), (2, "cuda", "cuda:0"), (2, "cuda:1", "cuda:1")],
)
def test_a_device_is_resolved_to_one_that_is_there(monkeypatch, gpus, name, device):
    machine_with(monkeypatch, gpus)
    assert resolve_device(name) == torch.device(device)


@pytest.mark.parametrize(("gpus", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2"), (2, "tpu"), (0, "")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, gpus, name):
    machine_with(monkeypatch, gpus)
    with pytest.raises(ConfigError, match=r"device: .* choose one of .*auto.*cpu"):
        resolve_device(name)


# It learns


@pytest.mark.parametrize("seed", [0, 1])
def test_the_digits_defaults_learn_under_a_trimmed_mean(digits, seed):
    """Six honest of seven; the seventh sends its steps mirrored, and one value a side is trimmed."""
    defaults = TASKS["digits"]
    trainers = [
        a_trainer(digits, node, seed, defaults.local_batch, defaults.momentum, defaults.lr, defaults.lr_decay_every)
        for node in range(6)
    ]
    for t in range(defaults.steps):
        honest = torch.stack([trainer.step(t) for trainer in trainers])
        liar = trainers[0].vector * 2 - honest.mean(0)
        mixed = torch.cat([honest, liar[None]]).sort(0).values[1:-1].mean(0)
        for trainer in trainers:
            trainer.adopt(mixed)
    assert trainers[0].evaluate().accuracy >= 0.95
