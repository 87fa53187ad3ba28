"""Vectors on their way: rounded when they are announced, widened when they are mixed; all else is float32.

Whoever holds the same numbers announces the same bytes: to the nearest, of two as near the one whose last bit is 0. So
nobody's rounding leaves the range of values that are announced themselves, and what a rule promises of each coordinate
of a mixture still holds of the mixture announced.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocols.header import BFLOAT16, FLOAT16, FLOAT32

Vector: TypeAlias = NDArray[np.float32]
Announced: TypeAlias = NDArray[Any]
"""(d,), of the dtype of the network; bfloat16, which NumPy lacks, by its bits, as uint16."""

DTYPES = {FLOAT32: torch.float32, BFLOAT16: torch.bfloat16, FLOAT16: torch.float16}
"""Wire code → what it stands for."""


def narrow(vector: Vector, dtype: int, warn: Callable[[str], None] = lambda _: None) -> Announced:
    """The vector as it is announced: rounded to nearest, ties to even; finite if it is finite.

    What is finite and beyond the largest number of the dtype becomes that number, with its sign. Infinity would count
    as a vector that was never sent, and a model that is not announced stands still, and its node with it; the nearest
    number that can be said still points the way. Infinity and NaN stay what they are.

    Args:
        vector: (d,); returned itself where the dtype is its own.
        dtype: wire code.
        warn: told how many numbers were too large, if any were.
    """
    if dtype == FLOAT32:
        return vector
    numbers, short = torch.from_numpy(vector), DTYPES[dtype]
    most = torch.finfo(short).max
    low, high = torch.aminmax(numbers)
    if not (-most <= low and high <= most):
        beyond = numbers.isfinite() & (numbers.abs() > most)
        if count := int(beyond.sum()):
            warn(f"{count} of {len(vector)} numbers are beyond {most:g}, the largest {short}: that is said instead")
        numbers = torch.where(beyond, numbers.clamp(-most, most), numbers)
    return _array(numbers.to(short))


def widen(vector: Announced) -> Vector:
    """The numbers that were announced, exactly; the vector itself where it is float32."""
    if vector.dtype == np.float32:
        return vector
    numbers = torch.from_numpy(vector)
    wide: Vector = (numbers.view(torch.bfloat16) if vector.dtype == np.uint16 else numbers).float().numpy()
    return wide


def _array(numbers: Tensor) -> Announced:
    array: Announced = (numbers.view(torch.uint16) if numbers.dtype == torch.bfloat16 else numbers).numpy()
    return array
