"""What signatures cost a node in a step of signed echo broadcast: real keys, real protocols, no network.

All members of a network play one slot, each the origin of a vector, and one of them is watched: what it signs and
checks, how often, and what time of a processor it takes: the least of some repeats, since all do the same work.
"""

import json
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from p2pnode.bench.app import app
from p2pnode.identity import Identity, KeyRing
from protocols.committee import Committee
from protocols.effects import (
    Broadcast,
    Certificate,
    Echo,
    Effect,
    Evidence,
    Expect,
    Fetch,
    Hello,
    Message,
    Proposal,
    Send,
)
from protocols.gather import Gather
from protocols.header import DIGEST_BYTES, FLOAT32, NETWORK_BYTES, Claim, Digest, PeerId, Signature, Slot
from protocols.protocol import Party
from protocols.signed_echo import SignedEcho

SIZES = (4, 7, 10, 16, 26, 32)
QUICK_SIZES = (4, 7)
REPEATS, QUICK_REPEATS = 5, 1

_SLOT = Slot(0)
_WATCHED = PeerId(0)
_CHECKED_WITH = {Proposal: "headers", Echo: "echoes", Certificate: "certificates"}
_ALL = ("signed", "headers", "echoes", "certificates")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of signature in a network of n, which tolerates as many liars as signed echo can.

    Args:
        what: `signed`, or what the checked ones came with: `headers`, `echoes`, `certificates`.
        n: members.
        signatures: of the kind, in one step of one node.
        microseconds: of a processor, that they take all together.
        share: of what all kinds take.
    """

    what: str
    n: int
    signatures: int
    microseconds: float
    share: float


@app.command()
def crypto(
    quick: Annotated[bool, typer.Option("--quick", help="Small networks, one repeat.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Count and time what a node signs and checks in a step of signed echo broadcast."""
    rows = list(measure(QUICK_SIZES if quick else SIZES, QUICK_REPEATS if quick else REPEATS))
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(asdict(row)) + "\n")
    else:
        Console().print(_table(rows))


def measure(sizes: Sequence[int], repeats: int) -> Iterator[Row]:
    """The rows of all sizes; progress goes to stderr."""
    for n in track(sizes, "signatures", console=Console(stderr=True), transient=True):
        plays = [_Play(n) for _ in range(repeats)]
        least = {what: 1e6 * min(play.seconds[what] for play in plays) for what in _ALL}
        for what in _ALL:
            yield Row(what, n, plays[0].count[what], least[what], least[what] / sum(least.values()))


class _Play:
    """One slot of a whole network, played to its end."""

    def __init__(self, n: int) -> None:
        self.count: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._checked_with = ""
        identities = [Identity.generate() for _ in range(n)]
        keys = KeyRing([identity.public_key for identity in identities])
        committee = Committee(n, (n - 1) // 3)
        self._gathers = [
            Gather(self._party(PeerId(me), committee, identity, keys), _SLOT, SignedEcho)
            for me, identity in enumerate(identities)
        ]
        self._play()

    def _party(self, me: PeerId, committee: Committee, identity: Identity, keys: KeyRing) -> Party:
        watch = self if me == _WATCHED else None
        signer = _Signer(identity, watch)

        def verify(member: PeerId, statement: bytes, signature: Signature, /) -> bool:
            if watch is None:  # the others only have to play their part
                return True
            began = time.thread_time()
            good = keys(member, statement, signature)
            watch.took(self._checked_with, time.thread_time() - began)
            return good

        return Party(me, committee, bytes(NETWORK_BYTES), FLOAT32, 1, signer, verify)

    def took(self, what: str, seconds: float) -> None:
        self.count[what] += 1
        self.seconds[what] += seconds

    def _play(self) -> None:
        """Each word is heard in the order in which it was said, and bytes are there at once."""
        words: deque[tuple[PeerId, PeerId, Message]] = deque()
        for me, gather in enumerate(self._gathers):
            self._perform(PeerId(me), gather.start(_digest(me)), words)
        while words:
            sender, to, message = words.popleft()
            self._checked_with = _CHECKED_WITH[type(message)]
            self._perform(to, self._gathers[to].handle(sender, message), words)
        assert all(gather.done for gather in self._gathers)

    def _perform(self, me: PeerId, effects: list[Effect], words: deque[tuple[PeerId, PeerId, Message]]) -> None:
        for effect in effects:
            match effect:
                case Send(to, message):
                    assert not isinstance(message, Hello | Evidence)
                    words.append((me, to, message))
                case Broadcast(message):
                    assert not isinstance(message, Evidence)
                    words.extend((me, PeerId(to), message) for to in range(len(self._gathers)) if to != me)
                case Expect(header) | Fetch(header, _):
                    self._perform(me, self._gathers[me].arrived(header.digest), words)
                case _:
                    continue


class _Signer:
    """Signs whatever it is asked to, and says how long that takes: nothing is asked for twice here."""

    def __init__(self, identity: Identity, watch: _Play | None) -> None:
        self._identity = identity
        self._watch = watch

    def sign(self, claim: Claim) -> Signature:
        began = time.thread_time()
        signature = self._identity.sign(claim.statement)
        if self._watch is not None:
            self._watch.took("signed", time.thread_time() - began)
        return signature

    def promise(self, claim: Claim) -> bool:
        return True

    def promised(self, place: str) -> bytes | None:
        return None


def _digest(member: int) -> Digest:
    return member.to_bytes(DIGEST_BYTES, "big")


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="What one node signs and checks in a step of signed echo", title_justify="left")
    for heading in ("n", "what", "signatures", "ms", "share"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for row in rows:
        table.add_row(str(row.n), row.what, str(row.signatures), f"{row.microseconds / 1e3:.2f}", f"{row.share:.0%}")
    return table
