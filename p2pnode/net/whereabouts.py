"""Where members are said to be, for when nobody answers at the address that the genesis has. Pure.

Anybody may say anything of anybody: what is said is an address worth a dial, and nothing else. Who answers there proves
in TLS, as everywhere, that it holds the member's key. So a lie costs dials, of which there are at most `ADDRESSES_MAX`
after each of the genesis's own, and can hide what is said truly; it never takes the place of the genesis's address.
"""

import hashlib
from collections import deque

from p2pnode.genesis import Genesis
from protocols.header import PeerId

ADDRESSES_MAX = 4
"""Addresses of one member that are remembered, the newest, and dialled in one try of its link: a machine has one on
each of its networks, and is seldom on more."""


def fingerprint(public_key: str) -> str:
    """What names a key where it is only looked up: SHA-256 of its bytes, in hex.

    Args:
        public_key: in hex, as the genesis has it.
    """
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()


class Whereabouts:
    """What was heard of the members of one genesis.

    Args:
        genesis: the members.
    """

    def __init__(self, genesis: Genesis) -> None:
        self._own = [member.address for member in genesis.members]
        self._member_of = {fingerprint(member.public_key): PeerId(i) for i, member in enumerate(genesis.members)}
        self._heard: list[deque[str]] = [deque(maxlen=ADDRESSES_MAX) for _ in genesis.members]

    def hear(self, key: str, address: str) -> None:
        """Somebody says that the holder of the key with this fingerprint listens there."""
        peer = self._member_of.get(key)
        if peer is None or address == self._own[peer]:
            return
        heard = self._heard[peer]
        if address in heard:
            heard.remove(address)
        heard.appendleft(address)

    def of(self, peer: PeerId) -> tuple[str, ...]:
        """Where a member is said to be, besides its address in the genesis; the newest first."""
        return tuple(self._heard[peer])

    def refute(self, peer: PeerId, address: str) -> None:
        """It did not answer there; no more is tried there until it is said again."""
        if address in self._heard[peer]:
            self._heard[peer].remove(address)
