"""What must hold, checked as it happens. A `Violation` names the guarantee that did not."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import combinations

import numpy as np
import torch

from p2pnode.errors import P2PNodeError
from p2pnode.node import DEFERRED_MAX
from p2pnode.recipe import BROADCASTS, contraction
from p2pnode.simulation.process import RETAINED, Process
from p2pnode.simulation.scenario import Scenario
from p2pnode.storage.vectors import Vector
from protocols.effects import Accuse, Certificate, DigestEcho, Echo, Gathered, Message, Proposal, Ready
from protocols.header import Digest, PeerId, Slot, Verify

_ROUNDING = 1e-5
"""Of float32 sums of a few numbers, relative to the largest honest one."""

_BLOCK = 2**14
"""Coordinates that are looked at together: of dozens of vectors, what a cache holds."""

_IN_RANGE = frozenset({"trimmed-mean", "median"})
"""Rules whose mixture lies, in each coordinate, within the range of the honest values mixed."""


class Violation(P2PNodeError):
    """A guarantee that did not hold."""

    def __init__(self, guarantee: str, detail: str) -> None:
        super().__init__(f"{guarantee}: {detail}")
        self.guarantee = guarantee


class Checks:
    """Watches one run.

    Args:
        scenario: what is run.
        network: the name that evidence must hold for.
        verify: checks signatures.
    """

    def __init__(self, scenario: Scenario, network: bytes, verify: Verify) -> None:
        self._scenario = scenario
        self._network = network
        self._verify = verify
        self._honest = frozenset(scenario.honest)
        self._said: dict[tuple[object, ...], object] = {}
        self._values: dict[tuple[Slot, PeerId], Digest] = {}
        self._gathered: dict[Slot, dict[PeerId, Gathered]] = defaultdict(dict)
        self._inputs: dict[Slot, dict[PeerId, Vector]] = defaultdict(dict)
        self._outputs: dict[Slot, dict[PeerId, Vector]] = defaultdict(dict)
        self._delivered: dict[PeerId, Digest] = {}
        self._had: dict[PeerId, set[Digest]] = defaultdict(set)
        self._convicted: dict[PeerId, set[PeerId]] = defaultdict(set)
        self._forgetful = False
        steps = RETAINED + 2
        self._agreements_max = steps * len(scenario.recipe.exchanges)
        self._vectors_max = 3 * scenario.nodes * steps * scenario.recipe.slots(scenario.steps)
        self._contractions = [
            contraction(scenario.committee, exchange.broadcast, exchange.rule, exchange.absent)
            for exchange in scenario.recipe.exchanges
        ]

    # What nodes say.

    def said(self, me: PeerId, message: Message) -> None:
        """An honest member speaks: never twice differently, over any crash."""
        match message:
            case Proposal(signed) if signed.header.origin == me:
                self._once(me, ("proposal", message.slot), signed.header.digest)
            case DigestEcho(signed):
                self._once(me, ("echo", message.slot, message.origin), signed.header.digest)
                self._holds(me, signed.header.digest)
            case Echo(slot, origin, signature):
                self._once(me, ("echo", slot, origin), signature)
            case Ready(slot, origin, digest):
                self._once(me, ("ready", slot, origin), digest)
            case Certificate():
                self._available(message)

    def _once(self, me: PeerId, place: tuple[object, ...], word: object) -> None:
        known = self._said.setdefault((me, *place), word)
        if known != word:
            raise Violation("consistency", f"{me} contradicts itself on {place}")

    def has(self, me: PeerId, digest: Digest) -> None:
        """The bytes of this digest came to this member."""
        self._had[me].add(digest)

    def _holds(self, me: PeerId, digest: Digest) -> None:
        if digest not in self._had[me]:
            raise Violation("availability", f"{me} echoes what it does not hold")

    def _available(self, certificate: Certificate) -> None:
        """A certificate that an honest echo is part of names honest members that had the bytes."""
        statement = certificate.signed.header.echo().statement
        for member, signature in certificate.echoes:
            if member in self._honest and self._verify(member, statement, signature):
                self._holds(member, certificate.signed.header.digest)

    def accused(self, me: PeerId, accusation: Accuse) -> None:
        if accusation.peer in self._honest:
            raise Violation("innocence", f"{me} accuses {accusation.peer}, who is honest: {accusation.fault}")
        if accusation.evidence is not None:
            holds = accusation.evidence.holds(self._network, self._verify)
            if not holds:
                raise Violation("evidence", f"{me} holds a proof against {accusation.peer} that proves nothing")
            self._convicted[accusation.peer].add(me)

    # What nodes compute.

    def proposed(self, me: PeerId, slot: Slot, vector: Vector) -> None:
        """An honest member's own value of a slot."""
        if self._contractions[slot.exchange] is not None:
            self._inputs[slot][me] = vector

    def mixes(self, me: PeerId, gathered: Gathered) -> None:
        """An honest member is about to mix these."""
        slot, count = gathered.slot, len(gathered.values)
        exchange = self._scenario.recipe.exchanges[slot.exchange]
        kind = BROADCASTS[exchange.broadcast]
        absent = self._scenario.f if exchange.absent is None else exchange.absent
        quorum = self._scenario.nodes - absent  # told apart from the code that is checked
        if count < quorum:
            raise Violation("quorum", f"{me} mixes {count} values in {slot}")
        if kind.consistent:
            for origin, digest in gathered.values:
                known = self._values.setdefault((slot, origin), digest)
                if known != digest:
                    raise Violation("consistency", f"two values of {origin} are mixed in {slot}")
        for origin, digest in gathered.values:
            proposed = self._said.get((origin, "proposal", slot), digest)
            if proposed != digest:
                raise Violation("validity", f"{me} mixes what {origin}, honest, did not say in {slot}")
        if kind.total and not self._forgetful:
            for other, theirs in self._gathered[slot].items():
                shared = len(set(gathered.values) & set(theirs.values))
                if shared < quorum:
                    raise Violation("witness", f"{me} and {other} share {shared} values in {slot}")
        self._gathered[slot][me] = gathered

    def mixed(self, me: PeerId, gathered: Gathered, rows: list[Vector], outcome: Vector) -> None:
        """An honest member mixed these rows to this."""
        slot = gathered.slot
        exchange = self._scenario.recipe.exchanges[slot.exchange]
        members = [member for member, _ in gathered.values]
        if exchange.rule != "mean" and len(self._scenario.liars) <= self._scenario.f:
            honest = [row for member, row in zip(members, rows, strict=True) if member in self._honest]
            own = rows[members.index(me)] if me in members else None
            self._in_honest_hull(me, slot, exchange.rule, honest, own, outcome)
        if self._contractions[slot.exchange] is not None:
            self._outputs[slot][me] = outcome
            self._agree(slot)

    def _in_honest_hull(
        self, me: PeerId, slot: Slot, rule: str, honest: list[Vector], own: Vector | None, outcome: Vector
    ) -> None:
        if rule in _IN_RANGE or own is None:
            low, high = _range(honest)
            slack = _slack(low, high)
            if not ((outcome >= low - slack).all() and (outcome <= high + slack).all()):
                raise Violation("validity", f"{me} leaves the honest range in {slot}: {outcome} of {np.stack(honest)}")
        elif rule == "nearest-neighbour":
            self._within_reach(me, slot, _distance(outcome, own), honest, ((row, own) for row in honest))
        elif rule == "minimum-diameter":
            moved = min(_distance(outcome, row) for row in honest)
            self._within_reach(me, slot, moved, honest, combinations(honest, 2))

    def _within_reach(
        self, me: PeerId, slot: Slot, moved: float, honest: list[Vector], pairs: Iterable[tuple[Vector, Vector]]
    ) -> None:
        """Two honest vectors at least are as far apart as `me` moved."""
        reach = 0.0
        for one, other in pairs:  # mostly the first pair settles it
            reach = max(reach, _distance(one, other))
            if moved <= reach:
                return
        if moved > reach + _slack(*_range(honest)):
            raise Violation("validity", f"{me} goes {moved} in {slot}, the honest lie within {reach}")

    def _agree(self, slot: Slot) -> None:
        """Once all honest members have mixed, they are closer together, by what the theorem says."""
        ratio = self._contractions[slot.exchange]
        outputs, inputs = self._outputs[slot], self._inputs[slot]
        if len(outputs) < len(self._honest):
            return
        del self._outputs[slot], self._inputs[slot]
        assert ratio is not None, "others are not kept"
        if self._forgetful or len(inputs) < len(self._honest):
            return
        per_coordinate = self._scenario.recipe.exchanges[slot.exchange].rule == "trimmed-mean"
        if not per_coordinate and 2 * _radius(outputs) <= float(ratio) * _radius(inputs):
            return  # a diameter is from one to two radii: mostly that settles it, without all pairs
        before, after = _spread(inputs, per_coordinate=per_coordinate), _spread(outputs, per_coordinate=per_coordinate)
        closer = bool((after <= float(ratio) * before + _slack(*_range(list(inputs.values())))).all())
        if not closer:
            raise Violation("agreement", f"in {slot} the honest spread goes from {before} to {after}")

    # What happens to nodes.

    def restarted(self) -> None:
        """A member may have forgotten what it reported, and the bytes of what it delivered."""
        self._forgetful = True

    def delivered(self, me: PeerId, digest: Digest) -> None:
        """Where one broadcast is all: an honest member delivers, what the origin said if it is honest."""
        for origin in self._honest:
            if self._said.get((origin, "proposal", Slot(0)), digest) != digest:
                raise Violation("validity", f"{me} delivers what {origin}, honest, did not say")
        kind = BROADCASTS[self._scenario.recipe.exchanges[0].broadcast]
        if kind.consistent:
            others = set(self._delivered.values()) - {digest}
            if others:
                raise Violation("consistency", f"{me} delivers what others do not")
        self._delivered[me] = digest

    def bounded(self, process: Process) -> None:
        """Memory of a node and of what it holds is within what its recipe, n and f allow, whatever it was told."""
        me, (agreements, deferred), held = process.member, process.node.footprint, len(process.vectors)
        if agreements > self._agreements_max:
            raise Violation("memory", f"{me} keeps {agreements} agreements")
        if deferred > DEFERRED_MAX:
            raise Violation("memory", f"{me} defers {deferred} words of one peer")
        if held > self._vectors_max:
            raise Violation("memory", f"{me} holds {held} vectors")

    def ended(self, finished: set[PeerId], origin: PeerId | None) -> None:
        """All is healed and nothing is under way any more.

        Args:
            finished: honest members that took their last step.
            origin: whose broadcast it was, where one broadcast was all.
        """
        missing = sorted(self._honest - finished)
        if missing and (origin is None or origin in self._honest):
            raise Violation("liveness", f"{missing} did not finish")
        total = BROADCASTS[self._scenario.recipe.exchanges[0].broadcast].total and not self._forgetful
        if missing and finished and total:
            raise Violation("totality", f"{sorted(finished)} delivered, {missing} did not")

    def told(self) -> None:
        """Nothing at all is under way: who is convicted anywhere is convicted everywhere."""
        for liar, holders in sorted(self._convicted.items()):
            missing = sorted(self._honest - holders)
            if missing:
                raise Violation("evidence", f"{missing} hold no proof against {liar}, {sorted(holders)} do")


