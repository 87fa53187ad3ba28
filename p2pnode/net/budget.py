"""What one peer may say a second before it is read more slowly, and how often one address may knock. Pure: the time is
passed in.

A peer is charged for each message before it is decoded, in messages and in bytes, and for each vector whose bytes are
thrown away. Whoever owes something is not read until time has paid for it. Nobody is closed for being fast, nor is it
held against anyone: how much a correct peer says after an outage depends on what its links did, so no amount is wrong.
What a flood costs is bounded by this in time, and by one read of the socket in memory.

The allowance follows from the recipe. Of one slot a correct peer says to another at most its proposal, certificate and
two reports; an echo, and a ready or a sighting, for each of n origins; and a request for the bytes of each. When a link
comes up it tells all that it retains at once: that is a retelling. One of these a second, and one saved up, is what a
peer may say: 66 steps a second for hours, and of a recipe that says less than all of that, several times as many.
"""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from p2pnode.joint import LENGTHS
from p2pnode.node import RETAINED_STEPS_MAX
from p2pnode.recipe import Recipe
from protocols.committee import Committee

_WORD_BYTES = 196
"""No message but a certificate, a report, a proof and a jointly signed echo takes more with its length; and what is
said of each origin, such an echo, a header and a request, takes less than three."""

_PROOF_BYTES = 364
_ECHO_BYTES = max(LENGTHS) + 7
"""Of a certificate."""

KNOCKS_PER_S = 4.0
"""Connections that one address may open a second, for ever. Each costs its handshake, a millisecond of a core, before
it is known whose it is."""

KNOCKS_SAVED, KNOCKS_SAVED_PER_MEMBER = 64, 8
"""And so many are saved up: where all members live at one address, as in a testnet, they may all come at once, again
after a failure, and once more."""

_ADDRESSES_MAX = 1024
"""Addresses that are remembered, those that knocked last."""

_IPV6_PREFIX_BITS = 64
"""What one subscriber gets of these addresses is one address, however many it makes of it."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a peer may say a second, and save up.

    Args:
        messages: on the control lane.
        nbytes: on the control lane, with the lengths.
        vectors: on the bulk lane, of those that nobody needs.
    """

    messages: float
    nbytes: float
    vectors: float


def allowance(recipe: Recipe, committee: Committee, steps: int) -> Allowance:
    """What this recipe needs, several times over.

    Args:
        recipe: what a step exchanges.
        committee: among how many.
        steps: how many the network takes; the last ones may have the most slots.
    """
    n = committee.n
    slots = (RETAINED_STEPS_MAX + 2) * recipe.slots(steps)
    words = slots * (4 + 3 * n)
    nbytes = words * _WORD_BYTES + slots * (_ECHO_BYTES + 6) * n
    return Allowance(float(words + n), float(nbytes + n * _PROOF_BYTES), float(slots))


class Bucket:
    """Fills by `rate` a second up to `most`, and may be owed to.

    Args:
        rate: how much a second.
        most: how much can be saved up; None for a second's worth.
    """

    def __init__(self, rate: float, most: float | None = None) -> None:
        self._rate = rate
        self._most = self._level = rate if most is None else most
        self._at: float | None = None

    def charge(self, amount: float, now: float) -> float:
        """Take this much; how many seconds it takes until nothing is owed."""
        self._fill(now)
        self._level -= amount
        return max(0.0, -self._level / self._rate)

    def afford(self, amount: float, now: float) -> bool:
        """Take this much if it is there; else nothing is taken."""
        self._fill(now)
        if self._level < amount:
            return False
        self._level -= amount
        return True

    def _fill(self, now: float) -> None:
        gone = max(0.0, now - self._at) if self._at is not None else 0.0
        self._at = now
        self._level = min(self._most, self._level + gone * self._rate)


class Budget:
    """One peer's, over all its links: who opens a new one takes its debts along."""

    def __init__(self, allowed: Allowance) -> None:
        self._messages = Bucket(allowed.messages)
        self._nbytes = Bucket(allowed.nbytes)
        self._vectors = Bucket(allowed.vectors)

    def message(self, nbytes: int, now: float) -> float:
        """A message of so many bytes came; for how many seconds nothing more is to be read."""
        return max(self._messages.charge(1.0, now), self._nbytes.charge(nbytes, now))

    def waste(self, now: float) -> float:
        """A vector is thrown away; for how many seconds nothing more is to be read."""
        return self._vectors.charge(1.0, now)


class Knocks:
    """Who may open one more connection, by the address it comes from: whose it is tells only the handshake.

    Where a liar and an honest node share an address, as behind one router, the liar's knocks may keep the other out
    while they last; so nobody is refused for those of other addresses.

    Args:
        members: how many may live at one address.
    """

    def __init__(self, members: int) -> None:
        self._most = float(KNOCKS_SAVED + KNOCKS_SAVED_PER_MEMBER * members)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._buckets)

    def admits(self, host: str, now: float) -> bool:
        """Whether a connection from this address is worth its handshake; it is counted if so."""
        source = _source(host)
        bucket = self._buckets.pop(source, None) or Bucket(KNOCKS_PER_S, self._most)
        self._buckets[source] = bucket
        if len(self._buckets) > _ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        return bucket.afford(1.0, now)


def _source(host: str) -> str:
    """What is counted as one address."""
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(int(address) >> (address.max_prefixlen - _IPV6_PREFIX_BITS))
    return host
