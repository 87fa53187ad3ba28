"""Attacks on vectors: what colluding liars say, given the honest vectors that they have seen in this round.

Everywhere `honest` is (h, d), floating, h ≥ 1: rows the liars hold before they speak, the liar's own honest vector
possibly among them. What is returned is (d,), of the same dtype and on the same device, and never a view.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

ALIE_Z = 1.5
"""Standard deviations of a-little-is-enough; as in the published code of ByzantineMomentum and ByzFL."""

RANDOM_STD = 200.0
"""Standard deviation of random vectors, per coordinate; as in published code of MoNNA. A model's weights are below 1,
so a single such vector in a mean leaves nothing of the model."""

VectorAttack = Callable[[Tensor, Generator], Tensor]
"""(honest, generator) → the lie. The generator is on the device of `honest`; attacks without chance ignore it."""


def a_little_is_enough(honest: Tensor, z: float = ALIE_Z) -> Tensor:
    """mean − z·std per coordinate, std being the population's (divided by h): 0 for h = 1, so the truth then.

    Source: Baruch, Baruch, Goldberg, arXiv 1902.06156; there z follows from n and f, here it is a constant.
    """
    mean = honest.mean(dim=0)
    std = (honest - mean).square_().mean(dim=0).sqrt_()  # torch.std along rows takes 25 times as long on a CPU
    return mean - z * std


def sign_flip(honest: Tensor) -> Tensor:
    """−mean: leads peers the way back."""
    return -honest.mean(dim=0)


def gaussian(honest: Tensor, generator: Generator) -> Tensor:
    """Independent N(0, `RANDOM_STD`²) in each coordinate, whatever the honest say."""
    lie = torch.empty_like(honest[0], memory_format=torch.contiguous_format)
    return lie.normal_(0, RANDOM_STD, generator=generator)


def not_a_number(honest: Tensor) -> Tensor:
    """All NaN: must be refused before it is mixed."""
    return torch.full_like(honest[0], torch.nan, memory_format=torch.contiguous_format)


def reflection(vector: Tensor, around: Tensor) -> Tensor:
    """2·around − vector: as far from `around` as `vector` is, on the other side, so that the two average to it.

    Args:
        vector: (d,).
        around: (d,), same dtype and device.
    """
    return 2 * around - vector


VECTOR_ATTACKS: dict[str, VectorAttack] = {
    "alie": lambda honest, _generator: a_little_is_enough(honest),
    "sign-flip": lambda honest, _generator: sign_flip(honest),
    "random": gaussian,
    "nan": lambda honest, _generator: not_a_number(honest),
}
"""Name, as in `p2pnode.byzantine.ATTACKS`, → attack."""
