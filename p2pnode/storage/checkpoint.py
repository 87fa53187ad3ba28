"""What a node goes on from after a crash: checkpoints of its model, and its own latest vectors.

Both are safetensors files with a checksum over all they say, replaced in one piece; nothing that is read here can run
code.
"""

import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import blake3
import numpy as np
from safetensors import SafetensorError, safe_open

from p2pnode.durable import make_folder, replace_file, write_all
from p2pnode.errors import ConfigError, asking_disk
from p2pnode.storage.vectors import ARRAYS, Announced, Vector, digest_of
from protocols.header import BFLOAT16, FLOAT16, FLOAT32, Digest, Slot

Unusable: TypeAlias = Callable[[Path, str], None]
"""Is told of a file that is there and counts as none, and why."""

OUTBOX_STEPS = 2
"""Steps whose own vectors are kept: the current one's, and those of the one before it that a slower peer may need."""

_HEADER_BYTES = struct.Struct("<Q")
_ALIGNED_BYTES = 8
"""Of a safetensors file: its header begins with its own length, and ends where a number of any type may begin."""

_NAMES = {ARRAYS[FLOAT32]: "F32", ARRAYS[BFLOAT16]: "U16", ARRAYS[FLOAT16]: "F16"}
"""What safetensors calls them; bfloat16 is kept as its bits."""

_STEP = re.compile("[0-9]{1,19}")
_SLOT = re.compile(r"([0-9]{20})-([0-9]{3})-([0-9]{5})\.safetensors")


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
    replace_file(path, lambda fd: _write_sealed(fd, checkpoint.tensors, metadata))


def load_checkpoint(path: Path, network: bytes, unusable: Unusable = lambda path, why: None) -> Checkpoint | None:
    """The checkpoint of this network in `path`; None where there is none that can be used.

    A damaged one is as good as none: the node then begins again, and its signer keeps it from contradicting itself.

    Raises:
        ConfigError: if it may not be read.
    """
    metadata, tensors = _whole(path, network.hex(), unusable)
    if not metadata:
        return None
    if not _STEP.fullmatch(metadata.get("step", "")):
        unusable(path, "its step is none")
        return None
    return Checkpoint(int(metadata["step"]), tensors)


class Outbox:
    """One's own latest vectors, so that after a crash they are sent again, not computed again.

    A vector is durable before it is signed. Should a file be lost nevertheless, the signer refuses what the node
    computes anew, if it differs, and the node stays silent in that slot.

    Args:
        folder: where they lie.
        network: whose slots they belong to; what another network left is not read.
        unusable: is told of vectors that are there and cannot be sent again.

    Raises:
        DiskError: if the folder cannot be written to.
    """

    def __init__(self, folder: Path, network: bytes, unusable: Unusable = lambda path, why: None) -> None:
        self._folder = folder
        self._network = network.hex()
        self._unusable = unusable
        make_folder(folder)

    def put(self, slot: Slot, vector: Announced, digest: Digest) -> None:
        """Make one's own vector of this slot, which has this digest, durable bit for bit, and forget those of steps
        before the last."""
        tensors, metadata, digests = {"vector": vector}, {"network": self._network}, {"vector": digest}
        replace_file(self._path(slot), lambda fd: _write_sealed(fd, tensors, metadata, digests))
        for old in self._files():
            if old.step <= slot.step - OUTBOX_STEPS:
                with asking_disk(self._path(old)):
                    self._path(old).unlink()

    def get(self, slot: Slot) -> Announced | None:
        """One's own vector of this slot, if it is kept and whole."""
        _, tensors = _whole(self._path(slot), self._network, self._unusable, tuple(ARRAYS.values()))
        return tensors.get("vector")

    def kept(self) -> dict[Slot, Announced]:
        """One's own vectors that are kept and whole, in order of their slots."""
        read = {slot: self.get(slot) for slot in self._files()}
        return {slot: vector for slot, vector in read.items() if vector is not None}

    def _files(self) -> list[Slot]:
        names = (_SLOT.fullmatch(file.name) for file in self._folder.iterdir())
        return sorted(Slot(*map(int, name.groups())) for name in names if name)

    def _path(self, slot: Slot) -> Path:
        return self._folder / f"{slot.step:020}-{slot.exchange:03}-{slot.sub_round:05}.safetensors"


def _write_sealed(
    fd: int, tensors: Mapping[str, Announced], metadata: dict[str, str], digests: Mapping[str, Digest] | None = None
) -> None:
    """Write a file's content, each tensor from where it lies: what `safetensors` would write, without its two copies of
    everything, which a node of a large model has no memory for. `digests` are those of the tensors, if they are known.
    """
    ordered = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    header: dict[str, Any] = {"__metadata__": {**metadata, "checksum": _checksum(ordered, metadata, digests)}}
    end = 0
    for name, tensor in ordered.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": (begin, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED_BYTES)
    write_all(fd, _HEADER_BYTES.pack(len(text)) + text)
    for tensor in ordered.values():
        write_all(fd, tensor.reshape(-1).view(np.uint8).data)


def _whole(
    path: Path, network: str, unusable: Unusable, dtypes: Sequence[np.dtype[Any]] = (ARRAYS[FLOAT32],)
) -> tuple[dict[str, str], dict[str, Announced]]:
    """Metadata and tensors of a file; nothing of either where it is missing, damaged or another network's,
    or where it holds other numbers than these."""
    try:
        with path.open("rb"):
            pass  # so that it is told why it cannot be opened
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except FileNotFoundError:
        return {}, {}
    except PermissionError as error:
        raise ConfigError(f"{path}: {error.strerror}. Remedy: let this user read and write it") from error
    except (OSError, SafetensorError, AttributeError, TypeError, ValueError) as error:  # types foreign to numpy, too
        unusable(path, f"it is damaged: {error}")
        return {}, {}
    if metadata.pop("checksum", None) != _checksum(tensors, metadata):
        unusable(path, "it is damaged: its checksum is another")
        return {}, {}
    if metadata.get("network") != network:
        unusable(path, "it is another network's")
        return {}, {}
    if any(tensor.dtype not in dtypes for tensor in tensors.values()):
        unusable(path, f"it holds other numbers than {' or '.join(dtype.name for dtype in dtypes)}")
        return {}, {}
    return metadata, tensors


def _checksum(
    tensors: Mapping[str, Announced], metadata: dict[str, str], digests: Mapping[str, Digest] | None = None
) -> str:
    """Over all that a file says; the tensors by their digests: that of a vector has been reckoned already."""
    hasher = blake3.blake3(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name!r} {tensor.dtype} {tensor.shape}".encode())
        hasher.update(digests[name] if digests is not None else digest_of(tensor.reshape(-1)))
    return hasher.hexdigest()
