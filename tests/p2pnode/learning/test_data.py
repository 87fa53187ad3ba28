"""Data sets: fixed, normalised once, and every damaged file refused by name."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from p2pnode.errors import ConfigError
from p2pnode.learning import data
from p2pnode.learning.data import load

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
REAL_MNIST = Path(__file__).parents[4] / "shared" / "data" / "mnist"


def image_file(pixels, magic=0x0803, count=None, shape=(28, 28)):
    return struct.pack(">4I", magic, len(pixels) if count is None else count, *shape) + pixels.tobytes()


def label_file(labels, magic=0x0801, count=None):
    return struct.pack(">2I", magic, len(labels) if count is None else count) + bytes(labels)


PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A small correct set: 12 training images, packed, and 5 test images, unpacked."""
    (tmp_path / f"{TRAIN_IMAGES}.gz").write_bytes(gzip.compress(image_file(PIXELS)))
    (tmp_path / f"{TRAIN_LABELS}.gz").write_bytes(gzip.compress(label_file([*range(10), 0, 9])))
    (tmp_path / TEST_IMAGES).write_bytes(image_file(PIXELS[:5]))
    (tmp_path / TEST_LABELS).write_bytes(label_file([4, 3, 2, 1, 0]))
    return tmp_path


def refusal(folder, *words):
    """The set is refused, with all these words in the message."""
    with pytest.raises(ConfigError) as caught:
        load("mnist", folder)
    message = str(caught.value)
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} not in: {message}"


# digits


def test_digits_are_split_by_label_and_never_otherwise():
    first, second = load("digits", None), load("digits", None)
    assert first.train_x.shape == (1437, 64)
    assert first.test_x.shape == (360, 64)
    assert (first.train_x.dtype, first.train_y.dtype) == (torch.float32, torch.int64)
    assert torch.equal(first.train_x, second.train_x)
    assert torch.equal(first.test_y, second.test_y)
    every = torch.bincount(first.train_y) + torch.bincount(first.test_y)
    assert (torch.bincount(first.test_y) - every / 5).abs().max() < 1


def test_digits_are_standardised():
    x = torch.cat([load("digits", None).train_x, load("digits", None).test_x])
    assert abs(float(x.mean())) < 1e-3
    assert abs(float(x.std()) - 1) < 1e-3


# IDX files, as they should be


@pytest.mark.parametrize(("task", "mean", "deviation"), [("mnist", 0.1307, 0.3081), ("fashion-mnist", 0.2860, 0.3530)])
def test_idx_files_are_read_and_normalised(folder, task, mean, deviation):
    dataset = load(task, folder)
    assert dataset.train_x.shape == (12, 1, 28, 28)
    expected = (PIXELS[:, None] / 255 - mean) / deviation
    np.testing.assert_allclose(dataset.train_x.numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dataset.test_x.numpy(), expected[:5], rtol=1e-5, atol=1e-6)
    assert dataset.train_y.tolist() == [*range(10), 0, 9]
    assert dataset.test_y.tolist() == [4, 3, 2, 1, 0]
    assert (dataset.test_x.dtype, dataset.test_y.dtype) == (torch.float32, torch.int64)


def test_a_packed_file_is_taken_before_an_unpacked_one(folder):
    (folder / TRAIN_LABELS).write_bytes(b"not read")
    assert len(load("mnist", folder).train_y) == 12


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason=f"the published MNIST files are not at {REAL_MNIST}")
def test_the_published_mnist_files_are_read_whole():
    dataset = load("mnist", REAL_MNIST)
    assert dataset.train_x.shape == (60_000, 1, 28, 28)
    assert torch.bincount(dataset.train_y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(dataset.test_y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(float(dataset.train_x.mean())) < 1e-3
    assert abs(float(dataset.train_x.std()) - 1) < 1e-3


# Where the files are


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ConfigError, match="'imagenet'; choose one of digits, mnist, fashion-mnist"):
        load("imagenet", None)


def test_the_folder_must_be_named():
    refusal(None, "data_dir", "mnist", "name the folder")


def test_the_folder_must_exist(tmp_path):
    refusal(tmp_path / "absent", "data_dir", "absent", "no folder")


@pytest.mark.parametrize("name", [f"{TRAIN_IMAGES}.gz", f"{TRAIN_LABELS}.gz", TEST_IMAGES, TEST_LABELS])
def test_each_file_must_exist(folder, name):
    (folder / name).unlink()
    refusal(folder, "holds neither", name.removesuffix(".gz"), "put the file there")


# Damaged files


@pytest.mark.parametrize("kept", [5, 30, 400, -9, -1])
def test_a_truncated_gzip_file_is_refused(folder, kept):
    path = folder / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:kept])
    refusal(folder, str(path), "again")


