"""How strong a lie is against the very rule that will mix it, and the strongest along a line.

A receiver mixes n−f vectors, those of all liars among them: its mixture is computed here as it would be there, and the
distance from the honest mean is what the lie achieved.

A search computes many mixtures, so it looks at shorter vectors. Of a rule that looks at lengths and distances alone
they are exact: h honest vectors and the line of the lie span so few dimensions that as many coordinates tell all their
inner products. Of any other rule they are a sample of the coordinates, the same for all liars, drawn anew for each
slot, and scaled so that lengths are right on average.

Source: the line search of the published experiments of ByzantineMomentum and MoNNA; the reductions, these arguments.
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import sqrt
from typing import TypeAlias
from zlib import crc32

import torch
from torch import Generator, Tensor

from p2pnode.aggregation import aggregate, find
from p2pnode.byzantine.vectors import Situation, VectorAttack, spread
from p2pnode.errors import NonFinite
from protocols.header import Slot

EVALUATIONS = 16
"""Mixtures that a line search computes; as in the published code of MoNNA."""

CONTRACTION = 0.8
"""What the step of a line search shrinks by, once it no longer grows; as in the published code of MoNNA."""

SAMPLE = 20_480
"""Coordinates in a sample. The relative error of a length over so many is about 1 % for coordinates alike."""


def displacement(situation: Situation, lie: Tensor) -> float:
    """‖mixture − honest mean‖ at the first honest receiver, if all liars tell this lie; 0 if it is refused.

    Args:
        situation: where.
        lie: (d,).
    """
    honest, mean = situation.honest, situation.honest.mean(dim=0)
    return _displacement(situation, honest, mean, lie, _centre(situation))


class Line:
    """Lies mean + s·direction, and what they achieve.

    Args:
        situation: where they are told.
        direction: (d,).
    """

    def __init__(self, situation: Situation, direction: Tensor) -> None:
        self._situation = situation
        shorten = _turned if _looks_at_distances(situation) else _sampled
        self._honest, self._mean, self._direction, self._centre = shorten(situation, direction)

    def displacement(self, factor: float) -> float:
        """`displacement` of mean + factor·direction, exact or estimated."""
        lie = torch.add(self._mean, self._direction, alpha=factor)
        return _displacement(self._situation, self._honest, self._mean, lie, self._centre)

    def strongest(self) -> float:
        """The factor, at least 0, that moves the mixture the farthest, as far as a line search finds it."""
        return line_search(self.displacement)


def line_search(gain: Callable[[float], float], evaluations: int = EVALUATIONS) -> float:
    """An x ≥ 0 with a large gain(x): never less than gain(0).

    From 0 on, steps of 1, 2, 4, … as long as each of them gains; then to and fro about the best, in steps that shrink.
    """
    best, most = 0.0, gain(0.0)
    at, step, growing = 0.0, 1.0, True
    for _ in range(evaluations - 1):
        at = best + step if growing else abs(at + step if at < best else at - step)
        gained = gain(at)
        growing = growing and gained > most
        if gained > most:
            best, most = at, gained
        step *= 2 if growing else CONTRACTION
    return best


def searched_a_little(situation: Situation) -> Tensor:
    """mean − z·std per coordinate, with the z that moves the rule's mixture the farthest."""
    mean, std = spread(situation.honest)
    return torch.add(mean, std, alpha=-Line(situation, -std).strongest())


def searched_inner_product(situation: Situation) -> Tensor:
    """−ε·mean with the ε ≥ −1 that moves the rule's mixture the farthest."""
    mean = situation.honest.mean(dim=0)
    return mean * (1 - Line(situation, -mean).strongest())


def strongest(attacks: Sequence[VectorAttack]) -> VectorAttack:
    """What that one of the attacks says whose lie moves the rule's mixture the farthest; of equals the first."""
    return lambda situation: max(
        [attack(situation) for attack in attacks], key=lambda lie: displacement(situation, lie)
    )


# Shorter vectors.