def diameter(vectors: Sequence[Vector]) -> float:
    """The largest Euclidean distance between two of them, from sums in float64."""
    gram = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for start in range(0, len(vectors[0]), _BLOCK):
        rows = torch.from_numpy(np.stack([vector[start : start + _BLOCK] for vector in vectors])).double()
        rows -= rows[0].clone()  # distances may be small beside the vectors, and would be lost in squares of these
        gram += rows @ rows.T
    norms = gram.diagonal()
    return float((norms[:, None] + norms - 2 * gram).max().sqrt())


def _spread(vectors: dict[PeerId, Vector], *, per_coordinate: bool) -> Vector:
    rows = [vectors[member] for member in sorted(vectors)]
    if not per_coordinate:
        return np.array([diameter(rows)], np.float32)
    low, high = _range(rows)
    return high - low


def _radius(vectors: dict[PeerId, Vector]) -> float:
    """The largest distance from one of them."""
    first = vectors[min(vectors)]
    return max(_distance(first, vector) for vector in vectors.values())


def _range(vectors: list[Vector]) -> tuple[Vector, Vector]:
    """Least and largest of each coordinate."""
    return reduce(np.minimum, vectors), reduce(np.maximum, vectors)


def _slack(low: Vector, high: Vector) -> float:
    """What rounding may add, of vectors in this range."""
    return _ROUNDING * (1.0 + max(-float(low.min()), float(high.max())))


def _distance(one: Vector, other: Vector) -> float:
    return float(np.linalg.norm(one - other))