def test_a_file_that_is_no_gzip_is_refused(folder):
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(image_file(PIXELS))
    refusal(folder, f"{TRAIN_IMAGES}.gz", "unreadable or damaged", "again")


def test_a_corrupt_deflate_stream_is_refused(folder):
    path = folder / f"{TRAIN_IMAGES}.gz"
    content = bytearray(path.read_bytes())
    content[10] |= 0b110  # the reserved block type, which no decoder accepts
    path.write_bytes(content)
    refusal(folder, str(path), "unreadable or damaged")


def test_a_wrong_checksum_is_refused_although_every_byte_decodes(folder):
    path = folder / f"{TRAIN_LABELS}.gz"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    refusal(folder, str(path), "CRC")


@pytest.mark.parametrize("length", [0, 3, 15])
def test_a_file_shorter_than_its_header_is_refused(folder, length):
    (folder / TEST_IMAGES).write_bytes(image_file(PIXELS[:5])[:length])
    refusal(folder, TEST_IMAGES, "ends within its 16-byte header")


def test_images_in_place_of_labels_are_refused(folder):
    (folder / TEST_LABELS).write_bytes(image_file(PIXELS[:5]))
    refusal(folder, TEST_LABELS, "0x00000803", "not 0x00000801")


def test_another_magic_is_refused(folder):
    (folder / TEST_IMAGES).write_bytes(image_file(PIXELS[:5], magic=0x0D03))
    refusal(folder, TEST_IMAGES, "0x00000d03", "another format")


def test_another_image_size_is_refused(folder):
    (folder / TEST_IMAGES).write_bytes(image_file(PIXELS[:5], shape=(28, 14)))
    refusal(folder, TEST_IMAGES, "(28, 14)", "(28, 28)")


@pytest.mark.parametrize("count", [0, 1_000_001, 2**32 - 1])
def test_a_count_out_of_bounds_is_refused(folder, count):
    (folder / TEST_IMAGES).write_bytes(image_file(PIXELS[:5], count=count))
    refusal(folder, TEST_IMAGES, f"declares {count} items", "1000000")


@pytest.mark.parametrize("pack", [False, True])
def test_fewer_items_than_declared_are_refused_without_taking_memory_for_them(folder, pack):
    content = image_file(PIXELS[:5], count=1_000_000)
    (folder / TEST_IMAGES).unlink()
    path = folder / (f"{TEST_IMAGES}.gz" if pack else TEST_IMAGES)
    path.write_bytes(gzip.compress(content) if pack else content)
    tracemalloc.start()
    try:
        refusal(folder, str(path), "784000000", "only 3920")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_gzip_bomb_is_read_one_byte_past_the_declared_end(folder, monkeypatch):
    read = []
    honest = data._read_at_most
    monkeypatch.setattr(data, "_read_at_most", lambda stream, limit: read.append(honest(stream, limit)) or read[-1])
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(gzip.compress(image_file(PIXELS) + bytes(50_000_000)))
    refusal(folder, f"{TRAIN_IMAGES}.gz", f"declares {12 * 784} bytes", "holds more")
    assert len(read[0]) == 12 * 784 + 1


def test_one_byte_too_many_is_refused(folder):
    (folder / TEST_LABELS).write_bytes(label_file([4, 3, 2, 1, 0]) + b"\0")
    refusal(folder, TEST_LABELS, "holds more")


def test_counts_of_images_and_labels_must_agree(folder):
    (folder / TEST_LABELS).write_bytes(label_file([4, 3, 2, 1]))
    refusal(folder, TEST_LABELS, "4 labels for the 5 images", TEST_IMAGES, "one set")


def test_a_label_out_of_range_is_refused(folder):
    (folder / TEST_LABELS).write_bytes(label_file([4, 3, 10, 1, 255]))
    refusal(folder, TEST_LABELS, "label 2 is 10", "0 to 9")
