"""The trainer: the momentum of the paper, steps that a restart repeats, and no damage from a bad gradient."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from p2pnode.errors import ConfigError, NonFinite, ShapeMismatch, TrainingError
from p2pnode.learning import trainer as trainer_module
from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.data import Dataset
from p2pnode.learning.partition import batch, partition
from p2pnode.learning.task import Task, accuracy, build
from p2pnode.learning.trainer import Trainer, resolve_device, resolve_devices, step_size

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


def a_trainer(task, node=0, seed=3, local_batch=32, momentum=0.9, lr=0.5, lr_decay_every=0, device="cpu", **options):
    indices = partition(task.data.labels, node, NODES, seed, None)
    return Trainer(task, indices, seed, node, local_batch, momentum, lr, lr_decay_every, device, **options)


def advance(trainer, steps):
    """Step and adopt one's own vector, as a node alone would."""
    for t in steps:
        trainer.adopt(trainer.step(t))


def same_state(trainer, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in trainer.state().items())


# The formula


def test_the_loss_is_that_of_the_last_batch_at_the_model_it_was_taken_at(digits):
    trainer = a_trainer(digits)
    assert trainer.batch_loss is None
    start = trainer.vector
    trainer.adopt(trainer.step(0))
    features, labels = trainer.minibatch(0)
    module = digits.model(3)
    assert trainer.batch_loss == pytest.approx(functional.cross_entropy(module(features), labels).item(), rel=1e-5)
    before = trainer.batch_loss
    trainer.foresee(1, start)
    features, labels = trainer.minibatch(1)
    assert trainer.batch_loss == pytest.approx(functional.cross_entropy(module(features), labels).item(), rel=1e-5)
    assert trainer.batch_loss != before


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


# The halves of a step: a direction to agree on, and the way along it


@pytest.mark.parametrize("name", ["digits", "noisy"])
@pytest.mark.parametrize("beta", [0.0, 0.9])
@pytest.mark.parametrize("batch_grows", [False, True])
def test_a_step_is_the_way_along_its_direction_bit_for_bit(name, beta, batch_grows, request):
    task = request.getfixturevalue(name)
    whole, halves = (
        a_trainer(task, local_batch=3, momentum=beta, lr_decay_every=2, batch_grows=batch_grows) for _ in range(2)
    )
    for t in range(6):
        vector = whole.step(t)
        assert torch.equal(halves.descend(t, halves.direction(t)), vector)
        whole.adopt(vector)
        halves.adopt(vector)
        assert same_state(halves, whole.state())


@pytest.mark.parametrize("batch_grows", [False, True])
def test_without_momentum_the_direction_is_the_gradient_itself(digits, batch_grows):
    trainer = a_trainer(digits, node=2, local_batch=4, momentum=0.0, batch_grows=batch_grows)
    indices = partition(digits.data.train_y, 2, NODES, 3, None)
    module = digits.model(3)
    for t in range(8):
        nn.utils.vector_to_parameters(trainer.vector, module.parameters())
        rows = indices[batch(len(indices), max(4, t + 1) if batch_grows else 4, 3, 2, t)]
        loss = functional.cross_entropy(module(digits.data.train_x[rows]), digits.data.train_y[rows])
        gradient = torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, list(module.parameters()))])
        assert torch.equal(trainer.direction(t), gradient)
        trainer.adopt(trainer.descend(t, gradient))


def test_a_direction_is_the_momentum_that_adopt_keeps(digits):
    trainer = a_trainer(digits, momentum=0.75)
    first = trainer.direction(0)
    trainer.adopt(trainer.vector)
    assert torch.equal(trainer.state()["momentum"], first)
    gradient = a_trainer(digits, momentum=0.0).direction(1)  # of the same θ, the initial one
    trainer.direction(2)
    second = trainer.direction(1)
    torch.testing.assert_close(second, 0.75 * first + 0.25 * gradient)
    trainer.adopt(trainer.vector)
    assert torch.equal(trainer.state()["momentum"], second)


def test_halves_that_were_not_adopted_leave_no_trace(digits):
    trainer = a_trainer(digits)
    advance(trainer, range(2))
    before = trainer.state()
    direction = trainer.direction(2)
    assert same_state(trainer, before)
    vector = trainer.descend(2, direction)
    assert same_state(trainer, before)
    assert torch.equal(trainer.direction(2), direction)
    assert torch.equal(trainer.descend(2, direction), vector)
    assert torch.equal(trainer.step(2), vector)


