"""What a node goes on from after a crash: checkpoints of its model, and its own latest vectors.

Both are safetensors files with a checksum over all they say; nothing that is read here can run code. A checkpoint is
replaced in one piece. A vector is written over one that is needed no more: a new file and its name would cost three
waits for the disk, each step, and this is one.
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

from p2pnode.durable import make_folder, replace_file, sync, write_all, write_over
from p2pnode.errors import ConfigError, asking_disk
from p2pnode.storage.vectors import ARRAYS, Announced, Vector, digest_of
from protocols.header import BFLOAT16, FLOAT16, FLOAT32, Digest, Slot

Unusable: TypeAlias = Callable[[Path, str], None]
"""Is told of a file that is there and counts as none, and why."""

OUTBOX_STEPS = 2
"""Steps whose own vectors are said again after a crash: the last one's, and those of the one before it that a slower
peer may need."""

SPARE_STEPS = 1
"""Steps before those that are kept whose vectors stay until theirs is written over. What a crash leaves of a write is
so never a vector that is needed: it has the name of one that is not."""

_HEADER_BYTES = struct.Struct("<Q")
_ALIGNED_BYTES = 8
"""Of a safetensors file: its header begins with its own length, and ends where a number of any type may begin."""

_NAMES = {ARRAYS[FLOAT32]: "F32", ARRAYS[BFLOAT16]: "U16", ARRAYS[FLOAT16]: "F16"}
"""What safetensors calls them; bfloat16 is kept as its bits."""

_ANY = tuple(ARRAYS.values())

_STEP = re.compile("[0-9]{1,19}")
_SLOT = re.compile("([0-9]{20})-([0-9]{3})-([0-9]{5})")
_SUFFIX = ".safetensors"


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
        steps: how many steps' vectors are kept, the current one's among them, at least `OUTBOX_STEPS`.

    Raises:
        DiskError: if the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        network: bytes,
        unusable: Unusable = lambda path, why: None,
        steps: int = OUTBOX_STEPS,
    ) -> None:
        assert steps >= OUTBOX_STEPS
        self._steps = steps
        self._folder = folder
        self._network = network.hex()
        self._unusable = unusable
        make_folder(folder)
        with asking_disk(folder):
            self._recover()

    def put(self, slot: Slot, vector: Announced, digest: Digest) -> None:
        """Make one's own vector of this slot, which has this digest, durable bit for bit, and forget one of those that
        are older than the last steps."""
        tensors, digests = {"vector": vector}, {"vector": digest}
        metadata = {"network": self._network, "slot": self._path(slot).stem}

        def write(fd: int) -> None:
            _write_sealed(fd, tensors, metadata, digests)

        path = self._path(slot)
        old = next((old for old in self._files() if old.step <= slot.step - self._steps - SPARE_STEPS), None)
        if old is None or path.exists():
            replace_file(path, write)
        else:
            write_over(self._path(old), write)
            with asking_disk(path):
                self._path(old).replace(path)  # should a power cut undo it, the file says itself whose it is

    def get(self, slot: Slot) -> Announced | None:
        """One's own vector of this slot, if it is kept and whole."""
        path = self._path(slot)
        metadata, tensors = _whole(path, self._network, self._unusable, _ANY)
        return tensors.get("vector") if metadata.get("slot", path.stem) == path.stem else None

    def kept(self) -> dict[Slot, Announced]:
        """One's own vectors of the last `OUTBOX_STEPS` that are whole, in order of their slots."""
        files = self._files()
        read = {slot: self.get(slot) for slot in files if slot.step > files[-1].step - OUTBOX_STEPS}
        return {slot: vector for slot, vector in read.items() if vector is not None}

    def _recover(self) -> None:
        """Give each vector the name of the slot that it says it is of, and remove what a crash left of one."""
        newest, torn = 0, []
        for slot in reversed(self._files()):  # names lag behind: so none is given that another is yet to be freed of
            path = self._path(slot)
            metadata, _ = _whole(path, self._network, lambda path, why: None, _ANY)
            if not metadata:
                torn.append(slot)
                continue
            sync(path)  # a process that was killed while it wrote may have come to the end
            said = _slot(metadata.get("slot", path.stem)) or slot
            newest = max(newest, said.step)
            if said != slot:
                path.replace(self._path(said))
        for slot in torn:
            if slot.step <= newest - self._steps:
                self._path(slot).unlink()
        sync(self._folder)

    def _files(self) -> list[Slot]:
        slots = (_slot(file.stem) for file in self._folder.iterdir() if file.suffix == _SUFFIX)
        return sorted(slot for slot in slots if slot is not None)

    def _path(self, slot: Slot) -> Path:
        return self._folder / f"{slot.step:020}-{slot.exchange:03}-{slot.sub_round:05}{_SUFFIX}"


def _slot(name: str) -> Slot | None:
    """Which slot's vector has this name, if one's has."""
    numbers = _SLOT.fullmatch(name)
    return Slot(*map(int, numbers.groups())) if numbers else None


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
