"""The data sets, read, checked and normalised once.

IDX files are the user's and may be damaged: what a header declares is checked before memory is taken for it, a stream
is read no further than one byte past the declared end, and every defect is a ConfigError naming file and remedy.
"""

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from p2pnode.errors import ConfigError

LABELS = 10  # of every set here: classes 0 to 9
IDX_ITEMS_MAX = 1_000_000  # sixteen times MNIST; bounds the pixels of one file at 784 MB

_IMAGES_MAGIC = 0x0803  # unsigned bytes, three dimensions
_LABELS_MAGIC = 0x0801  # unsigned bytes, one dimension
_IMAGE_SHAPE = (28, 28)
_PIECE_BYTES = 1 << 20
_REMEDY = "copy or download the file again"

# Mean and standard deviation of the training pixels in [0, 1].
_DIGITS_NORMALISATION = (0.3053, 0.3764)
_IDX_NORMALISATION = {"mnist": (0.1307, 0.3081), "fashion-mnist": (0.2860, 0.3530)}


class Data(Protocol):
    """A training and a test set of samples, each of features and a label, on the CPU."""

    @property
    def draws(self) -> bool:
        """Whether what a training sample is may depend on torch's global randomness, as augmented images do."""

    @property
    def labels(self) -> Tensor:
        """(N, …), those of the training set, in order."""

    @property
    def samples(self) -> int:
        """N, how many the training set has."""

    @property
    def tests(self) -> int:
        """M, how many the test set has."""

    def train(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Features and labels of some training samples, in that order."""

    def test(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Features and labels of the test samples begin, …, end − 1."""

    def relabelled(self, turn: Callable[[Tensor], Tensor]) -> "Data":
        """The same data, with other training labels."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set, normalised and on the CPU, held as tensors.

    Attributes:
        train_x: (N, *shape) float32.
        train_y: (N,) int64.
        test_x: (M, *shape) float32.
        test_y: (M,) int64.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor

    draws = False

    @property
    def labels(self) -> Tensor:
        return self.train_y

    @property
    def samples(self) -> int:
        return len(self.train_y)

    @property
    def tests(self) -> int:
        return len(self.test_y)

    def train(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.train_x[rows], self.train_y[rows]

    def test(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        return self.test_x[begin:end], self.test_y[begin:end]

    def relabelled(self, turn: Callable[[Tensor], Tensor]) -> "Dataset":
        return replace(self, train_y=turn(self.train_y))


def load(task_name: str, data_dir: Path | None) -> Dataset:
    """Return the data of a task, the same tensors on every machine.

    Args:
        task_name: `digits`, `mnist` or `fashion-mnist`.
        data_dir: The folder that holds the four IDX files, each plain or with `.gz` (which is taken if both are
            there). `digits` needs none.

    Raises:
        ConfigError: The task, the folder or a file is missing or wrong.
    """
    if task_name == "digits":
        return _digits()
    if task_name not in _IDX_NORMALISATION:
        known = ", ".join(["digits", *_IDX_NORMALISATION])
        raise ConfigError(f"task: there are no data for {task_name!r}; choose one of {known}")
    return _idx_dataset(_existing_folder(task_name, data_dir), *_IDX_NORMALISATION[task_name])


def _digits() -> Dataset:
    """1,437 training and 360 test images, (64,) features each: every fifth sample of the label-sorted set is a test.

    So each label gives a fifth of its samples, give or take one, and the split depends on no seed or library version.
    """
    samples = _digits_of_sklearn()
    pixels, labels = samples[:, :-1], samples[:, -1]
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[np.argsort(labels, kind="stable")[::5]] = True
    mean, deviation = _DIGITS_NORMALISATION
    x = torch.from_numpy(((pixels / 16 - mean) / deviation).astype(np.float32))  # pixels count 0 to 16
    y = torch.from_numpy(labels.astype(np.int64))
    test = torch.from_numpy(is_test)
    return Dataset(x[~test], y[~test], x[test], y[test])


def _digits_of_sklearn() -> NDArray[np.float64]:
    """(1797, 65), the pixels and the label of each: what `sklearn.datasets.load_digits` reads.

    To import that takes 80 MiB of every node, and seconds on a busy machine, for one file.
    """
    sklearn = find_spec("sklearn")
    assert sklearn is not None, "it is among our dependencies"
    assert sklearn.submodule_search_locations is not None
    with gzip.open(Path(sklearn.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        return np.loadtxt(file, delimiter=",")


def _existing_folder(task_name: str, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise ConfigError(f"data_dir: task {task_name} reads its images from files; name the folder that holds them")
    if not data_dir.is_dir():
        raise ConfigError(f"data_dir: {data_dir} is no folder; name the one that holds the files of {task_name}")
    return data_dir


def _idx_dataset(folder: Path, mean: float, deviation: float) -> Dataset:
    parts = []
    for prefix in ("train", "t10k"):
        images_path = _existing_file(folder, f"{prefix}-images-idx3-ubyte")
        labels_path = _existing_file(folder, f"{prefix}-labels-idx1-ubyte")
        images = _read_idx(images_path, _IMAGES_MAGIC, _IMAGE_SHAPE)
        labels = _read_idx(labels_path, _LABELS_MAGIC, ())
        _check_labels(labels, len(images), labels_path, images_path)
        parts.append(images.unsqueeze(1).float().div_(255).sub_(mean).div_(deviation))  # one channel
        parts.append(labels.long())
    return Dataset(*parts)


def _existing_file(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise ConfigError(f"data_dir: {folder} holds neither {name}.gz nor {name}; put the file there")


def _read_idx(path: Path, magic: int, item_shape: tuple[int, ...]) -> Tensor:
    """Return the items of one IDX file, (count, *item_shape) uint8."""
    try:
        with _open(path) as stream:
            count = _read_header(stream, path, magic, item_shape)
            declared = count * int(np.prod(item_shape, dtype=np.int64))
            # One byte more than declared shows a file that is too long, and makes gzip verify its checksum.
            items = _read_at_most(stream, declared + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: unreadable or damaged ({error}); {_REMEDY}") from error
    if len(items) != declared:
        what = "more" if len(items) > declared else f"only {len(items)}"
        raise ConfigError(f"{path}: its header declares {declared} bytes of items, it holds {what}; {_REMEDY}")
    return torch.frombuffer(items, dtype=torch.uint8).view(count, *item_shape)


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _read_header(stream: io.BufferedIOBase, path: Path, magic: int, item_shape: tuple[int, ...]) -> int:
    """Return the number of items, once magic, item shape and bounds are as they must be."""
    layout = struct.Struct(f">{2 + len(item_shape)}I")
    header = stream.read(layout.size)
    if len(header) < layout.size:
        raise ConfigError(f"{path}: ends within its {layout.size}-byte header; {_REMEDY}")
    found_magic, count, *shape = layout.unpack(header)
    if found_magic != magic:
        raise ConfigError(
            f"{path}: begins with magic {found_magic:#010x}, not {magic:#010x}: another format; {_REMEDY}"
        )
    if tuple(shape) != item_shape:
        raise ConfigError(f"{path}: holds items of shape {tuple(shape)}, not {item_shape}; {_REMEDY}")
    if not 1 <= count <= IDX_ITEMS_MAX:
        raise ConfigError(f"{path}: declares {count} items, not 1 to {IDX_ITEMS_MAX}; {_REMEDY}")
    return int(count)


def _read_at_most(stream: io.BufferedIOBase, limit: int) -> bytearray:
    """Read in pieces, so that memory grows with what is there and not with what was declared."""
    content = bytearray()
    while len(content) < limit and (piece := stream.read(min(_PIECE_BYTES, limit - len(content)))):
        content += piece
    return content


def _check_labels(labels: Tensor, images: int, labels_path: Path, images_path: Path) -> None:
    if len(labels) != images:
        raise ConfigError(
            f"{labels_path}: holds {len(labels)} labels for the {images} images of {images_path}; "
            "take both files from one set"
        )
    wrong = (labels >= LABELS).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise ConfigError(f"{labels_path}: label {first} is {int(labels[first])}, not 0 to {LABELS - 1}; {_REMEDY}")
