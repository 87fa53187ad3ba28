"""Joint signatures: one signature on several statements, each of which it vouches for by itself.

    joint signature: Ed25519 on DOMAIN ‖ names (64 bytes), then the names
    names: the BLAKE3 hash of each statement (32 bytes each), increasing, `TOGETHER_MIN` … `TOGETHER_MAX` of them

It is good for a statement whose name is among them. To forge it for another takes a forged signature or a collision of
BLAKE3; a domain of its own keeps it from being taken for a signature on one statement, and the order gives each set of
statements one encoding. Who made it vouched for all of them, so whoever finds it good for one need not check it for the
others: that is what it is for.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import blake3

from protocols.header import SIGNATURE_BYTES, Signature

DOMAIN = b"p2pnode/joint/v1\0"

TOGETHER_MIN, TOGETHER_MAX = 2, 8
"""Statements under one signature: more would make certificates long, and save little."""

JOINT_MEMBERS_MAX = 256
"""In larger networks nothing is signed together: see `serves`."""

NAME_BYTES = 32

LENGTHS = frozenset(
    {SIGNATURE_BYTES} | {SIGNATURE_BYTES + NAME_BYTES * count for count in range(TOGETHER_MIN, TOGETHER_MAX + 1)}
)
"""Bytes of a signature of either kind."""


def serves(n: int) -> bool:
    """Whether joint signatures are made and taken among n members: where a certificate of them fits into a message."""
    return n <= JOINT_MEMBERS_MAX


def signatures(count: int) -> int:
    """How many signatures `count` statements get that are signed together."""
    return -(-count // TOGETHER_MAX)


def sign_together(sign: Callable[[bytes], Signature], statements: Sequence[bytes]) -> dict[bytes, Signature]:
    """A signature for each statement, one for up to `TOGETHER_MAX` of them; of one alone an ordinary one."""
    distinct = list(dict.fromkeys(statements))
    signed: dict[bytes, Signature] = {}
    for first in range(0, len(distinct), TOGETHER_MAX):
        some = distinct[first : first + TOGETHER_MAX]
        names = b"".join(sorted(map(_name, some)))
        signature = sign(some[0]) if len(some) < TOGETHER_MIN else sign(DOMAIN + names) + names
        signed.update(dict.fromkeys(some, signature))
    return signed


def names_of(statement: bytes, signature: Signature) -> bytes | None:
    """The names that a joint signature is on, if this statement is one of those that it may vouch for."""
    names = signature[SIGNATURE_BYTES:]
    each = [names[begin : begin + NAME_BYTES] for begin in range(0, len(names), NAME_BYTES)]
    increasing = all(one < other for one, other in pairwise(each))
    return names if len(signature) in LENGTHS and increasing and _name(statement) in each else None


def _name(statement: bytes) -> bytes:
    return blake3.blake3(statement).digest()
