"""What a node saw in its steps, for its owner: whose vectors came, how far they lay from the mixture, what it left out.

Nothing that the node does depends on it. It costs little and is bounded: of each vector a sample of its coordinates is
looked at, where steps are short not in each of them, and of steps long gone ever fewer are kept.

The coordinates are drawn once, from the system's own randomness: a liar who knew them could lie everywhere else. The
distance of a vector is estimated from them, √(d/k) times the distance in the k that are sampled. Of a difference that
is spread over the coordinates, as those of gradients are, k = 2048 give it to within some 2 %; of one in a few
coordinates alone they may show nothing, or too much.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from p2pnode.aggregation import share
from p2pnode.learning.wire import Announced, widen
from p2pnode.recipe import Recipe
from protocols.effects import Gathered
from protocols.header import PeerId, Slot

SAMPLED_MAX = 2048
"""Coordinates looked at. Seven vectors of 431,080 then cost 0.8 ms where none of it is in the caches, 0.2 ms where all
is."""

LOOK_MAX_S = 0.1
"""No more than so long is ever still to be made up for: a process that was stopped in a look would look away for
hours."""

RECENT_MAX = 512
"""Steps kept whole, and older ones kept at most; of measurements as many."""

RECENT_MIN = 16
"""Steps kept whole whatever the members and exchanges: fewer show no course."""

CELLS_MAX = 1 << 16
"""Steps × exchanges × members kept of both kinds together: some 1 MiB of numbers."""

REVISED = 4
"""Last steps that may still change: a vector that came after its mixture is late, and not absent."""

Item = TypeVar("Item")
Numbers = NDArray[np.float64]


class Thinned(Generic[Item]):
    """The latest items, and of those before every 2nd, 4th, 8th, …: as many at most.

    Args:
        most: how many of the latest, and how many before them.
    """

    def __init__(self, most: int) -> None:
        self.stride = 1
        self._most = most
        self._count = 0
        self._recent: deque[tuple[int, Item]] = deque()
        self._older: list[tuple[int, Item]] = []

    def __iter__(self) -> Iterator[Item]:
        yield from (item for _, item in self._older)
        yield from (item for _, item in self._recent)

    def __len__(self) -> int:
        return len(self._older) + len(self._recent)

    def latest(self, count: int) -> list[Item]:
        """The last items, at most so many, and no older than those that are kept whole."""
        return [item for _, item in list(self._recent)[-count:]]

    def add(self, item: Item) -> None:
        self._recent.append((self._count, item))
        self._count += 1
        if len(self._recent) <= self._most:
            return
        older = self._recent.popleft()
        if older[0] % self.stride == 0:
            self._older.append(older)
        if len(self._older) > self._most:
            self.stride *= 2
            self._older = [kept for kept in self._older if kept[0] % self.stride == 0]


@dataclass(slots=True)
class View:
    """The members' vectors in the first mixture of one exchange; (n,) each, by member, NaN of whose was not mixed.

    Later sub-rounds mix mixtures, which tell less of who made them.

    Args:
        mixed: whose vectors they were.
        looked: whether they were looked at; if not, nobody's distance is known, nor what was left out.
        distance: from the mixture.
        left_out: the share of the vector that the rule left out; see `p2pnode.aggregation.share`.
        late: whose vector came, but only after the mixture.
    """

    mixed: frozenset[PeerId]
    looked: bool
    distance: Numbers
    left_out: Numbers
    late: set[PeerId]

    def told(self) -> dict[str, Any]:
        distances, shares = self.distance.tolist(), self.left_out.tolist()
        return {
            "looked": self.looked,
            "distance": [_short(number) for number in distances],
            "scale": _short(median(distances[peer] for peer in self.mixed)),
            "left_out": [_short(number) for number in shares],
            "usual": _short(fmean(shares[peer] for peer in self.mixed)),
            "late": sorted(self.late),
            "absent": sorted(set(range(len(distances))) - self.mixed - self.late),
        }


@dataclass(slots=True)
class Step:
    """One step that was taken.

    Args:
        step: which, from 0.
        time: when, in seconds since the epoch.
        loss: of the node's last batch; None if it took no gradient.
        seconds: by phase, since the step before was taken.
        views: by exchange.
    """

    step: int
    time: float
    loss: float | None
    seconds: dict[str, float]
    views: dict[int, View]

    def told(self, exchanges: int) -> dict[str, Any]:
        return {
            "step": self.step,
            "time": round(self.time, 3),
            "loss": _short(self.loss),
            "seconds": {phase: round(seconds, 5) for phase, seconds in self.seconds.items()},
            "exchanges": [self.views[i].told() if i in self.views else None for i in range(exchanges)],
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """The model after so many steps, on the test set or the first part of it."""

    step: int
    time: float
    loss: float
    accuracy: float

    def told(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "time": round(self.time, 3),
            "loss": _short(self.loss),
            "accuracy": _short(self.accuracy),
        }


class History:
    """The steps of one node; threads share it.

    Args:
        names: of the members, in order.
        me: which of them this node is.
        recipe: what a step exchanges.
        f: liars to tolerate.
        length: of every vector, d.
        clock: seconds since the epoch.
        seed: what the coordinates are drawn by; None for what nobody can guess.
        time_share: of the time that goes by, what looking at vectors may take; 0 looks at none.
        lap: seconds, never going back.
    """

    def __init__(
        self,
        names: Sequence[str],
        me: PeerId,
        recipe: Recipe,
        f: int,
        length: int,
        clock: Callable[[], float] = time.time,
        seed: int | None = None,
        time_share: float = math.inf,
        lap: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = list(names)
        self._me = me
        self._exchanges = recipe.exchanges
        self._f = f
        self._length = length
        self._clock = clock
        count = min(SAMPLED_MAX, length)
        self._sampled = np.sort(np.random.default_rng(seed).choice(length, count, replace=False))
        self._time_share = time_share
        self._lap = lap
        self._looks = False
        self._looks_again_at = -math.inf
        self._lock = threading.Lock()
        cells = 2 * len(self._exchanges) * len(self._names)
        self._steps: Thinned[Step] = Thinned(max(RECENT_MIN, min(RECENT_MAX, CELLS_MAX // cells)))
        self._measured: Thinned[Measured] = Thinned(RECENT_MAX)
        self._under_way = 0
        self._views: dict[int, View] = {}
        self._loss: float | None = None
        self._spent: Mapping[str, float] = {}

    def mixed(
        self,
        gathered: Gathered,
        rows: Sequence[Announced],
        mixture: NDArray[np.float32],
        kept: Collection[int],
        loss: float | None,
    ) -> None:
        """Vectors were mixed: look at them, if looking has kept within its share of the time.

        Args:
            gathered: whose.
            rows: the vectors, in the same order.
            mixture: what came of them.
            kept: the rows that have a part in it.
            loss: of the node's last batch.
        """
        slot, began = gathered.slot, self._lap()
        if slot.sub_round:
            return
        peers = [peer for peer, _ in gathered.values]
        distance, left_out = np.full((2, len(self._names)), np.nan)
        looks = self._affords(slot, began)
        if looks:
            rule = self._exchanges[slot.exchange].rule if self._me in peers else "median"  # as `mix_gathered` does
            distance[peers], left_out[peers] = self._look(rule, rows, mixture, kept)
        with self._lock:
            if self._under_way != slot.step:
                self._under_way, self._views = slot.step, {}
            self._views[slot.exchange] = View(frozenset(peers), looks, distance, left_out, set())
            self._loss = loss
        self._make_up_for(began)

    def _affords(self, slot: Slot, now: float) -> bool:
        """Whether to look at this step's vectors: at those of all its exchanges or of none, else it would be the same
        exchange's each time. Time in which there was nothing to look at is not saved up."""
        if self._time_share == 0:
            return False
        if slot.exchange == 0:
            self._looks = now >= self._looks_again_at
            if self._looks:
                self._looks_again_at = now
        return self._looks

    def _make_up_for(self, began: float) -> None:
        """What was spent since then, with or without a look, puts off the next look until it is in its share."""
        if self._time_share == 0:
            return
        now = self._lap()
        again_at = self._looks_again_at + (now - began) / self._time_share
        self._looks_again_at = min(again_at, now + LOOK_MAX_S / self._time_share)

    def _look(
        self, rule: str, rows: Sequence[Announced], mixture: NDArray[np.float32], kept: Collection[int]
    ) -> tuple[Numbers, Numbers]:
        """Distance from the mixture, and share that was left out, of each vector."""
        sample = np.stack([widen(row[self._sampled]) for row in rows]).astype(np.float64)
        squared = ((sample - mixture[self._sampled]) ** 2).sum(axis=1)
        distance = np.sqrt(squared * (self._length / len(self._sampled)))
        return distance, share.left_out(rule, sample, self._f, kept)

    def stepped(self, step: int, spent: Mapping[str, float], here: Callable[[Slot], Collection[PeerId]]) -> None:
        """The step was taken.

        Args:
            step: which.
            spent: seconds by phase, since the node runs.
            here: whose vectors of a slot are here by now.
        """
        with self._lock:
            views = self._views if self._under_way == step else {}
            seconds = {phase: total - self._spent.get(phase, 0.0) for phase, total in spent.items()}
            self._spent = dict(spent)
            self._steps.add(Step(step, self._clock(), self._loss, seconds, views))
            self._under_way, self._views = step + 1, {}
            for one in self._steps.latest(REVISED):
                for exchange, view in one.views.items():
                    came = here(Slot(one.step, exchange))
                    view.late.update(peer for peer in came if peer not in view.mixed)

    def measured(self, step: int, loss: float, accuracy: float) -> None:
        """The model after so many steps was measured."""
        with self._lock:
            self._measured.add(Measured(step, self._clock(), loss, accuracy))

    def told(self, since: int = 0) -> dict[str, Any]:
        """Steps and measurements from step `since` on, as `/history` tells them. The last `REVISED` may yet change."""
        with self._lock:
            return {
                "name": self._names[self._me],
                "members": self._names,
                "f": self._f,
                "length": self._length,
                "sampled": len(self._sampled),
                "time_share": _short(self._time_share),
                "revised": REVISED,
                "stride": self._steps.stride,
                "exchanges": [
                    {
                        "what": exchange.what,
                        "broadcast": exchange.broadcast,
                        "rule": exchange.rule,
                        "left_out": "coordinates" if share.by_coordinate(exchange.rule) else "vectors",
                    }
                    for exchange in self._exchanges
                ],
                "steps": [step.told(len(self._exchanges)) for step in self._steps if step.step >= since],
                "measured": [one.told() for one in self._measured if one.step >= since],
            }


def _short(number: float | None) -> float | None:
    """Four digits, which is more than a sample tells; None for what JSON has no word for."""
    return float(f"{number:.4g}") if number is not None and math.isfinite(number) else None
