"""Attacks on vectors: what colluding liars say, given the honest vectors that they have seen in this round.

Everywhere `honest` is (h, d), floating, h ≥ 1: rows the liars hold before they speak, the liar's own honest vector
possibly among them. What is returned is (d,), of the same dtype and on the same device, and never a view.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from statistics import NormalDist
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from protocols.header import Slot

ALIE_Z = 1.5
"""Standard deviations of a-little-is-enough; as in the published code of ByzantineMomentum and ByzFL."""

RANDOM_STD = 200.0
"""Standard deviation of random vectors, per coordinate; as in published code of MoNNA. A model's weights are below 1,
so a single such vector in a mean leaves nothing of the model."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a liar knows when it is about to lie.

    Args:
        honest: (h, d), h ≥ 1: honest vectors of this slot, seen or forecast.
        members: whose they are, in order of the rows.
        slot: where the lie is told.
        n: how many members there are.
        f: how many of them the recipe tolerates as liars.
        liars: how many lie, this one among them, ≥ 1.
        rule: the aggregation rule that will mix the lie.
        generator: for chance; of the device of `honest`.
        own: (d,), what the liar would say if it were honest; None unless the attack wants it.
        centre: (d,), the model that the step began from, where models are exchanged and it is known; None otherwise.
        target: the row of the member that is told this lie; None where it is for all, or for one whose row is missing.
    """

    honest: Tensor
    members: tuple[int, ...]
    slot: Slot
    n: int
    f: int
    liars: int
    rule: str
    generator: Generator
    own: Tensor | None = None
    centre: Tensor | None = None
    target: int | None = None


VectorAttack: TypeAlias = Callable[[Situation], Tensor]
"""What is said in a situation. One may remember the situations before; each liar has its own."""


def spread(honest: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per coordinate, the population's (divided by h): 0 for h = 1."""
    mean = honest.mean(dim=0)
    return mean, (honest - mean).square_().mean(dim=0).sqrt_()  # torch.std along rows takes 25 times as long on a CPU


def a_little_is_enough(honest: Tensor, z: float = ALIE_Z) -> Tensor:
    """mean − z·std per coordinate: the truth for h = 1.

    Source: Baruch, Baruch, Goldberg, arXiv 1902.06156.
    """
    mean, std = spread(honest)
    return mean - z * std


def paper_z(n: int, f: int) -> float:
    """z = Φ⁻¹((n−f−s)/(n−f)) with s = ⌊n/2+1⌋−f: so far from the mean that a lie still has s honest supporters.

    Negative, so that the lie is on the other side of the mean, for f much below n/2; `ALIE_Z` where the formula has no
    value.

    Source: Baruch, Baruch, Goldberg, arXiv 1902.06156, algorithm 3.
    """
    supporters = n // 2 + 1 - f
    share = (n - f - supporters) / (n - f)
    return NormalDist().inv_cdf(share) if 0 < share < 1 else ALIE_Z


def inner_product_manipulation(honest: Tensor, epsilon: float) -> Tensor:
    """−ε·mean: among the honest its inner product with their mean is negative, however small it is.

    Source: Xie, Koyejo, Gupta, "Fall of Empires", arXiv 1903.03936.
    """
    return -epsilon * honest.mean(dim=0)


def sign_flip(honest: Tensor) -> Tensor:
    """−mean: leads peers the way back."""
    return -honest.mean(dim=0)


def gaussian(honest: Tensor, generator: Generator, std: float = RANDOM_STD) -> Tensor:
    """Independent N(0, std²) in each coordinate, whatever the honest say."""
    lie = torch.empty_like(honest[0], memory_format=torch.contiguous_format)
    return lie.normal_(0, std, generator=generator)


def constant(honest: Tensor, value: float) -> Tensor:
    """The same number in each coordinate; the largest finite one where the dtype does not reach so far."""
    if isfinite(value):
        value = min(value, torch.finfo(honest.dtype).max)
    return torch.full_like(honest[0], value, memory_format=torch.contiguous_format)


