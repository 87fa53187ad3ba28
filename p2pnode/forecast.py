"""What a network will cost, before it runs: what it tolerates and by which theorem, bytes, memory, seconds of a step.

Pure: what this machine takes for each piece of a step is given (`p2pnode.calibration` measures it). The counts are
those of docs/cost.md: a quiet network, in which nobody lies.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from p2pnode.errors import ConfigError
from p2pnode.joint import NAME_BYTES, signatures
from p2pnode.recipe import Recipe, proven
from p2pnode.simulation.cost import of_step
from p2pnode.simulation.scenario import Scenario
from p2pnode.storage.vectors import ARRAYS
from protocols.committee import Committee

HANDLING = 16.0
"""What a node does for a word that it sends and one that it hears, in words of a bare TLS connection.

Budget, decoding, the protocol's state, effects and the switches between them are Python, as the connection's two ends
are, so that the ratio holds where the seconds do not. This and the next three are fitted, to the seconds of a core that
testnets of `trimmed` (n = 5 and 7) and `monna` (n = 7) took, of the small digits and the convolutional network."""

TAKING = 30.0
"""What it does for a vector that it sends and one that it takes, whatever their length, likewise."""

SETTLING = 140.0
"""What a step takes besides, likewise: hand-offs between threads, history, log, status and checkpoints."""

CARRYING = 1.7
"""What a byte of a vector takes that comes to one of many, to what it takes on a bare connection, likewise."""

ON_A_LINK = 1.14
"""Seconds that bytes take on a link to those of their bits alone: 6 % are headers and what is sent back for what comes
in, and several connections leave 7 % of it unused (five hosts at 100 Mbit/s, by what the shaper counted)."""

Mixing = tuple[str, int]
"""(rule, how many vectors): what the seconds of a mixture depend on, at given d and f."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Seconds of a core that this machine takes for each piece of a step, and how many cores it has to give.

    Args:
        gradient: all local steps of one step, momentum and descent included.
        mixing: by rule and number of vectors; the mixture is copied into the model.
        signing, checking: a signature.
        hashing: a byte of a vector that comes in: hashed, and found to be finite.
        carrying: a byte of a vector from one process to another: both ends together.
        word: a small message from one to another, both ends together.
        flushing: making a record of the journal durable, with the hand-off to a thread if the disk is no quick one.
        flush_wait: the same by the clock.
        evaluation: of the model, on the way.
        cores: that the nodes of this machine get together at present.
    """

    gradient: float
    mixing: Mapping[Mixing, float]
    signing: float
    checking: float
    hashing: float
    carrying: float
    word: float
    flushing: float
    flush_wait: float
    evaluation: float
    cores: float


@dataclass(frozen=True, slots=True)
class Network:
    """What is to run, as far as its cost goes.

    Args:
        committee: n and f.
        recipe: what a step exchanges.
        length: d, numbers in a vector.
        steps: learning steps; what grows from step to step is told of the last.
        evaluations: on the way, in all.
    """

    committee: Committee
    recipe: Recipe
    length: int
    steps: int
    evaluations: int

    @property
    def mixings(self) -> tuple[Mixing, ...]:
        """What is mixed in each exchange."""
        return tuple((exchange.rule, exchange.quorum(self.committee)) for exchange in self.recipe.exchanges)


@dataclass(frozen=True, slots=True)
class Tally:
    """What one node does in one step.

    Args:
        words: messages that it sends; it hears as many.
        bytes: that it sends, words and vectors; it receives as many. Frames and TLS are not counted.
        vectors: bytes of vectors among them.
        signed, checked: signatures.
        flushes: of its journal.
        waits: flushes that nothing else can go on without, one after another.
        slots: sub-rounds.
    """

    words: int
    bytes: int
    vectors: int
    signed: int
    checked: int
    flushes: int
    waits: int
    slots: int


@dataclass(frozen=True, slots=True)
class Share:
    """Seconds of a core that one node takes a step, by what for."""

    gradient: float
    mixing: float
    hashing: float
    signatures: float
    journal: float
    carrying: float
    handling: float
    evaluation: float

    @property
    def own(self) -> float:
        """What a node does between its exchanges, alone."""
        return self.gradient + self.mixing + self.evaluation

    @property
    def exchange(self) -> float:
        """What it does for the exchanges."""
        return self.hashing + self.signatures + self.journal + self.carrying + self.handling


def tally(network: Network) -> Tally:
    """What one node does in the last step of a quiet network, by the formulas of docs/cost.md."""
    n, quorum, last = network.committee.n, network.committee.gather_quorum, network.steps - 1
    scenario = Scenario(n, 0, network.committee.f, network.recipe, (), (), "", network.steps)
    cost = of_step(scenario, network.length, last)
    signed = checked = flushes = waits = slots = names = 0
    for exchange in network.recipe.exchanges:
        rounds = exchange.sub_rounds(last)
        echoed = exchange.broadcast == "signed-echo"
        slots += rounds
        together = exchange.together(network.committee)
        joint, alone = signatures(together), n - 1 - together if echoed else 0
        signed += rounds * (1 + joint + alone)
        checked += rounds * (n - 1) * (1 + (joint if together or not echoed else quorum - 1))
        flushes += rounds * (n if exchange.broadcast == "reliable" else 1 + min(1, joint) + alone)
        if together > joint:  # an echo and those of a certificate carry the names of what is under their signature
            names += rounds * (n - 1) * network.committee.echo_quorum * together // joint
        waits += rounds * (1 if exchange.broadcast == "plain" else 2)
    vectors = slots * (n - 1) * ARRAYS[network.recipe.dtype].itemsize * network.length
    nbytes = cost.bytes // n + NAME_BYTES * names
    return Tally(cost.messages // n, nbytes, vectors, signed, checked, flushes, waits, slots)


def memory(network: Network) -> tuple[int, int]:
    """Bytes of vectors that a node holds: with all level, and with all others a slot ahead. See docs/cost.md.

    Its libraries, its model's activations, and up to 96 MiB of vectors of past steps come besides.
    """
    others, slots = network.committee.n - 1, network.recipe.slots(network.steps - 1)
    level = others + slots + 4
    return 4 * network.length * level, 4 * network.length * (level + others)


def share(network: Network, machine: Calibration) -> Share:
    """Seconds of a core that one node takes for the last step."""
    did = tally(network)
    mixing = sum(
        exchange.sub_rounds(network.steps - 1) * machine.mixing[mixed]
        for exchange, mixed in zip(network.recipe.exchanges, network.mixings, strict=True)
    )
    hashed = did.slots * network.committee.n * 4 * network.length
    return Share(
        machine.gradient,
        mixing,
        hashed * machine.hashing,
        did.signed * machine.signing + did.checked * machine.checking,
        did.flushes * machine.flushing,
        CARRYING * did.vectors * machine.carrying,
        (HANDLING * did.words + TAKING * did.slots * (network.committee.n - 1) + SETTLING) * machine.word,
        network.evaluations / network.steps * machine.evaluation,
    )


def seconds_here(network: Network, machine: Calibration) -> float:
    """Seconds of a step with all nodes on this machine: the work of all over the cores that they get.

    But for few nodes on many cores: no less than one takes from its gradient to the mixture, disk included.
    """
    one = share(network, machine)
    alone = one.own + one.exchange - one.journal + tally(network).waits * machine.flush_wait
    return max(network.committee.n * (one.own + one.exchange) / machine.cores, alone)


def seconds_apart(network: Network, machine: Calibration, link: float) -> float:
    """Seconds of a step with each node on a machine like this one, at a link of so many bits a second each way.

    A node computes while bytes travel, but its gradient and its mixture come before and after: unless staleness lets it
    take the gradient meanwhile. How long the way is between two machines is not known here.
    """
    did, one = tally(network), share(network, machine)
    wire = ON_A_LINK * 8 * did.bytes / link
    busy = one.exchange - one.journal + did.waits * machine.flush_wait
    if network.recipe.staleness:
        return one.mixing + one.evaluation + max(wire, busy + one.gradient)
    return one.own + max(wire, busy)


def tolerated(network: Network) -> list[dict[str, object]]:
    """Of each exchange what it tolerates at this n, and by which theorem."""
    return [
        {
            "what": exchange.what,
            "rule": exchange.rule,
            "broadcast": exchange.broadcast,
            "sub_rounds": exchange.sub_rounds(network.steps - 1),
            "needs": str(bound),
            "tolerates": bound.tolerated(network.committee.n),
            "source": bound.source,
        }
        for exchange, bound in zip(network.recipe.exchanges, proven(network.recipe, network.committee), strict=True)
    ]


def bits_per_second(text: str) -> float:
    """The rate of a link.

    Raises:
        ConfigError: if it is none.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kMG])bit", text)
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"link = {text!r}: no rate. Remedy: write 100Mbit or 1Gbit, bits a second")
    return float(match[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[match[2]]
