"""A model whose parameters are one vector, and whose gradients are another.

What nodes exchange and mix is a flat vector. Laying the parameters out as views into it makes reading it, loading it
and stepping along it single operations on contiguous memory, whatever the number of layers.

What is exchanged are the parameters that training changes, once each. Frozen ones and constants are what the model
began with, at every node. Running statistics are no state either: they serve evaluation alone, and are taken anew from
the node's own data before it (`calibrated`). So all that a node knows of its peers' models is the vector, and a rule
defends all of it.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from p2pnode.errors import ConfigError, ShapeMismatch, TrainingError


class FlatModel:
    """A module whose exchanged parameters all live in `vector` and whose gradients all live in `gradient`.

    Both are float32. A parameter of another dtype is a rounded copy of its part of the vector, and its gradients are
    added up in float32: so small steps are not lost, as they would be in bfloat16.

    The module must not be moved to another device, nor have its gradients set to None (`zero_grad`'s default), from
    here on: `accumulate` zeroes them in place, and autograd then accumulates into the views.

    Attributes:
        module: The module, on `device`.
        vector: (d,) float32, contiguous: the parameters in the order of `exchanged`. The float32 ones live in it; the
            others follow it by `load`.
        gradient: (d,) float32, contiguous: the gradients in the same order.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        """Move the module to the device and its parameters into one vector.

        Raises:
            TrainingError: The module has nothing to train, or parameters that are no real numbers.
        """
        self.module = module.to(device)
        parameters = list(exchanged(module).values())
        self.vector = torch.cat([parameter.detach().reshape(-1).float() for parameter in parameters])
        self.gradient = torch.zeros_like(self.vector)
        self._rounded: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        sizes = [parameter.numel() for parameter in parameters]
        views = zip(torch.split(self.vector, sizes), torch.split(self.gradient, sizes), strict=True)
        for parameter, (values, slopes) in zip(parameters, views, strict=True):
            if parameter.dtype == torch.float32:
                parameter.data = values.view(parameter.shape)
                parameter.grad = slopes.view(parameter.shape)
            else:
                parameter.grad = torch.zeros_like(parameter)
                self._rounded.append((parameter, values.view(parameter.shape), slopes.view(parameter.shape)))
        self._constants = [(*found, found[-1]._version) for found in _constants(module)]

    def load(self, vector: Tensor) -> None:
        """Copy a vector into the parameters.

        Args:
            vector: (d,) float32, on any device.

        Raises:
            ShapeMismatch: It has another shape or dtype; the parameters are unchanged.
        """
        require_like(vector, self.vector)
        self.vector.copy_(vector)
        for parameter, values, _ in self._rounded:
            parameter.data.copy_(values)

    def backward(self, loss: Tensor) -> None:
        """Make `gradient` the gradient of a scalar loss, and of nothing before it; see `accumulate`."""
        self.accumulate([loss])

    def accumulate(self, losses: Iterable[Tensor], copies: Sequence["FlatModel"] = ()) -> Tensor:
        """Make `gradient` that of the sum of scalar losses, and of nothing before them; return the sum, on the device.

        Each is followed back before the next is asked for, so that the memory of one is held at a time.

        Args:
            losses: What to follow back.
            copies: Models of the same parameters, on any devices, that had a part in the losses: their gradients count
                as this one's.

        Raises:
            TrainingError: A loss is no scalar, or a module changed a constant meanwhile.
        """
        models = (self, *copies)
        for model in models:
            model._forget()
        total = torch.zeros((), device=self.vector.device)
        for loss in losses:
            if loss.dim():
                raise TrainingError(f"the loss is of shape {tuple(loss.shape)}, no number. Remedy: let it be the mean")
            torch.autograd.backward(loss)
            for model in models:
                model._widen()
            total = total + loss.detach()
        for other in copies:
            self.gradient.add_(other.gradient.to(self.gradient.device))
        for model in models:
            model._require_constants()
        return total

    def _forget(self) -> None:
        """Zero all gradients where they lie."""
        self.gradient.zero_()
        for parameter, _, _ in self._rounded:
            _gradient_of(parameter).zero_()

    def _widen(self) -> None:
        """Add the gradients of parameters of other dtypes to the vector, and zero them."""
        for parameter, _, slopes in self._rounded:
            slopes.add_(_gradient_of(parameter))
            _gradient_of(parameter).zero_()

    def _require_constants(self) -> None:
        """Return if no constant changed: it would be neither exchanged nor mixed, and another one at each node."""
        for layer_name, layer, buffer_name, buffer, version in self._constants:
            if getattr(layer, buffer_name) is not buffer or buffer._version != version:
                raise TrainingError(
                    f"layer {layer_name or 'the module itself'} ({type(layer).__name__}) changes {buffer_name} while "
                    "it trains, outside the exchanged vector: nodes with equal vectors would compute unlike models. "
                    "Remedy: make it a parameter, or leave it alone"
                )


def copied(module: nn.Module) -> nn.Module:
    """A copy that shares no memory with the module; what is tied or frozen in it is so in the copy.

    Raises:
        ConfigError: The module cannot be copied.
    """
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device: each of several needs a copy of the model, and it cannot be copied: {error}. "
            "Remedy: name one device, or let copy.deepcopy(model) work"
        ) from error


def exchanged(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are exchanged, by name and in order: those that ask for gradients; tied ones once.

    Raises:
        TrainingError: There are none, or one is of no real numbers.
    """
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not named:
        raise TrainingError("the model has no parameter to train. Remedy: let one ask for gradients (requires_grad)")
    for name, parameter in named.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise TrainingError(f"parameter {name} has no shape yet. Remedy: run the model once, on one batch, before")
        if not parameter.is_floating_point():
            raise TrainingError(f"parameter {name} is {parameter.dtype}. Remedy: build the model of real numbers")
    return named


def statistics(module: nn.Module) -> dict[str, _NormBase]:
    """The layers that keep running statistics, as BatchNorm does, by name."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _NormBase) and layer.running_mean is not None
    }


@contextmanager
def calibrated(module: nn.Module) -> Iterator[None]:
    """Take the running statistics anew: they become the plain mean over all batches that the module sees meanwhile.

    The module is in training mode meanwhile, as the statistics of training are those of its batches.

    Source: "precise" batch normalisation, arXiv 2105.07576, section 3.
    """
    layers = list(statistics(module).values())
    momenta = [layer.momentum for layer in layers]
    module.train()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def released(module: nn.Module) -> None:
    """Give each parameter memory of its own again, as if the module had never been a `FlatModel`'s."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.clone()
            parameter.grad = None


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


def _constants(module: nn.Module) -> list[tuple[str, nn.Module, str, Tensor]]:
    """Buffers of real numbers that are no running statistics: layer name, layer, buffer name, buffer."""
    counting = statistics(module)
    return [
        (layer_name, layer, buffer_name, buffer)
        for layer_name, layer in module.named_modules()
        if layer_name not in counting
        for buffer_name, buffer in layer.named_buffers(recurse=False)
        if buffer.is_floating_point() or buffer.is_complex()
    ]


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "it was given one, and `zero_grad` must not take it"
    return parameter.grad