def test_an_agreed_direction_moves_the_model_and_not_ones_own_momentum(digits):
    trainer = a_trainer(digits, lr=0.5, lr_decay_every=2)
    own = trainer.direction(2)
    agreed = torch.linspace(-1, 1, digits.dimension)
    vector = trainer.descend(2, agreed)
    torch.testing.assert_close(vector, trainer.vector - 0.25 * agreed)
    trainer.adopt(vector)
    assert torch.equal(trainer.state()["momentum"], own)


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_halves_are_the_callers_own(digits, beta):
    trainer = a_trainer(digits, momentum=beta)
    before, direction = trainer.state(), trainer.direction(0)
    kept = direction.clone()
    vector = trainer.descend(0, direction)
    assert torch.equal(direction, kept)
    for made in (direction, vector):
        assert (made.shape, made.dtype, made.device.type) == ((4_810,), torch.float32, "cpu")
        assert not made.requires_grad
        made.fill_(float("nan"))
    assert same_state(trainer, before)
    trainer.adopt(before["model"])
    assert torch.equal(trainer.state()["momentum"], kept)


@pytest.mark.parametrize(
    "direction", [torch.zeros(4_811), torch.zeros(1), torch.zeros(1, 4_810), torch.zeros(4_810, dtype=torch.float64)]
)
def test_a_direction_of_another_model_is_refused(digits, direction):
    trainer = a_trainer(digits)
    with pytest.raises(ShapeMismatch):
        trainer.descend(0, direction)
    assert same_state(trainer, a_trainer(digits).state())


# A growing batch


@pytest.fixture
def seen(digits):
    """A task whose labels are row numbers, and the list of the rows of every batch trained on."""
    rows = []

    def loss(outputs, labels):
        rows.append(labels.tolist())
        return outputs.square().mean()

    numbered = dataclasses.replace(digits.data, train_y=torch.arange(len(digits.data.train_y)))
    return dataclasses.replace(digits, data=numbered, loss=loss), rows


@pytest.mark.parametrize("half", [Trainer.step, Trainer.direction])
def test_a_batch_grows_by_one_a_step_from_the_least_to_the_part(seen, half):
    task, rows = seen
    trainer = a_trainer(task, local_batch=4, batch_grows=True)
    for t in (0, 1, 3, 4, 5, 100, 203, 204, 205, 10**9):
        half(trainer, t)
    assert [len(batch_rows) for batch_rows in rows] == [4, 4, 4, 5, 6, 101, 204, 205, 205, 205]


def test_a_batch_stays_as_it_is_unless_asked_to_grow(seen):
    task, rows = seen
    trainer = Trainer(task, torch.arange(205), 3, 0, 4, 0.9, 0.5, 0, "cpu")
    for t in (0, 4, 100, 10**9):
        trainer.step(t)
    assert [len(batch_rows) for batch_rows in rows] == [4] * 4


def test_a_growing_batch_holds_distinct_samples_of_the_part_each_as_often(seen):
    task, rows = seen
    trainer = a_trainer(task, node=1, local_batch=1, batch_grows=True)
    for t in range(150):
        trainer.direction(t)
    part = partition(task.data.train_y, 1, NODES, 3, None)
    assert all(len(set(batch_rows)) == len(batch_rows) for batch_rows in rows)
    assert {row for batch_rows in rows for row in batch_rows} == set(part.tolist())
    # Σ p = 55 times are expected of each sample, p = (t + 1) / 205, with standard deviation √Σ p(1−p) = 5.4.
    times = torch.bincount(torch.tensor([row for batch_rows in rows for row in batch_rows]))[part]
    assert 30 < int(times.min()) <= int(times.max()) < 80


def test_the_rows_of_a_growing_batch_depend_on_seed_node_and_step_and_on_nothing_else(seen):
    task, rows = seen

    def growing(seed, node):
        return Trainer(task, torch.arange(205), seed, node, 4, 0.9, 0.5, 0, "cpu", batch_grows=True)

    advance(growing(3, 0), range(12))
    restarted = growing(3, 0)
    for t in (11, 2, 11):
        restarted.direction(t)
    assert rows[12:] == [rows[11], rows[2], rows[11]]
    growing(4, 0).direction(2)
    growing(3, 1).direction(2)
    assert len({tuple(rows[which]) for which in (0, 1, 2, 3, 15, 16)}) == 6


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
    assert same_state(trainer, before)
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