Shortened: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""The honest, their mean, the direction and the centre, in fewer coordinates."""


def _turned(situation: Situation, direction: Tensor) -> Shortened:
    """In coordinates of their own."""
    mean = situation.honest.mean(dim=0)
    # Differences from the mean: beside a model they are small, and would be lost in its products.
    parts = mean.new_empty(len(situation.honest) + 3, len(mean))
    torch.sub(situation.honest, mean, out=parts[:-3])
    parts[-3], parts[-2], parts[-1] = direction, _centre(situation) - mean, mean
    *differences, along, from_mean, middle = coordinates(parts)
    return torch.stack(differences) + middle, middle, along, from_mean + middle


def _sampled(situation: Situation, direction: Tensor) -> Shortened:
    honest = sample(situation.honest, situation.slot)
    along, centre = sample(torch.stack([direction, _centre(situation)]), situation.slot)
    return honest, honest.mean(dim=0), along, centre


def _centre(situation: Situation) -> Tensor:
    return torch.zeros_like(situation.honest[0]) if situation.centre is None else situation.centre


def coordinates(vectors: Tensor) -> Tensor:
    """(k, d) → (k, k) of the same dtype and inner products, and so the same lengths and distances; NaN if one is no
    number. What is finite does not overflow, so that a search goes on where a rule has long been broken."""
    size = max(torch.finfo(vectors.dtype).tiny, *(abs(float(end)) for end in torch.aminmax(vectors)))
    if _SAFE[0] < size < _SAFE[1]:  # a scaled copy of all vectors is dear
        size = 1.0
    unit = vectors if size == 1 else vectors / size
    products = unit @ unit.T
    if not products.isfinite().all():
        return torch.full_like(products, torch.nan)
    values, axes = torch.linalg.eigh(products.double())
    short: Tensor = axes * values.clamp_min(0).sqrt() * size
    return short.to(vectors.dtype)


_SAFE = (1e-10, 1e10)
"""Largest elements whose products neither vanish nor overflow in float32, however many are added."""


def sample(vectors: Tensor, slot: Slot) -> Tensor:
    """(k, d) → (k, at most `SAMPLE`), of lengths that are right on average."""
    d = vectors.shape[1]
    if d <= SAMPLE:
        return vectors
    return vectors.index_select(1, _strata(d, slot).to(vectors.device)) * sqrt(d / SAMPLE)


def _strata(d: int, slot: Slot) -> Tensor:
    """`SAMPLE` coordinates in order, one at random from each of as many equal parts, so that every layer has its."""
    generator = Generator().manual_seed(crc32(slot.place.encode()))
    offsets = torch.rand(SAMPLE, dtype=torch.float64, generator=generator)
    parts = torch.arange(SAMPLE, dtype=torch.float64) + offsets
    return (parts * (d / SAMPLE)).long().clamp_max(d - 1)


def _looks_at_distances(situation: Situation) -> bool:
    return looks_at_distances(situation.rule, situation.n - situation.f, situation.f)


@cache
def looks_at_distances(rule: str, q: int, f: int) -> bool:
    """Whether q vectors, turned, are mixed to the mixture, turned: tried once, with vectors and a turn by chance."""
    generator = Generator().manual_seed(0)
    vectors, turn = (torch.randn(rows, 8, dtype=torch.float64, generator=generator) for rows in (q, 8))
    turn = torch.linalg.qr(turn).Q
    origin = torch.zeros(8, dtype=torch.float64)
    turned = _mix(rule, vectors @ turn, f, origin)
    return torch.allclose(turned, _mix(rule, vectors, f, origin) @ turn, atol=1e-9)


# Mixtures.


def _displacement(situation: Situation, honest: Tensor, mean: Tensor, lie: Tensor, centre: Tensor) -> float:
    if not bool(lie.isfinite().all()):  # left out of every mixture
        return 0.0
    truths = max(1, situation.n - situation.f - situation.liars)
    # Those not seen yet are taken for those that were, in turn.
    rows = torch.arange(truths, device=honest.device) % len(honest)
    vectors = torch.cat([honest[rows], lie.expand(situation.liars, -1)])
    try:
        mixture = _mix(situation.rule, vectors, situation.f, centre)
    except NonFinite:
        return 0.0
    return float((mixture - mean).norm())


def _mix(rule: str, vectors: Tensor, f: int, centre: Tensor) -> Tensor:
    """As the receiver whose own vector is the first."""
    return aggregate(rule, vectors, f=f, own=0, centre=centre if find(rule).wants_centre else None)
