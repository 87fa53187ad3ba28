"""Memory that is used again: by nobody while it is referred to in any way, and then by the next."""

import gc
import threading

import numpy as np
import pytest
import torch

from p2pnode.net.memory import RECYCLED_BYTES_MIN, Memory

LONG = RECYCLED_BYTES_MIN


def address(array):
    return array.__array_interface__["data"][0]


def test_what_nobody_refers_to_any_more_goes_to_who_asks_next():
    memory = Memory()
    one = memory.take(LONG)
    where = address(one)
    other = memory.take(LONG)
    assert address(other) != where
    del one
    assert address(memory.take(2 * LONG)) != where, "of another length"
    assert address(memory.take(LONG)) == where


SHARES = {
    "a view": lambda array: array.view(np.float32),
    "a slice of a view": lambda array: array.view(np.float32)[3:5],
    "a tensor": lambda array: torch.from_numpy(array.view(np.float32)),
    "a part of a tensor": lambda array: torch.from_numpy(array)[7:].view(torch.int8),
    "its bytes": lambda array: array.data,
    "some of its bytes": lambda array: array.view(np.uint16).data[1:3],
    "what numpy makes of its bytes": lambda array: np.frombuffer(array.data, np.int32),
}


@pytest.mark.parametrize("share", SHARES)
def test_memory_that_is_shared_in_any_way_is_given_to_nobody_else(share):
    memory = Memory()
    array = memory.take(LONG)
    where, shared = address(array), SHARES[share](array)
    del array
    gc.collect()
    assert address(memory.take(LONG)) != where
    del shared
    gc.collect()
    assert where in {address(array) for array in [memory.take(LONG) for _ in range(3)]}


def test_a_thread_may_be_the_last_to_refer_to_it():
    memory = Memory()
    held = [memory.take(LONG)]
    where = address(held[0])
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert address(memory.take(LONG)) == where


def test_short_ones_are_left_to_the_allocator():
    memory = Memory()
    memory.take(LONG - 1)
    assert not memory._free