@pytest.mark.parametrize("name", ["digits", "noisy"])
def test_a_restored_trainer_repeats_directions_of_a_growing_batch_bit_for_bit(name, request):
    task = request.getfixturevalue(name)
    trainer = a_trainer(task, local_batch=2, batch_grows=True)
    advance(trainer, range(3))
    state = trainer.state()
    expected = [trainer.direction(3), trainer.direction(4)]

    revived = a_trainer(task, local_batch=2, batch_grows=True)
    revived.direction(9)
    revived.restore(state)
    revived.adopt(state["model"])
    assert same_state(revived, state)
    assert all(torch.equal(revived.direction(t), direction) for t, direction in zip((3, 4), expected, strict=True))


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


def test_a_step_that_fails_after_one_that_was_left_leaves_no_trace_in_the_momentum(digits):
    """Both use the memory of the gradient: what the second wrote there must not pass for the first's momentum."""
    trainer = a_trainer(digits)
    advance(trainer, range(2))
    before = trainer.state()
    trainer.step(2)
    trainer._task = dataclasses.replace(digits, loss=lambda outputs, labels: outputs.sum() * torch.inf)
    with pytest.raises(NonFinite):
        trainer.step(3)
    trainer.adopt(before["model"])
    assert same_state(trainer, before)


def test_a_state_that_is_not_copied_is_the_same_and_takes_no_memory(digits):
    trainer = a_trainer(digits)
    advance(trainer, range(2))
    live = trainer.state(copied=False)
    assert same_state(trainer, live)
    assert live["model"].data_ptr() == trainer._model.vector.data_ptr()
    assert live["momentum"].data_ptr() == trainer._momentum.data_ptr()


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
    assert same_state(trainer, before)


# Bad gradients


@pytest.mark.parametrize("half", [Trainer.step, Trainer.direction])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_gradient_is_refused_and_leaves_no_trace(digits, bad, half):
    poisoned = []
    loss = functional.cross_entropy
    trainer = a_trainer(dataclasses.replace(digits, loss=lambda x, y: loss(x, y) * (bad if poisoned else 1)))
    clean = a_trainer(digits)
    advance(trainer, range(2))
    advance(clean, range(2))
    before = trainer.state()
    poisoned.append(True)
    with pytest.raises(NonFinite, match="step 2"):
        half(trainer, 2)
    assert same_state(trainer, before)
    poisoned.clear()
    assert torch.equal(half(trainer, 2), half(clean, 2))
    poisoned.append(True)
    trainer.restore(before)
    with pytest.raises(NonFinite):
        half(trainer, 2)
    trainer.adopt(before["model"])
    assert same_state(trainer, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 3e38, -3e38])
def test_a_direction_that_leads_out_of_the_finite_is_refused_and_leaves_no_trace(digits, bad):
    trainer = a_trainer(digits, lr=2.0)
    own = trainer.direction(0)
    before = trainer.state()
    direction = torch.zeros(4_810)
    direction[4_321] = bad
    with pytest.raises(NonFinite, match="step 7"):
        trainer.descend(7, direction)
    assert same_state(trainer, before)
    trainer.adopt(trainer.descend(0, own))
    assert torch.equal(trainer.state()["momentum"], own)


def test_a_step_that_overflows_behind_a_finite_momentum_leaves_that_momentum_too(digits):
    steep = dataclasses.replace(digits, loss=lambda x, y: functional.cross_entropy(x, y) * 1e6)
    trainer = a_trainer(steep, momentum=0.0, lr=1e38)
    before = trainer.state()
    assert a_trainer(steep, momentum=0.0).direction(0).isfinite().all()
    with pytest.raises(NonFinite):
        trainer.step(0)
    trainer.adopt(before["model"])
    assert same_state(trainer, before)


def test_one_bad_component_among_many_is_seen(digits):
    trainer = a_trainer(digits)

    def one_bad(outputs, labels):
        loss = functional.cross_entropy(outputs, labels)
        bias = list(trainer._model.module.parameters())[-1]
        return loss + bias[3] * float("nan")

    trainer._task = dataclasses.replace(digits, loss=one_bad)
    with pytest.raises(NonFinite):
        trainer.step(0)
    with pytest.raises(NonFinite):
        trainer.direction(0)


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