def anti_elimination(honest: Tensor, f: int, centre: Tensor | None = None) -> Tensor:
    """Minus the sum of the honest vectors that elimination would keep, of a length at which it is kept itself.

    Comparative elimination keeps the vectors nearest to `centre`, all but the f farthest. Of h honest ones and f lies
    the h−f nearest survive whatever the lies are, so lies a little nearer than the next one survive as well.

    Args:
        honest: (h, d).
        f: how many are eliminated, which is how many lie.
        centre: (d,), what distances are measured from: the round's model; None for the origin, as of gradients.

    Source: algorithm comparative elimination, arXiv 2108.11769, and that of gradients (CGE), arXiv 2101.12316; the
    attack, their experiments.
    """
    if centre is not None:
        honest = honest - centre
    lengths = honest.norm(dim=1)
    order = lengths.argsort(stable=True)
    next_one = max(0, min(len(honest) - f, len(honest) - 1))
    direction = honest[order[: max(1, next_one)]].sum(dim=0)
    length = _JUST_BELOW * lengths[order[next_one]]
    lie = direction.mul_(-length / direction.norm().clamp_min(torch.finfo(honest.dtype).tiny))
    return lie if centre is None else lie.add_(centre)


_JUST_BELOW = 0.99
"""Of a length, to be shorter than it over any rounding and in the honest vectors that others see."""


def dissensus(honest: Tensor, target: int | None, honest_count: int, liars: int, epsilon: float) -> Tensor:
    """θ_i − ε·Σ_j (θ_j−θ_i) / b for the target i: b such lies take back ε times what gossip of equal weights moves it.

    At ε = 1 the mean of all n is θ_i itself; above, nodes drift apart. The sum goes over all honest members, those that
    were not seen being taken for the mean of those that were. Without a target θ_i is that mean, and so is the lie.

    Args:
        honest: (h, d).
        target: row of the member to be told.
        honest_count: n − b, how many are honest.
        liars: b, ≥ 1.
        epsilon: ε.

    Source: He, Karimireddy, Jaggi, "Byzantine-robust decentralized learning via ClippedGossip", arXiv 2202.01545.
    """
    mean = honest.mean(dim=0)
    if target is None:
        return mean
    return torch.lerp(honest[target], mean, -epsilon * honest_count / liars)


class Mimic:
    """A copy of one honest member's vector: among data that differ, they count for more than the others'.

    Before `warm_up` steps it copies the first that it sees. Meanwhile it learns z, the direction in which the honest
    differ the most, as the mean of the steps' directions, each by one power iteration from the one before. Then it
    chooses whose |⟨x, z⟩| is the largest, for good. Where that member is not seen, it copies the first again.

    Source: Karimireddy, He, Jaggi, "Byzantine-robust learning on heterogeneous datasets via bucketing",
    arXiv 2006.09365; the choice by one step's products, as in the published code of MoNNA.
    """

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._direction: Tensor | None = None
        self._seen = 0
        self._chosen: int | None = None

    def __call__(self, situation: Situation) -> Tensor:
        honest, members = situation.honest, situation.members
        if self._chosen is None:
            self._learn(honest)
            if situation.slot.step >= self._warm_up and self._direction is not None:
                self._chosen = members[int((honest @ self._direction).abs().argmax())]
        return honest[members.index(self._chosen) if self._chosen in members else 0].clone()

    def _learn(self, honest: Tensor) -> None:
        differences = honest - honest.mean(dim=0)
        z = self._direction
        found = differences[int(differences.norm(dim=1).argmax())] if z is None else (differences @ z) @ differences
        length = found.norm()
        if length > 0:
            mean = found / length if z is None else torch.lerp(z, found / length, 1 / (self._seen + 1))
            self._direction = mean / mean.norm()
            self._seen += 1


class Stale:
    """One's own honest vector of `steps` steps ago, or the oldest there is: what a node says that never gets on.

    Each exchange has its own; in the later sub-rounds of an averaging agreement it is that of the first.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._kept: dict[int, deque[Tensor]] = {}

    def __call__(self, situation: Situation) -> Tensor:
        assert situation.own is not None
        kept = self._kept.setdefault(situation.slot.exchange, deque(maxlen=self._steps + 1))
        if situation.slot.sub_round == 0:
            kept.append(situation.own)
        return (kept[0] if kept else situation.own).clone()


def too_long(own: Tensor) -> Tensor:
    """One's own vector and a coordinate more: must be refused before it is mixed."""
    return torch.cat([own, own[:1]])


def reflection(vector: Tensor, around: Tensor) -> Tensor:
    """2·around − vector: as far from `around` as `vector` is, on the other side, so that the two average to it.

    Args:
        vector: (d,).
        around: (d,), same dtype and device.
    """
    return 2 * around - vector
