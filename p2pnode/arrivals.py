"""Vectors that came, told to the node together, so that it signs its echoes of them together.

A slot goes on with n−f vectors, so nobody misses the echo of the first of them before the last is here. What came
first is held back until then, but for no longer than vectors usually take: then the node is told what there is. Later
ones it is told at once, and any one at once that a certificate asks for. Pure: the driver has the clock.

That puts off what a node does, and decides nothing: to the protocols it is a network that is as slow.
"""

from collections import Counter
from collections.abc import Collection

from p2pnode.recipe import Recipe
from protocols.committee import Committee
from protocols.header import Digest, Header, Slot


class Arrivals:
    """Those of one node.

    Args:
        recipe: what a step exchanges.
        committee: among whom.
    """

    def __init__(self, recipe: Recipe, committee: Committee) -> None:
        self._enough = {
            number: together
            for number, exchange in enumerate(recipe.exchanges)
            if (together := exchange.together(committee))
        }
        """By exchange in which echoes are signed together: of how many vectors of others."""
        self._expected: dict[Digest, list[Slot]] = {}
        self._came: Counter[Slot] = Counter()
        self._held: dict[Slot, list[Digest]] = {}
        self._urgent: set[Digest] = set()

    def expect(self, header: Header) -> None:
        """The node waits for the bytes of this header. More members' than one may have the same."""
        if header.slot.exchange in self._enough:
            self._expected.setdefault(header.digest, []).append(header.slot)

    def came(self, digest: Digest) -> tuple[list[Digest], list[Slot]]:
        """These bytes are here.

        Returns:
            what the node is to be told now, and the slots in which something is held back from now on.
        """
        slots = self._expected.pop(digest, [])
        at_once = digest in self._urgent or not slots
        self._urgent.discard(digest)
        told, began = [digest] if at_once else [], []
        for slot in slots:
            self._came[slot] += 1
            if not at_once:
                began += [slot] if slot not in self._held else []
                self._held.setdefault(slot, []).append(digest)
            if self._came[slot] >= self._enough[slot.exchange]:
                told += self.release(slot)
        return told, [slot for slot in began if slot in self._held]

    def hurry(self, digest: Digest) -> None:
        """It is certified: nobody needs the node's echo of it, and the node is to be told as soon as it comes."""
        if digest in self._expected:
            self._urgent.add(digest)

    def release(self, slot: Slot) -> list[Digest]:
        """What was held back in a slot."""
        return list(dict.fromkeys(self._held.pop(slot, [])))

    def forget(self, before: Slot) -> None:
        """Nobody waits for vectors of slots before this one."""
        self._came = Counter({slot: count for slot, count in self._came.items() if slot >= before})
        self._held = {slot: digests for slot, digests in self._held.items() if slot >= before}
        self._expected = {
            digest: later
            for digest, slots in self._expected.items()
            if (later := [slot for slot in slots if slot >= before])
        }
        self._urgent &= self._expected.keys()

    @property
    def known(self) -> Collection[Slot]:
        """Slots of which something is remembered."""
        return {*self._came, *self._held, *(slot for slots in self._expected.values() for slot in slots)}