@pytest.mark.parametrize("batch_grows", [False, True])
@pytest.mark.parametrize("local_batch", [0, -1, 206])
def test_a_batch_larger_than_the_part_is_refused(digits, local_batch, batch_grows):
    with pytest.raises(ConfigError, match=r"local_batch: .* this node's 205"):
        a_trainer(digits, local_batch=local_batch, batch_grows=batch_grows)


def test_a_batch_may_be_the_whole_part(digits):
    assert a_trainer(digits, local_batch=205).step(0).isfinite().all()


@pytest.fixture(scope="module")
def normalised(digits):
    return dataclasses.replace(
        digits, factory=lambda: nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    )


def test_batch_normalisation_is_evaluated_by_ones_own_data_whatever_was_trained_before(normalised):
    trainer, late = a_trainer(normalised), a_trainer(normalised)
    advance(trainer, range(30))
    late.adopt(trainer.vector)  # as a node that restarts, or is brought the model by its peers
    first = trainer.evaluate()
    assert first == late.evaluate() == trainer.evaluate()
    assert first.accuracy > 0.8
    elsewhere = a_trainer(normalised, node=1)
    elsewhere.adopt(trainer.vector)
    assert elsewhere.evaluate().loss == pytest.approx(first.loss, rel=0.2)
    assert elsewhere.evaluate() != first


def test_a_batch_in_pieces_has_the_gradient_of_the_whole(digits):
    whole, pieces, single = a_trainer(digits), a_trainer(digits, pieces=5), a_trainer(digits, pieces=1)
    assert torch.equal(whole.step(3), single.step(3)), "bit for bit"
    assert torch.allclose(whole.step(3), pieces.step(3), atol=1e-6)
    assert pieces.batch_loss == pytest.approx(whole.batch_loss, rel=1e-5)
    seen = []
    replaced = dataclasses.replace(digits, loss=lambda outputs, labels: seen.append(len(labels)) or outputs.mean())
    a_trainer(replaced, local_batch=32, pieces=5).step(0)
    assert seen == [7, 7, 7, 7, 4]
    seen.clear()
    a_trainer(replaced, local_batch=2, pieces=5).step(0)
    assert seen == [1, 1], "no more pieces than samples"


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32(digits):
    seen = []

    def loss(outputs, labels):
        seen.append(outputs.dtype)
        return functional.cross_entropy(outputs, labels)

    task = dataclasses.replace(digits, loss=loss)
    plain, mixed = a_trainer(task).step(0), a_trainer(task, autocast=True).step(0)
    assert seen == [torch.float32, torch.bfloat16]
    assert mixed.dtype == torch.float32
    assert not torch.equal(plain, mixed)
    assert torch.allclose(plain, mixed, atol=1e-2)


def test_samples_that_draw_are_a_function_of_seed_node_and_step(digits):
    class Noisy:
        """The digits, each with noise of torch's global randomness."""

        draws, samples, labels, tests = True, digits.data.samples, digits.data.labels, digits.data.tests
        test = staticmethod(digits.data.test)

        @staticmethod
        def train(rows):
            features, labels = digits.data.train(rows)
            return features + torch.randn_like(features), labels

    task = dataclasses.replace(digits, data=Noisy())
    first = a_trainer(task).minibatch(4)[0]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(a_trainer(task).minibatch(4)[0], first)
    assert torch.equal(torch.get_rng_state(), before)
    clean = a_trainer(digits)
    noise = [a_trainer(task).minibatch(t)[0] - clean.minibatch(t)[0] for t in (4, 5)]
    assert not torch.allclose(*noise)


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


# Several devices


