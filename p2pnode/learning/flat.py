"""A model whose parameters are one vector, and whose gradients are another.

What nodes exchange and mix is a flat vector. Laying the parameters out as views into it makes reading it, loading it
and stepping along it single operations on contiguous memory, whatever the number of layers.
"""

import torch
from torch import Tensor, nn

from p2pnode.errors import ShapeMismatch, TrainingError


class FlatModel:
    """A module whose parameters all live in `vector` and whose gradients all live in `gradient`.

    The module must not be moved to another device, nor have its gradients set to None (`zero_grad`'s default), from
    here on: `backward` zeroes them in place, and autograd then accumulates into the views.

    Attributes:
        module: The module, on `device`.
        vector: (d,) float32, contiguous: the parameters in the order of `module.parameters()`. Live: it follows the
            parameters, and they follow it.
        gradient: (d,) float32, contiguous: the gradients in the same order, live too.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        """Move the module to the device and its parameters into one vector.

        Raises:
            TrainingError: The module keeps floating-point state outside its parameters, or has parameters that are
                not float32.
        """
        _refuse_hidden_state(module)
        _refuse_other_dtypes(module)
        self.module = module.to(device)
        parameters = list(module.parameters())
        self.vector = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        self.gradient = torch.zeros_like(self.vector)
        sizes = [parameter.numel() for parameter in parameters]
        views = zip(torch.split(self.vector, sizes), torch.split(self.gradient, sizes), strict=True)
        for parameter, (values, slopes) in zip(parameters, views, strict=True):
            parameter.data = values.view(parameter.shape)
            parameter.grad = slopes.view(parameter.shape)

    def load(self, vector: Tensor) -> None:
        """Copy a vector into the parameters.

        Args:
            vector: (d,) float32, on any device.

        Raises:
            ShapeMismatch: It has another shape or dtype; the parameters are unchanged.
        """
        require_like(vector, self.vector)
        self.vector.copy_(vector)

    def backward(self, loss: Tensor) -> None:
        """Make `gradient` the gradient of a scalar loss, and of nothing before it."""
        self.gradient.zero_()
        torch.autograd.backward(loss)


def require_like(vector: Tensor, model: Tensor) -> None:
    """Return if a vector has the shape and dtype of the model's.

    Raises:
        ShapeMismatch: It has not.
    """
    if vector.shape != model.shape or vector.dtype != model.dtype:
        raise ShapeMismatch(
            f"a vector of shape {tuple(vector.shape)} and {vector.dtype} is not the model's "
            f"{tuple(model.shape)} and {model.dtype}; every member must train the same task"
        )


def _refuse_hidden_state(module: nn.Module) -> None:
    """Running statistics would be neither exchanged nor mixed: nodes with equal vectors would compute unlike models."""
    for layer_name, layer in module.named_modules():
        for buffer_name, buffer in layer.named_buffers(recurse=False):
            if buffer.is_floating_point() or buffer.is_complex():
                where = layer_name or "the module itself"
                raise TrainingError(
                    f"layer {where} ({type(layer).__name__}) keeps {buffer_name} outside the exchanged vector; use "
                    "GroupNorm or LayerNorm, set track_running_stats=False, or hold a constant as a plain attribute"
                )


def _refuse_other_dtypes(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.dtype != torch.float32:
            raise TrainingError(f"parameter {name} is {parameter.dtype}; build the model in torch.float32")
