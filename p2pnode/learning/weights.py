"""A model's weights by name: written and read as safetensors, put into a module, and named by a digest.

They are the module's `state_dict`, so that whoever has its class reads them without p2pnode. Nothing that is read here
can run code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import blake3
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from p2pnode.durable import replace_file, write_all
from p2pnode.errors import ConfigError
from p2pnode.learning.flat import exchanged, statistics

_DOMAIN = b"p2pnode/weights/v1\0"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What all members' models must have in common before the first step.

    Args:
        parameters: d, how many numbers are exchanged.
        layout: hexadecimal digest of the names, shapes and dtypes of all weights, and of which are exchanged.
        start: hexadecimal digest of what they begin as; running statistics not counted, which are each node's own.
    """

    parameters: int
    layout: str
    start: str


def fingerprint(module: nn.Module) -> Fingerprint:
    """What a module is, and begins as."""
    trained, running = exchanged(module), _running(module)
    layout, start = blake3.blake3(_DOMAIN + b"layout"), blake3.blake3(_DOMAIN + b"start")
    for name, tensor in _weights(module).items():
        if name not in running:
            layout.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)} {name in trained}\n".encode())
            start.update(_bytes(tensor))
    return Fingerprint(sum(parameter.numel() for parameter in trained.values()), layout.hexdigest(), start.hexdigest())


def packed(module: nn.Module, about: Mapping[str, str]) -> bytes:
    """A safetensors file of the module's weights; tied ones under each of their names."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _weights(module).items()}
    return save(tensors, dict(about))


def write(path: Path, module: nn.Module, about: Mapping[str, str]) -> None:
    """Make `path` a safetensors file of the module's weights, in one piece."""
    content = packed(module, about)
    replace_file(path, lambda fd: write_all(fd, content))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by name, and what is said about them.

    Raises:
        ConfigError: if there is none, or it is damaged.
    """
    try:
        with path.open("rb"):
            pass  # so that it is told why it cannot be opened
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}. Remedy: name a safetensors file") from error
    except (SafetensorError, ValueError) as error:
        raise ConfigError(f"{path}: no safetensors file ({error}). Remedy: copy it again, or export one") from error


def fill(module: nn.Module, weights: Mapping[str, Tensor], source: str | Path) -> nn.Module:
    """Put weights into a module, each as its dtype there; the module itself.

    A tied one may be given by any of its names, and running statistics may be missing.

    Raises:
        ConfigError: naming the source, if a weight is missing or of another shape, or the module has none of that name.
    """
    wanted, running = _weights(module), _running(module)
    given = {id(wanted[name]) for name in weights if name in wanted}
    missing = [name for name, tensor in wanted.items() if id(tensor) not in given and name not in running]
    strange = [name for name in weights if name not in wanted]
    unlike = [name for name in weights if name in wanted and weights[name].shape != wanted[name].shape]
    for names, what in ((missing, "it lacks"), (strange, "the model has no"), (unlike, "of another shape is")):
        if names:
            more = f" and {len(names) - 1} more" if names[1:] else ""
            raise ConfigError(f"{source}: {what} {names[0]}{more}. Remedy: take the weights of this model, or its code")
    with torch.no_grad():
        for name, tensor in weights.items():
            wanted[name].copy_(tensor)
    return module


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module's `state_dict` themselves."""
    named = module.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in named.items() if isinstance(tensor, Tensor)}


def _running(module: nn.Module) -> set[str]:
    """Names of what layers of running statistics keep beside their parameters."""
    kept = ("running_mean", "running_var", "num_batches_tracked")
    return {f"{layer}.{name}" if layer else name for layer in statistics(module) for name in kept}


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
