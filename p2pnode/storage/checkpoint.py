"""What a node goes on from after a crash: checkpoints of its model, and its own latest vectors.

Both are safetensors files with a checksum over all they say, replaced in one piece; nothing that is read here can run
code.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import blake3
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from p2pnode.storage.journal import replace_file, write_all
from protocols.header import Slot

Vector = NDArray[np.float32]

_OUTBOX_KEPT = 2
"""Own vectors kept: the current slot's, and the one before it that a slower peer may ask for again."""

_STEP = re.compile("[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A node's state between two steps.

    Args:
        step: the next step to take.
        tensors: float32 arrays by name, as `Trainer.state` gives them.
    """

    step: int
    tensors: dict[str, Vector]


def save_checkpoint(path: Path, network: bytes, checkpoint: Checkpoint) -> None:
    """Make `path` hold the checkpoint; after a crash the old one or the new one is there, whole."""
    metadata = {"network": network.hex(), "step": str(checkpoint.step)}
    replace_file(path, lambda fd: write_all(fd, _sealed(checkpoint.tensors, metadata)))


def load_checkpoint(path: Path, network: bytes) -> Checkpoint | None:
    """The checkpoint of this network in `path`; None where there is none that can be used.

    A damaged one is as good as none: the node then begins again, and its signer keeps it from contradicting itself.
    """
    metadata, tensors = _whole(path)
    if metadata.get("network") != network.hex() or not _STEP.fullmatch(metadata.get("step", "")):
        return None
    return Checkpoint(int(metadata["step"]), tensors)


class Outbox:
    """One's own latest vectors, so that after a crash they are sent again, not computed again.

    A file may be missing after a power cut, since it is not synchronised: the signer then refuses what the node
    computes anew, if it differs, and the node stays silent in that slot.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def put(self, slot: Slot, vector: Vector) -> None:
        """Keep one's own vector of this slot, and forget all but the latest."""
        temporary = self._folder / "new"
        temporary.write_bytes(_sealed({"vector": vector}, {}))
        temporary.replace(self._path(slot))
        for old in sorted(self._folder.glob("*.safetensors"))[:-_OUTBOX_KEPT]:
            old.unlink()

    def get(self, slot: Slot) -> Vector | None:
        """One's own vector of this slot, if it is kept and whole."""
        return _whole(self._path(slot))[1].get("vector")

    def _path(self, slot: Slot) -> Path:
        return self._folder / f"{slot.step:020}-{slot.exchange:03}-{slot.sub_round:05}.safetensors"


def _sealed(tensors: dict[str, Vector], metadata: dict[str, str]) -> bytes:
    """A file's content."""
    ordered = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    return save(ordered, {**metadata, "checksum": _checksum(ordered, metadata)})


def _whole(path: Path) -> tuple[dict[str, str], dict[str, Vector]]:
    """Metadata and tensors of a file; nothing of either where it is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (OSError, SafetensorError, AttributeError, TypeError, ValueError):  # the last three: types foreign to numpy
        return {}, {}
    if metadata.pop("checksum", None) != _checksum(tensors, metadata):
        return {}, {}
    return metadata, tensors


def _checksum(tensors: dict[str, Vector], metadata: dict[str, str]) -> str:
    hasher = blake3.blake3(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name!r} {tensor.dtype} {tensor.shape}".encode())
        hasher.update(tensor.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()