class Intricate(nn.Module):
    """Tied, frozen and bfloat16 parameters, and a constant."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.frozen = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)
        self.again.weight = self.first.weight
        self.frozen.requires_grad_(False)
        self.narrow, self.out = nn.Linear(64, 64, dtype=torch.bfloat16), nn.Linear(64, 10)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, x):
        x = self.frozen(self.again(self.first(x).relu())) * self.scale
        return self.out(self.narrow(x.bfloat16()).float())


def of_pairs(outputs, labels):
    """A loss that is no mean over samples: each meets every other."""
    return (torch.cdist(outputs, outputs) * (labels[:, None] == labels)).mean()


@pytest.mark.parametrize("local_batch", [1, 2, 32, 33])
@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({}, {}),
        ({}, {"pieces": 5}),
        ({}, {"autocast": True}),
        ({}, {"local_steps": 3, "clip": 0.5}),
        ({"factory": Intricate}, {}),
        ({"loss": of_pairs}, {}),
    ],
)
def test_several_devices_have_the_gradient_of_one_wherever_the_model_stands(digits, change, options, local_batch):
    task = dataclasses.replace(digits, **change)
    one, three = (
        a_trainer(task, local_batch=local_batch, momentum=0.0, device=device, **options)
        for device in ("cpu", "cpu, cpu,cpu")
    )
    close = 1e-2 if change.get("factory") or options.get("autocast") else 1e-4
    for t in range(3):
        mine, theirs = one.direction(t), three.direction(t)
        assert torch.linalg.vector_norm(mine - theirs) <= close * torch.linalg.vector_norm(mine)
        assert three.batch_loss == pytest.approx(one.batch_loss, rel=close, abs=1e-6)
        moved = one.step(t)
        one.adopt(moved)
        three.adopt(moved)


def test_each_device_computes_its_part_of_every_batch(digits):
    sizes = []

    class Watched(nn.Linear):
        def forward(self, x):
            sizes.append((id(self), len(x)))
            return super().forward(x)

    task = dataclasses.replace(digits, factory=lambda: Watched(64, 10))
    a_trainer(task, local_batch=32, device="cpu,cpu,cpu").step(0)
    assert [size for _, size in sizes] == [11, 11, 10]
    assert len({model for model, _ in sizes}) == 3


def test_steps_of_several_devices_are_repeated_bit_for_bit_with_noise_in_layers(noisy):
    trainer, again = (a_trainer(noisy, device="cpu,cpu") for _ in range(2))
    advance(trainer, range(3))
    again.restore(trainer.state())
    assert torch.equal(trainer.step(3), again.step(3))


def test_batch_normalisation_takes_the_statistics_of_each_devices_part(normalised):
    trainer = a_trainer(normalised, momentum=0.0, device="cpu,cpu")
    halves = a_trainer(normalised, momentum=0.0, pieces=2)
    assert torch.allclose(trainer.direction(0), halves.direction(0), atol=1e-6)
    advance(trainer, range(30))
    assert trainer.evaluate().accuracy > 0.8
    for options in ({"local_batch": 3}, {"pieces": 16}):
        with pytest.raises(ConfigError, match=r"single sample.*Remedy: name fewer devices"):
            a_trainer(normalised, device="cpu,cpu", **options)


def test_a_constant_that_changes_on_another_device_is_refused(digits):
    class Counting(nn.Linear):
        def __init__(self):
            super().__init__(64, 10)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            if len(x) == 16:  # the second device's part alone
                self.seen += 1
            return super().forward(x)

    with pytest.raises(TrainingError, match="changes seen"):
        a_trainer(dataclasses.replace(digits, factory=Counting), local_batch=33, device="cpu,cpu").step(0)


@pytest.mark.parametrize("made", [lambda x: x.mean(), lambda x: x.T, lambda x: (x, x)])
def test_outputs_that_cannot_be_joined_are_refused(digits, made):
    class Strange(nn.Linear):
        def forward(self, x):
            return made(super().forward(x))

    task = dataclasses.replace(digits, factory=lambda: Strange(64, 10))
    with pytest.raises(ConfigError, match=r"row a sample.*Remedy: name one device"):
        a_trainer(task, device="cpu,cpu").step(0)


def test_a_model_that_cannot_be_copied_is_refused_for_several_devices_only(digits):
    class Single(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("there is one of me")

    task = dataclasses.replace(digits, factory=lambda: Single(64, 10))
    a_trainer(task)
    with pytest.raises(ConfigError, match=r"there is one of me\. Remedy: name one device"):
        a_trainer(task, device="cpu,cpu")


def test_several_devices_are_resolved_in_their_order(monkeypatch):
    machine_with(monkeypatch, 2)
    assert resolve_devices("cuda:1, cuda:0") == [torch.device("cuda:1"), torch.device("cuda:0")]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("cuda:0,cuda:2", "'cuda:2' is not available here"),
        ("cuda,cuda:0", "Remedy: name each GPU once"),
        ("cuda:1,cpu", "Remedy: name each GPU once"),
        ("cuda:1,", "'' is not available"),
    ],
)
def test_several_devices_that_are_not_there_or_do_not_fit_are_refused(monkeypatch, names, why):
    machine_with(monkeypatch, 2)
    with pytest.raises(ConfigError, match=why):
        resolve_devices(names)


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


# Local steps, the place of momentum, clipping


def gradient_at(task, vector, rows):
    module = task.model(0)
    nn.utils.vector_to_parameters(vector.clone(), module.parameters())
    loss = functional.cross_entropy(module(task.data.train_x[rows]), task.data.train_y[rows])
    return torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, list(module.parameters()))])


def test_local_steps_follow_one_another_each_with_a_batch_of_its_own_and_leave_the_model(digits):
    trainer = a_trainer(digits, lr_decay_every=1, local_steps=3)
    indices = partition(digits.data.train_y, 0, NODES, 3, None)
    momentum = torch.zeros(4_810)
    for t in range(3):
        start = vector = trainer.vector
        for k in range(3):
            g = gradient_at(digits, vector, indices[batch(len(indices), 32, 3, 0, 3 * t + k)])
            momentum = 0.9 * momentum + 0.1 * g
            vector = vector - 0.5 / (1 + t) * momentum
        stepped = trainer.step(t)
        assert torch.allclose(stepped, vector, atol=1e-5)
        assert torch.equal(trainer.vector, start)
        trainer.adopt(stepped)
    assert torch.allclose(trainer.state()["momentum"], momentum, atol=1e-5)


def test_a_local_step_that_is_not_finite_leaves_model_and_momentum(digits):
    trainer = a_trainer(digits, local_steps=3)
    before, healthy, calls = trainer.state(), trainer._gradient, []

    def gradient(t):
        calls.append(t)
        return healthy(t) if len(calls) < 3 else torch.full((4_810,), math.inf)

    trainer._gradient = gradient
    with pytest.raises(NonFinite):
        trainer.step(0)
    trainer.adopt(trainer.vector)
    assert same_state(trainer, before)
    assert calls == [0, 1, 2]


def test_momentum_at_the_update_follows_the_directions_agreed_on(digits):
    trainer = a_trainer(digits, placement="update", momentum=0.9)
    momentum, random = torch.zeros(4_810), torch.Generator().manual_seed(1)
    for t in range(4):
        plain = a_trainer(digits, momentum=0.0)
        plain.adopt(trainer.vector)
        assert torch.equal(trainer.direction(t), plain.direction(t)), "what is exchanged is the gradient"
        agreed = torch.randn(4_810, generator=random)
        momentum = torch.lerp(momentum, agreed, 0.1)
        expected = trainer.vector - 0.5 * momentum
        assert torch.equal(trainer.descend(t, agreed), trainer.descend(t, agreed)), "asked for again, it is the same"
        assert torch.allclose(trainer.descend(t, agreed), expected, atol=1e-6)
        trainer.adopt(trainer.descend(t, agreed))
        assert torch.allclose(trainer.state()["momentum"], momentum)


def test_momentum_at_the_worker_does_not_follow_the_directions_agreed_on(digits):
    trainer = a_trainer(digits)
    own = trainer.direction(0)
    trainer.adopt(trainer.descend(0, torch.ones(4_810)))
    assert torch.equal(trainer.state()["momentum"], own)


def test_a_gradient_may_be_taken_at_another_model(digits):
    trainer, elsewhere = a_trainer(digits, momentum=0.0), a_trainer(digits, momentum=0.0)
    start, point = trainer.vector, a_trainer(digits).step(5)
    elsewhere.adopt(point)
    assert torch.equal(trainer.direction(2, at=point), elsewhere.direction(2))
    assert torch.equal(trainer.vector, start)
    with pytest.raises(ShapeMismatch):
        trainer.direction(2, at=point[1:])


@pytest.mark.parametrize("clip", [1e-3, 0.5, 100.0])
def test_a_gradient_is_clipped_before_it_joins_the_momentum(digits, clip):
    trainer, free = a_trainer(digits, momentum=0.0, clip=clip), a_trainer(digits, momentum=0.0)
    clipped, gradient = trainer.direction(0), free.direction(0)
    norm = float(torch.linalg.vector_norm(gradient))
    assert float(torch.linalg.vector_norm(clipped)) == pytest.approx(min(norm, clip), rel=1e-5)
    assert torch.allclose(clipped / clipped.norm(), gradient / gradient.norm(), atol=1e-6)


def test_a_gradient_of_nothing_is_not_clipped_to_nan(digits):
    trainer = a_trainer(digits, momentum=0.0, clip=1.0)
    trainer.supply(0, torch.zeros(4_810))
    assert torch.equal(trainer.direction(0), torch.zeros(4_810))


def test_a_gradient_that_was_supplied_serves_its_step_once(digits):
    trainer, own = a_trainer(digits, momentum=0.0), a_trainer(digits, momentum=0.0)
    given = torch.ones(4_810)
    trainer.supply(3, given)
    assert torch.equal(trainer.direction(2), own.direction(2))
    assert torch.equal(trainer.direction(3), given)
    assert torch.equal(trainer.direction(3), own.direction(3))
    with pytest.raises(ShapeMismatch):
        trainer.supply(0, given[1:])


@pytest.fixture
def pictures():
    """A task of small images with one channel or three, whose module notes the strides of what it is given."""

    def made(channels, *, channels_last):
        strides = []

        class Seen(nn.Module):
            def forward(self, x):
                strides.append(x.stride())
                return x

        def factory():
            convolution = nn.Conv2d(channels, 4, 3)
            return nn.Sequential(Seen(), convolution, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 3 * 2, 10))

        images = torch.randn(80, channels, 8, 6, generator=torch.Generator().manual_seed(1))
        data = Dataset(images[:60], torch.arange(60) % 10, images[60:], torch.arange(20) % 10)
        task = Task("pictures", factory, functional.cross_entropy, accuracy, data, channels_last=channels_last)
        return Trainer(task, torch.arange(60), 0, 0, 30, 0.9, 0.5, 0, "cpu"), strides

    return made


@pytest.mark.parametrize("channels", [1, 3])
def test_images_go_in_channels_last_where_the_task_says_so_and_nothing_else_changes(pictures, channels):
    plain, plain_strides = pictures(channels, channels_last=False)
    quick, quick_strides = pictures(channels, channels_last=True)
    torch.testing.assert_close(quick.step(0), plain.step(0), rtol=1e-5, atol=1e-6)
    assert quick.evaluate().accuracy == plain.evaluate().accuracy
    assert set(plain_strides) == {(channels * 48, 48, 6, 1)}
    assert set(quick_strides) == {(channels * 48, 1, 6 * channels, channels)}


@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("of", ["digits", "noisy"])
def test_a_gradient_that_is_foreseen_is_taken_elsewhere_and_followed_from_the_model(request, of, clip):
    task = request.getfixturevalue(of)
    one, same = a_trainer(task, clip=clip), a_trainer(task, clip=clip)
    advance(one, range(3))
    advance(same, range(3))
    before, elsewhere = one.state(), one.vector + 0.1
    one.foresee(3, elsewhere)
    assert same_state(one, before)
    agreed = one.vector - 0.2
    one.adopt(agreed)
    same.adopt(agreed)
    assert torch.equal(one.step(3), same.descend(3, same.direction(3, elsewhere)))
    assert torch.equal(one.step(3), same.step(3)), "it serves once"


def test_to_foresee_a_gradient_leaves_the_momentum_of_the_step_that_is_under_way(digits):
    one, same = a_trainer(digits), a_trainer(digits)
    advance(one, range(2))
    advance(same, range(2))
    half = one.step(2)
    one.foresee(3, half)
    one.adopt(half)
    same.adopt(same.step(2))
    assert same_state(one, same.state())


def test_a_foreseen_gradient_serves_its_own_step_only_and_no_restart(digits):
    one, same = a_trainer(digits), a_trainer(digits)
    fresh, state = [one.step(t) for t in (3, 5)], one.state()
    one.foresee(3, one.vector + 0.1)
    assert torch.equal(one.step(5), fresh[1])
    assert torch.equal(one.step(3), same.descend(3, same.direction(3, same.vector + 0.1)))
    one.foresee(3, one.vector + 0.1)
    one.restore(state)
    assert torch.equal(one.step(3), fresh[0])


def test_a_model_of_another_shape_foresees_nothing(digits):
    one = a_trainer(digits)
    state, fresh = one.state(), one.step(0)
    with pytest.raises(ShapeMismatch):
        one.foresee(0, one.vector[1:])
    assert same_state(one, state)
    assert torch.equal(one.step(0), fresh)
