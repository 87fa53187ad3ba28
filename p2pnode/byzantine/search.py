"""How strong a lie is against the very rule that will mix it, and the strongest along a line.

A receiver mixes n−f vectors, those of all liars among them: its mixture is computed here as it would be there, and the
distance from the honest mean is what the lie achieved. Where vectors are long it is computed on a sample of their
coordinates, the same for all liars, drawn anew for each slot. The sample is scaled so that lengths and distances are
right on average: rules that look at coordinates come out the same, and those that look at distances nearly so.

Source: the line search of the published experiments of ByzantineMomentum and MoNNA.
"""

from collections.abc import Callable, Sequence
from math import sqrt
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
"""Coordinates looked at. The relative error of a distance over so many is below 2 % for coordinates alike."""


class Gauge:
    """Measures lies of one situation.

    Args:
        situation: where the lie will be told.
    """

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        d = situation.honest.shape[1]
        self._columns = None if d <= SAMPLE else _strata(d, situation.slot).to(situation.honest.device)
        self._scale = sqrt(max(1.0, d / SAMPLE))
        self._honest = self.sample(situation.honest)
        self._mean = self._honest.mean(dim=0)
        truths = max(1, situation.n - situation.f - situation.liars)
        # Those not seen yet are taken for those that were, in turn.
        rows = torch.arange(truths, device=self._honest.device) % len(self._honest)
        room = self._honest.new_empty(situation.liars, self._honest.shape[1])
        self._mixed = torch.cat([self._honest[rows], room])
        self._lies = self._mixed[truths:]
        rule = find(situation.rule)
        self._extra = {"centre": self._centre()} if getattr(rule, "wants_centre", False) else {}

    def sample(self, vectors: Tensor) -> Tensor:
        """(…, d) → (…, at most `SAMPLE`)."""
        return vectors if self._columns is None else vectors.index_select(-1, self._columns) * self._scale

    def displacement(self, lie: Tensor) -> float:
        """‖mixture − honest mean‖ at the first honest receiver, if all liars tell this sampled lie; 0 if it is refused.

        Args:
            lie: (at most `SAMPLE`,), from `sample`.
        """
        self._lies[:] = lie
        try:
            mixture = aggregate(self._situation.rule, self._mixed, f=self._situation.f, own=0, **self._extra)
        except NonFinite:
            return 0.0
        return float((mixture - self._mean).norm())

    def strongest(self, direction: Tensor) -> float:
        """The s ≥ 0 at which mean + s·direction moves the mixture the farthest, as far as a line search finds it.

        Args:
            direction: (d,).
        """
        along = self.sample(direction)
        return line_search(lambda factor: self.displacement(torch.add(self._mean, along, alpha=factor)))

    def _centre(self) -> Tensor:
        centre = self._situation.centre
        return torch.zeros_like(self._mean) if centre is None else self.sample(centre)


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
    return torch.add(mean, std, alpha=-Gauge(situation).strongest(-std))


def searched_inner_product(situation: Situation) -> Tensor:
    """−ε·mean with the ε ≥ −1 that moves the rule's mixture the farthest."""
    mean = situation.honest.mean(dim=0)
    return mean * (1 - Gauge(situation).strongest(-mean))


def strongest(attacks: Sequence[VectorAttack]) -> VectorAttack:
    """What that one of the attacks says whose lie moves the rule's mixture the farthest; of equals the first."""

    def lie(situation: Situation) -> Tensor:
        gauge = Gauge(situation)
        return max((attack(situation) for attack in attacks), key=lambda one: gauge.displacement(gauge.sample(one)))

    return lie


def _strata(d: int, slot: Slot) -> Tensor:
    """`SAMPLE` coordinates in order, one at random from each of as many equal parts, so that every layer has its."""
    generator = Generator().manual_seed(crc32(slot.place.encode()))
    offsets = torch.rand(SAMPLE, dtype=torch.float64, generator=generator)
    parts = torch.arange(SAMPLE, dtype=torch.float64) + offsets
    return (parts * (d / SAMPLE)).long().clamp_max(d - 1)
