"""The flat model: parameters and gradients are views, and nothing is kept beside them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from p2pnode.errors import ShapeMismatch, TrainingError
from p2pnode.learning.flat import FlatModel, require_like

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


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True)])
def test_running_statistics_are_refused_with_layer_and_remedy(layer):
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sequential(nn.ReLU(), layer))
    with pytest.raises(TrainingError) as caught:
        FlatModel(module, CPU)
    for word in ("1.1", type(layer).__name__, "running_mean", "GroupNorm", "LayerNorm", "track_running_stats=False"):
        assert word in str(caught.value)


def test_a_lone_normalisation_layer_is_refused_too():
    with pytest.raises(TrainingError, match="the module itself"):
        FlatModel(nn.BatchNorm1d(3), CPU)


def test_stateless_normalisation_and_integer_buffers_are_accepted():
    module = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))
    module.register_buffer("positions", torch.arange(4))
    assert len(FlatModel(module, CPU).vector) == 6


def test_parameters_of_another_dtype_are_refused():
    with pytest.raises(TrainingError, match=r"0\.weight is torch\.float64"):
        FlatModel(nn.Sequential(nn.Linear(2, 2).double()), CPU)
