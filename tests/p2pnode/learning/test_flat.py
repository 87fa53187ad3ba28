"""The flat model: parameters and gradients are views, and nothing is kept beside them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from p2pnode.errors import ShapeMismatch, TrainingError
from p2pnode.learning.flat import FlatModel, calibrated, released, require_like, statistics

CPU = torch.device("cpu")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(48, 5), nn.LayerNorm(5), nn.Linear(5, 2)
    )


def a_loss(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    outputs = model.module(torch.randn(4, 1, 6, 6, generator=generator))
    return functional.cross_entropy(outputs, torch.tensor([0, 1, 1, 0]))


def assert_views(model):
    """Every parameter and gradient lies in its vector, in order, without gap or overlap."""
    offset = 0
    for parameter in model.module.parameters():
        for tensor, vector in ((parameter, model.vector), (parameter.grad, model.gradient)):
            assert tensor.untyped_storage().data_ptr() == vector.untyped_storage().data_ptr()
            assert tensor.storage_offset() == offset
            assert tensor.is_contiguous()
        offset += parameter.numel()
    assert offset == len(model.vector) == len(model.gradient)


def test_parameters_and_gradients_are_views_before_and_after_training():
    model = FlatModel(network(), CPU)
    assert_views(model)
    for seed in range(3):
        model.backward(a_loss(model, seed))
        assert_views(model)
    model.module.zero_grad(set_to_none=False)
    assert_views(model)
    assert not model.gradient.any()


def test_the_vector_is_the_module_in_the_order_of_its_parameters():
    model, reference = FlatModel(network(), CPU), network()
    assert torch.equal(model.vector, nn.utils.parameters_to_vector(reference.parameters()))
    assert (model.vector.dtype, model.vector.device) == (torch.float32, CPU)
    assert not model.vector.requires_grad


def test_the_gradient_is_autograds_and_of_one_loss_only():
    model, reference = FlatModel(network(), CPU), network()
    model.backward(a_loss(model, seed=5))
    model.backward(a_loss(model, seed=6))
    slopes = torch.autograd.grad(
        functional.cross_entropy(
            reference(torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(6))), torch.tensor([0, 1, 1, 0])
        ),
        list(reference.parameters()),
    )
    assert torch.allclose(model.gradient, torch.cat([slope.reshape(-1) for slope in slopes]), atol=1e-7)


def test_a_shared_parameter_is_held_once():
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    assert len(FlatModel(tied, CPU).vector) == 16


def test_load_changes_what_the_module_computes_and_copies():
    model = FlatModel(network(), CPU)
    target = torch.zeros_like(model.vector)
    model.load(target)
    target.fill_(9)
    assert not model.vector.any()
    assert not any(parameter.any() for parameter in model.module.parameters())
    assert_views(model)


@pytest.mark.parametrize(
    "change",
    [
        lambda vector: vector[:-1],
        lambda vector: torch.cat([vector, vector[:1]]),
        lambda vector: vector[:1],
        lambda vector: vector.unsqueeze(0),
        lambda vector: vector.double(),
        lambda vector: vector.half(),
    ],
    ids=["short", "long", "one that would broadcast", "matrix", "float64", "float16"],
)
def test_a_vector_of_another_shape_or_dtype_is_refused_and_changes_nothing(change):
    model = FlatModel(network(), CPU)
    before = model.vector.clone()
    with pytest.raises(ShapeMismatch, match="is not the model's"):
        model.load(change(torch.ones_like(model.vector)))
    assert torch.equal(model.vector, before)


def test_require_like_accepts_the_models_own_shape():
    require_like(torch.ones(3), torch.zeros(3))


def test_frozen_parameters_are_not_exchanged_and_stay():
    module = network()
    module[0].requires_grad_(False)
    frozen = module[0].weight.clone()
    model = FlatModel(module, CPU)
    assert len(model.vector) == sum(p.numel() for p in module[1:].parameters())
    model.backward(a_loss(model))
    model.load(model.vector - model.gradient)
    assert torch.equal(module[0].weight, frozen)
    assert module[0].weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_parameters_of_another_dtype_follow_a_float32_vector_that_loses_no_small_step(dtype):
    module = nn.Sequential(nn.Linear(4, 3).to(dtype), nn.Linear(3, 2).to(dtype))
    begun = [parameter.detach().clone() for parameter in module.parameters()]
    model = FlatModel(module, CPU)
    assert (model.vector.dtype, model.gradient.dtype) == (torch.float32, torch.float32)
    for _ in range(2):  # a gradient is of one loss only
        model.backward(module(torch.ones(5, 4, dtype=dtype)).square().mean())
    reference = nn.Sequential(nn.Linear(4, 3).to(dtype), nn.Linear(3, 2).to(dtype))
    reference.load_state_dict(dict(zip(reference.state_dict(), begun, strict=True)))
    reference(torch.ones(5, 4, dtype=dtype)).square().mean().backward()
    expected = torch.cat([parameter.grad.reshape(-1).float() for parameter in reference.parameters()])
    assert torch.equal(model.gradient, expected)
    target = model.vector.clone()
    for _ in range(1000):  # each step is far below what bfloat16 or float16 can tell from nothing
        model.load(model.vector + 1e-5)
    assert torch.allclose(model.vector, target + 1e-2, atol=1e-4)
    for parameter, part in zip(module.parameters(), torch.split(model.vector, [12, 3, 6, 2]), strict=True):
        assert parameter.dtype == dtype
        assert torch.equal(parameter, part.view(parameter.shape).to(dtype))


def test_losses_in_pieces_are_followed_one_after_another_and_add_up():
    model, held = FlatModel(network(), CPU), []

    def losses():
        for seed in (5, 6):
            held.append(bool(model.gradient.any()))
            yield a_loss(model, seed) / 2

    total = model.accumulate(losses())
    assert held == [False, True]
    assert float(total) == pytest.approx((a_loss(model, 5) + a_loss(model, 6)).item() / 2)
    summed = model.gradient.clone()
    model.backward((a_loss(model, 5) + a_loss(model, 6)) / 2)
    assert torch.allclose(summed, model.gradient, atol=1e-7)


def test_a_loss_that_is_no_number_is_refused():
    model = FlatModel(network(), CPU)
    with pytest.raises(TrainingError, match=r"the loss is of shape \(4,\), no number. Remedy: "):
        model.backward(model.module(torch.ones(4, 1, 6, 6)).sum(1))


class Positions(nn.Module):
    """A constant beside the parameters, as transformers have, that `touch` is done to."""

    def __init__(self, touch):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("table", torch.ones(3))
        self.touch = touch

    def forward(self, x):
        self.touch(self)
        return self.linear(x + self.table)


def test_constants_are_kept_and_one_that_changes_in_training_is_refused():
    model = FlatModel(Positions(lambda module: None), CPU)
    model.backward(model.module(torch.ones(2, 3)).mean())
    assert len(model.vector) == 8

    def replace(module):
        module.table = module.table * 2

    for touch in (lambda module: module.table.mul_(2), replace):
        model = FlatModel(Positions(touch), CPU)
        with pytest.raises(TrainingError, match=r"the module itself \(Positions\) changes table .* Remedy: "):
            model.backward(model.module(torch.ones(2, 3)).mean())


def test_running_statistics_become_the_mean_of_the_batches_seen_and_are_left_as_they_were_set():
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3, momentum=0.2)))
    model = FlatModel(module, CPU)
    assert len(model.vector) == sum(parameter.numel() for parameter in module.parameters())
    batches = torch.randn(4, 8, 1, 6, 6)
    module(batches[0] + 100)  # what was seen in training counts for nothing
    with calibrated(module):
        for batch in batches:
            module(batch)
    seen = torch.stack([functional.relu(module[0](batch)) for batch in batches])
    layer = module[1][1]
    assert torch.allclose(layer.running_mean, seen.mean((0, 1, 3, 4)), atol=1e-5)
    assert torch.allclose(layer.running_var, seen.var((1, 3, 4)).mean(0), atol=1e-5)
    assert layer.momentum == 0.2
    assert list(statistics(module)) == ["1.1"]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Linear(2, 2).requires_grad_(False), "no parameter to train. Remedy: "),
        (nn.LazyLinear(2), "weight has no shape yet. Remedy: run the model once"),
        (nn.Linear(2, 2, dtype=torch.complex64), "weight is torch.complex64. Remedy: "),
    ],
)
def test_a_model_that_is_no_vector_is_refused(module, reason):
    with pytest.raises(TrainingError, match=reason):
        FlatModel(module, CPU)


def test_a_released_model_is_as_one_that_never_was_flat():
    model = FlatModel(network(), CPU)
    model.load(model.vector + 1)
    released(model.module)
    assert torch.equal(nn.utils.parameters_to_vector(model.module.parameters()), model.vector)
    storages = {parameter.untyped_storage().data_ptr() for parameter in model.module.parameters()}
    assert len(storages) == len(list(model.module.parameters()))
    assert all(parameter.grad is None for parameter in model.module.parameters())
