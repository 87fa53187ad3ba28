"""What each peer did wrong lately, and how long it is banned for it. Pure: the time is passed in.

A fault raises its peer's score; scores halve every `forgive_s` seconds. Who reaches `THRESHOLD` is banned, which pays
the score, each time for twice as long, up to `BAN_MAX_S`. It is kept over a restart in one small file with a checksum.

Why no honest peer is ever banned. Only what no correct peer does is charged, whatever its links and its machine do:

* what a protocol accuses it of: by the law `innocent` no correct peer is ever accused, over any schedule and crash
  (`tests/laws`; and the simulator checks it at every delivery);
* bytes on a lane that are no message, or no vector of this network. TLS hands over what the peer's process wrote, in
  order, or ends: who crashes in the middle of a frame, or whose bytes somebody changes on the way, leaves an end, and
  never other bytes.

An end, a failed handshake, silence, lateness, a backlog and a burst are charged to nobody: a peer that is slow, late,
starting again or losing its links keeps a score of nothing. Nobody is charged for another: the handshake names the
sender, and an accusation of someone else than the sender is charged only with a proof, or for bytes that the accused
signed the digest of.

Why a ban costs the honest nothing. If no more than f members lie, only they are banned, and that is to them as if they
fell silent, which they may at any time: no guarantee among the honest needs a liar's word. Should more of them
misbehave, no more than `banned_max` are banned at a time; with as many as no slot waits for (n less the largest quorum,
and f at most) there is always a quorum left to talk to, so a ban never stops a node by itself.
"""

import json
import math
from dataclasses import dataclass

import blake3

from protocols.faults import Fault
from protocols.header import PeerId

THRESHOLD = 5.0
"""Score at which a peer is banned: five faults at once, ten if one comes every fifth of the half-life. No correct peer
commits the first one; the others are for an operator who needs time to see what is broken."""

BAN_MAX_S = 86400.0
"""No ban is longer: whoever mends a node can wait for the end of it."""

_WEIGHTS = {Fault.EQUIVOCATED: THRESHOLD}
"""Of a fault beyond all doubt, that anyone can check; every other weighs 1."""

_DOUBLINGS_MAX = 64
_MAGIC = b"p2pnode conduct 1\n"
_CHECKSUM_BYTES = 32


@dataclass(slots=True)
class _Record:
    """One peer's: its score as of `at`, how often it was banned, and until when it is."""

    score: float = 0.0
    at: float = -math.inf
    bans: int = 0
    until: float = -math.inf


class Conduct:
    """The conduct of all members, as one of them sees it.

    Args:
        members: n.
        banned_max: how many may be banned at a time.
        ban_s: how long the first ban lasts; 0: nobody is ever banned.
        forgive_s: half-life of a score.
    """

    def __init__(self, members: int, banned_max: int, ban_s: float, forgive_s: float) -> None:
        self._members = members
        self._banned_max = banned_max
        self._ban_s = ban_s
        self._forgive_s = forgive_s
        self._records: dict[PeerId, _Record] = {}

    def __len__(self) -> int:
        """How many members something is remembered of."""
        return len(self._records)

    def charge(self, peer: PeerId, fault: Fault, now: float) -> float:
        """Take note of a fault; how many seconds the peer is banned for from now, 0 where it is not because of this.

        Who is banned pays already for what it said before. `now` never runs back.
        """
        assert 0 <= peer < self._members
        if self.banned(peer, now):
            return 0.0
        record = self._records.setdefault(peer, _Record())
        record.score = self._decayed(record, now) + _WEIGHTS.get(fault, 1.0)
        record.at = now
        if record.score < THRESHOLD or self._ban_s == 0 or len(self.all_banned(now)) >= self._banned_max:
            record.score = min(record.score, THRESHOLD)  # no debt without end while there is no room for a ban
            return 0.0
        period = min(self._ban_s * 2.0 ** min(record.bans, _DOUBLINGS_MAX), BAN_MAX_S)
        record.score, record.bans, record.until = 0.0, record.bans + 1, now + period
        return period

    def score(self, peer: PeerId, now: float) -> float:
        """What is held against a peer."""
        record = self._records.get(peer)
        return self._decayed(record, now) if record is not None else 0.0

    def banned(self, peer: PeerId, now: float) -> float:
        """How many seconds the peer's ban still lasts; 0 where it is not banned."""
        record = self._records.get(peer)
        return max(0.0, record.until - now) if record is not None else 0.0

    def all_banned(self, now: float) -> tuple[PeerId, ...]:
        return tuple(peer for peer in sorted(self._records) if self.banned(peer, now))

    def dump(self, network: bytes, now: float, wall: float) -> bytes:
        """What a file holds.

        Args:
            network: whose members these are.
            now: as everywhere here.
            wall: seconds since the epoch, which go on over a restart.
        """
        peers = {
            str(peer): [self._decayed(record, now), record.bans, self.banned(peer, now)]
            for peer, record in sorted(self._records.items())
        }
        body = json.dumps({"network": network.hex(), "at": wall, "peers": peers}).encode()
        return _MAGIC + blake3.blake3(body).digest() + body

    def restore(self, data: bytes, network: bytes, now: float, wall: float) -> bool:
        """Take up what a file holds; False, and nothing taken, where it is damaged or another network's.

        A clock that went back meanwhile counts as none: a ban never gets longer.
        """
        body = data[len(_MAGIC) + _CHECKSUM_BYTES :]
        if data != _MAGIC + blake3.blake3(body).digest() + body:
            return False
        try:
            told = json.loads(body)
            at, peers = float(told["at"]), {PeerId(int(peer)): record for peer, record in told["peers"].items()}
            sound = all(self._possible(peer, *record) for peer, record in peers.items()) and math.isfinite(at)
            if told["network"] != network.hex() or not sound:
                return False
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
            return False
        gone = max(0.0, wall - at)
        for peer, (score, bans, left) in peers.items():
            self._records[peer] = _Record(score * self._left_of(gone), now, bans, now + min(left, BAN_MAX_S) - gone)
        return True

    def _possible(self, peer: PeerId, score: float, bans: int, left: float) -> bool:
        """Whether this may have been written of a member."""
        member = 0 <= peer < self._members and 0 <= score <= THRESHOLD and 0 <= left < math.inf
        return member and type(bans) is int and bans >= 0

    def _decayed(self, record: _Record, now: float) -> float:
        return record.score * self._left_of(now - record.at)

    def _left_of(self, seconds: float) -> float:
        """What share of a score is left after a time."""
        return math.exp2(-max(0.0, seconds) / self._forgive_s)
