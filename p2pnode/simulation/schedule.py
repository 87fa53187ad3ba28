"""What the network does to the messages until it is healed: an adversary that owns the schedule.

A link delays each message by a draw from its distribution, loses some and sends them again later, doubles some, and
keeps their order or does not. On top of that a schedule holds messages back, cuts links, or stops nodes; after
`HEAL_AT` all is let through, every link is back and every honest node runs.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from protocols.header import PeerId

if TYPE_CHECKING:
    from p2pnode.simulation.network import Network

HEAL_AT = 30.0
"""Virtual seconds until the network heals; a message takes one on average."""

RETRANSMIT_S = 3.0
LOSS = 0.1
DUPLICATES = 0.1


class Links:
    """Delays, losses and duplicates of all links, drawn for one run."""

    def __init__(self, random: Random) -> None:
        self._random = random
        draws: list[Callable[[], float]] = [
            lambda: random.expovariate(1.0),
            lambda: random.uniform(0.0, 2.0),
            lambda: random.paretovariate(2.0) / 2.0,
        ]
        self._draw = random.choice(draws)
        self._loss = random.choice((0.0, LOSS))
        self._duplicates = random.choice((0.0, DUPLICATES))
        self.ordered = random.random() < 0.5

    def delays(self) -> list[float]:
        """Virtual seconds after which each copy of a message arrives."""
        random = self._random
        copies = 2 if self._duplicates and random.random() < self._duplicates else 1
        delays = [self._draw() for _ in range(copies)]
        while self._loss and random.random() < self._loss:
            delays[0] += RETRANSMIT_S
        return delays


def _sometime(random: Random) -> float:
    """When things go wrong: mostly early, since a run may be over after a few delays."""
    return min(random.expovariate(0.2), HEAL_AT)


def _some(network: Network) -> PeerId:
    return network.random.choice(network.scenario.honest)


def _undisturbed(network: Network) -> None:
    """Delays alone."""


def _newest_first(network: Network) -> None:
    network.newest_first = True


def _starve_one(network: Network) -> None:
    """One honest member hears nothing, or is not heard, or both."""
    victim, ways = _some(network), network.random.choice(("to", "from", "both"))
    for peer in network.others(victim):
        if ways != "from":
            network.blocked.add((peer, victim))
        if ways != "to":
            network.blocked.add((victim, peer))


def _partition(network: Network) -> None:
    _split(network, both_ways=True)


def _one_way_partition(network: Network) -> None:
    _split(network, both_ways=False)


def _split(network: Network, *, both_ways: bool) -> None:
    """From some time on, nothing passes from one group to the other."""
    random = network.random
    group = {peer for peer in network.scenario.committee.members if random.random() < 0.5}
    pairs = [(a, b) for a in group for b in network.others(a) if b not in group]

    def split() -> None:
        network.blocked.update(sorted(pairs))
        if both_ways:
            network.blocked.update(sorted((b, a) for a, b in pairs))

    network.at(_sometime(random), split)


def _swizzle_clog(network: Network) -> None:
    """Members drawn at random are clogged one after another, and unclogged in another order."""
    random = network.random
    victims = random.sample(network.scenario.committee.members, random.randint(1, network.scenario.nodes))
    clogged: set[PeerId] = set()

    def clog(victim: PeerId) -> None:
        clogged.add(victim)
        network.blocked.update((victim, peer) for peer in network.others(victim))
        network.blocked.update((peer, victim) for peer in network.others(victim))

    def unclog(victim: PeerId) -> None:
        clogged.discard(victim)
        network.blocked -= {pair for pair in network.blocked if victim in pair and clogged.isdisjoint(pair)}
        network.let_through()

    for victim in victims:
        began = _sometime(random)
        network.at(began, lambda victim=victim: clog(victim))  # type: ignore[misc]
        network.at(random.uniform(began, HEAL_AT), lambda victim=victim: unclog(victim))  # type: ignore[misc]


def _isolate_one(network: Network) -> None:
    """All links of one honest member are lost, with what is under way, and come back after a while."""
    random, victim = network.random, _some(network)

    def cut() -> None:
        for peer in network.others(victim):
            network.sever(victim, peer)

    def mend() -> None:
        for peer in network.others(victim):
            network.connect(victim, peer)

    began = _sometime(random)
    network.at(began, cut)
    network.at(random.uniform(began, HEAL_AT), mend)


def _crash(network: Network) -> None:
    """Honest nodes stop between any two effects, one after another or together, and come back."""
    random = network.random
    for _ in range(random.randint(1, 4)):
        _stop(network, _some(network), _sometime(random))


def _power_cut(network: Network) -> None:
    """All honest nodes stop, within a fraction of a delay, and come back one by one."""
    when = _sometime(network.random)
    for member in network.scenario.honest:
        _stop(network, member, min(when + network.random.expovariate(10.0), HEAL_AT))


def _stop(network: Network, member: PeerId, when: float) -> None:
    network.at(when, lambda: network.doom(member))
    network.at(when + network.random.expovariate(0.5), lambda: network.restart(member))


SCHEDULES: dict[str, Callable[[Network], None]] = {
    "random": _undisturbed,
    "newest-first": _newest_first,
    "starve-one": _starve_one,
    "partition": _partition,
    "one-way-partition": _one_way_partition,
    "swizzle-clog": _swizzle_clog,
    "isolate-one": _isolate_one,
    "crash": _crash,
    "power-cut": _power_cut,
}
"""Name → what prepares the network for it."""
