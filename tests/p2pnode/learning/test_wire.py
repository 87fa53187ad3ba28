"""What is announced is the nearest that the dtype has, to the bit, and finite if it may be; it comes back exactly."""

import numpy as np
import pytest
import torch

from p2pnode.learning.wire import narrow, widen
from protocols.header import BFLOAT16, FLOAT16, FLOAT32

SHORT = [BFLOAT16, FLOAT16]
LARGEST = {BFLOAT16: 3.3895313892515355e38, FLOAT16: 65504.0}
INFINITY = {BFLOAT16: 0x7F80, FLOAT16: 0x7C00}
EVERY = np.arange(2**16, dtype=np.uint16)
"""All vectors of one number."""


def floats(bits):
    return np.asarray(bits, np.uint32).view(np.float32)


def bits(announced):
    return announced.view(np.uint16).tolist()


def of_bits(pattern, dtype):
    return pattern if dtype == BFLOAT16 else pattern.view(np.float16)


def by_hand(vector, dtype):
    """Rounded to nearest, ties to even, in integers: what lies in range."""
    if dtype == FLOAT16:
        return vector.astype(np.float16).view(np.uint16)
    raw = vector.view(np.uint32).astype(np.uint64)
    return ((raw + 0x7FFF + (raw >> 16 & 1)) >> 16).astype(np.uint16)


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("length", [1, 7, 64, 100_003])
def test_rounding_is_to_nearest_and_ties_go_to_even_whatever_the_length(dtype, length):
    random = np.random.default_rng(length)
    for spread in (1e-45, 1e-38, 6e-8, 1e-3, 1.0, 1e4):  # from numbers that the dtype has hardly any bits for
        vector = (random.standard_normal(length) * spread).astype(np.float32)
        assert bits(narrow(vector, dtype)) == by_hand(vector, dtype).tolist()


def test_halfway_cases_by_hand():
    ties = floats([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0xBF808000, 0x00008000, 0x00018000])
    assert bits(narrow(ties, BFLOAT16)) == [0x3F80, 0x3F82, 0x3F81, 0x3F80, 0xBF80, 0x0000, 0x0002]
    ties = np.array([2049, 2051, 2049.001, 2**-25, 3 * 2**-25], np.float32)
    assert bits(narrow(ties, FLOAT16)) == np.array([2048, 2052, 2050, 0, 2**-23], np.float16).view(np.uint16).tolist()


@pytest.mark.parametrize("dtype", SHORT)
def test_every_number_that_can_be_announced_comes_back_as_it_was_announced(dtype):
    finite = EVERY[INFINITY[dtype] > (EVERY & 0x7FFF)]
    wide = widen(of_bits(finite, dtype))
    assert wide.dtype == np.float32
    assert bits(narrow(wide, dtype)) == finite.tolist()
    exact = finite.astype(np.uint32) << 16
    assert wide.tobytes() == (floats(exact) if dtype == BFLOAT16 else finite.view(np.float16).astype("f4")).tobytes()


@pytest.mark.parametrize("dtype", SHORT)
def test_what_is_too_large_is_announced_as_the_largest_number_and_told(dtype):
    told = []
    largest = LARGEST[dtype]
    beyond = np.array([1, np.finfo(np.float32).max, -np.finfo(np.float32).max, largest * 1.0001, largest], np.float32)
    assert widen(narrow(beyond, dtype, told.append)).tolist() == [1, largest, -largest, largest, largest]
    (why,) = told
    assert why.startswith("3 of 5 numbers are beyond")
    narrow(beyond[[0, 4]], dtype, pytest.fail)


@pytest.mark.parametrize("dtype", SHORT)
def test_what_is_no_number_is_announced_as_none(dtype):
    """Else a liar's infinity would be taken for a number, and a bug of ours not be seen."""
    strange = widen(narrow(np.array([np.inf, -np.inf, np.nan, np.finfo(np.float32).max], np.float32), dtype))
    assert np.isposinf(strange[0])
    assert np.isneginf(strange[1])
    assert np.isnan(strange[2])
    assert strange[3] == np.float32(LARGEST[dtype])


def test_float32_is_announced_and_read_where_it_lies():
    vector = np.array([1, np.inf, 3e38], np.float32)
    assert narrow(vector, FLOAT32, pytest.fail) is vector
    assert widen(vector) is vector


@pytest.mark.parametrize("dtype", SHORT)
def test_rounding_makes_a_vector_of_its_own(dtype):
    vector = np.ones(5, np.float32)
    announced = narrow(vector, dtype)
    announced[:] = 0
    assert vector.tolist() == [1] * 5
    assert announced.nbytes == 10
    wide = widen(announced)
    wide[:] = 2
    assert widen(announced).tolist() == [0] * 5


@pytest.mark.parametrize("dtype", SHORT)
def test_a_mean_of_announced_values_is_announced_within_their_range(dtype):
    random = np.random.default_rng(3)
    rows = [widen(narrow((random.standard_normal(999) * 1e-3).astype(np.float32), dtype)) for _ in range(3)]
    mixed = widen(narrow(torch.from_numpy(np.stack(rows)).mean(dim=0).numpy(), dtype))
    assert (mixed >= np.min(rows, axis=0)).all()
    assert (mixed <= np.max(rows, axis=0)).all()
