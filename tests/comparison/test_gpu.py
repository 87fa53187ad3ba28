"""A GPU computes what the CPU does, but for rounding; skipped where there is none."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from p2pnode.learning.cohort import Cohort
from p2pnode.learning.partition import partition
from p2pnode.learning.task import build
from p2pnode.learning.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CLOSE = 1e-4
"""Of a vector's norm: TF32 is off unless somebody turns it on."""

CLOSE_IN_BFLOAT16 = 3e-2


class Small(nn.Module):
    """A convolutional network, with or without what draws and what keeps statistics."""

    def __init__(self, dropout=0.0, normalised=False):
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8) if normalised else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(8 * 36, 10)

    def forward(self, x):
        hidden = self.norm(self.convolution(x.view(-1, 1, 8, 8).to(self.out.weight.dtype))).relu()
        return self.out(self.drop(hidden.flatten(1))).float()


@pytest.fixture(scope="module")
def digits():
    return build("digits", None)


def trainers(task, nodes=1, devices=("cpu", "cuda"), **options):
    """For each device those of so many nodes."""
    return [
        [
            Trainer(task, partition(task.data.labels, node, 5, 3, None), 3, node, 32, 0.9, 0.5, 0, device, **options)
            for node in range(nodes)
        ]
        for device in devices
    ]


def assert_near(ours, theirs, close=CLOSE):
    assert ours.device.type == "cpu"
    assert torch.linalg.vector_norm(ours - theirs) <= close * torch.linalg.vector_norm(theirs)


@pytest.mark.parametrize(
    ("options", "close"),
    [
        ({}, CLOSE),
        ({"pieces": 5}, CLOSE),
        ({"local_steps": 3, "clip": 0.5}, CLOSE),
        ({"placement": "update"}, CLOSE),
        ({"autocast": True}, CLOSE_IN_BFLOAT16),
    ],
)
def test_directions_and_steps_are_the_cpus(digits, options, close):
    (cpu,), (gpu,) = trainers(replace(digits, factory=Small), **options)
    for t in range(3):
        assert_near(gpu.direction(t), cpu.direction(t), close)
        assert gpu.batch_loss == pytest.approx(cpu.batch_loss, rel=close)
        moved = cpu.step(t)
        assert_near(gpu.step(t), moved, close)
        gpu.adopt(moved)
        cpu.adopt(moved)


def test_what_layers_draw_is_repeated_after_a_restart_and_disturbs_nobody(digits):
    """But for rounding: the order in which a GPU adds up the gradients of a convolution may be another each time."""
    noisy = replace(digits, factory=lambda: Small(dropout=0.5))
    [trainer], [again], [other] = trainers(noisy, devices=("cuda",) * 3)
    before = torch.cuda.get_rng_state()
    for t in range(3):
        trainer.adopt(trainer.step(t))
    for one in (again, other):
        one.restore(trainer.state())
    direction = trainer.direction(3)
    assert_near(again.direction(3), direction)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    other._layer_noise = lambda t: nullcontext()
    with pytest.raises(AssertionError):
        assert_near(other.direction(3), direction)


def test_models_are_judged_as_on_the_cpu(digits):
    (cpu,), (gpu,) = trainers(replace(digits, factory=lambda: Small(normalised=True)))
    for t in range(20):
        cpu.adopt(cpu.step(t))
    gpu.restore(cpu.state())
    mine, theirs = gpu.evaluate(), cpu.evaluate()
    assert (mine.loss, mine.samples) == (pytest.approx(theirs.loss, rel=1e-3), theirs.samples)
    assert mine.accuracy == pytest.approx(theirs.accuracy, abs=2 / theirs.samples)
    assert mine.accuracy > 0.8


def test_a_gradient_foreseen_at_another_model_is_taken_there(digits):
    (cpu,), (gpu,) = trainers(replace(digits, factory=Small))
    elsewhere = cpu.vector + 0.01
    for trainer in (cpu, gpu):
        trainer.foresee(0, elsewhere)
    assert_near(gpu.step(0), cpu.step(0))


def test_what_is_announced_lies_in_pinned_memory_of_its_own(digits):
    [[trainer]] = trainers(digits, devices=("cuda",))
    made = [trainer.step(0), trainer.direction(1), trainer.descend(1, trainer.direction(1))]
    assert all(vector.is_pinned() for vector in made)
    before = [vector.clone() for vector in made]
    trainer.adopt(trainer.step(2))
    assert all(torch.equal(*pair) for pair in zip(made, before, strict=True))


@pytest.mark.parametrize("factory", [None, Small, lambda: Small(dropout=0.5)])
def test_gradients_of_many_nodes_at_once_are_each_trainers_own(digits, factory):
    task = replace(digits, factory=factory or digits.factory)
    together, alone = trainers(task, 4, devices=("cuda", "cuda"))
    cohort = Cohort(task, "cuda")
    cohort.supply([(one, 7) for one in together])
    for one, other in zip(together, alone, strict=True):
        assert_near(one.step(7), other.step(7), CLOSE)
    for mine, theirs in zip(cohort.evaluate([one.vector for one in alone]), (a.evaluate() for a in alone), strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-3)


def test_a_model_in_bfloat16_follows_its_vector(digits):
    (cpu,), (gpu,) = trainers(replace(digits, factory=lambda: Small().bfloat16()))
    assert_near(gpu.step(0), cpu.step(0), CLOSE_IN_BFLOAT16)
