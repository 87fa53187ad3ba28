"""Signs, and never contradicts itself: one statement a place, for ever, over any crash.

What is signed must not leave the process before `flush` returned. The driver keeps to that by flushing once for all
that it handled together, before it performs any of the effects.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

from p2pnode.errors import ConfigError, JournalCorrupt
from p2pnode.identity import Identity
from p2pnode.joint import sign_together
from p2pnode.storage.journal import REMEDY, Journal
from protocols.header import Claim, Signature

_SIGNED = struct.Struct(">BQH")
_FLOOR = struct.Struct(">BQ")
_TAG_SIGNED, _TAG_FLOOR, _TAG_KEY = 1, 2, 3


class DurableSigner:
    """A `protocols.header.Signer` that remembers on disk.

    Args:
        identity: whose signatures.
        path: the journal's file, as `begin` made it.

    Raises:
        JournalMissing: if it is not there: something may have been signed, and nobody knows what.
        JournalCorrupt: if the record of what was signed is damaged.
        ConfigError: if it is another key's.
        DiskError: if it cannot be read or written.
    """

    def __init__(self, identity: Identity, path: Path) -> None:
        self._identity = identity
        self._journal = Journal(path)
        self._signed: dict[str, tuple[int, bytes]] = {}
        self._together: dict[bytes, Signature] = {}
        self.floor = 0
        """Nothing new is signed for steps before this one."""
        self._check_key(path)
        for record in self._journal.records[1:]:
            if not self._replay(record):
                self.close()
                raise JournalCorrupt(f"{path}: it holds a record that no signer writes. {REMEDY}")

    @staticmethod
    def begin(identity: Identity, path: Path) -> None:
        """Make the record of a key that never signed. Done once, when the key is made, and never when a node starts:
        so a record that is lost is not taken for one of a node that has yet to begin.

        Raises:
            ConfigError: if there is a record already.
        """
        if path.exists():
            raise ConfigError(f"{path}: exists. Remedy: choose another folder, what a key signed is never overwritten")
        Journal.make(path, [_key(identity)])

    @property
    def dirty(self) -> bool:
        """Whether something was signed that is not durable."""
        return self._journal.dirty

    @property
    def quick(self) -> bool:
        """Whether `flush` can be expected to return within `journal.QUICK_S`."""
        return self._journal.quick

    def sign(self, claim: Claim) -> Signature | None:
        """The signature, joint if `sign_together` made one; None where `promise` is False."""
        if not self.promise(claim):
            return None
        return self._together.get(claim.statement) or self._identity.sign(claim.statement)

    def sign_together(self, claims: Iterable[Claim]) -> None:
        """Sign those that may be signed as few times as can be: these are the signatures that `sign` gives for them,
        until it is called again. To what a joint signature is on, one is committed, asked for it or not."""
        promised = [claim.statement for claim in claims if self.promise(claim)]
        self._together = sign_together(self._identity.sign, promised)

    def promise(self, claim: Claim) -> bool:
        """Commit to the statement; False where another was signed for the place, or may have been and is forgotten."""
        known = self._signed.get(claim.place)
        if known is None:
            if claim.step < self.floor:
                return False
            self._journal.append(_signed(claim.step, claim.place, claim.statement))
            self._signed[claim.place] = (claim.step, claim.statement)
            return True
        return known[1] == claim.statement

    def promised(self, place: str) -> bytes | None:
        """The statement that was signed or promised for this place, if it is not forgotten."""
        known = self._signed.get(place)
        return known[1] if known is not None else None

    def flush(self) -> None:
        """Make all that was signed durable."""
        self._journal.flush()

    def forget_before(self, step: int) -> None:
        """Keep the journal short: nothing new is signed for steps before this one, so their places need no record."""
        if step <= self.floor:
            return
        self.floor = step
        self._signed = {place: entry for place, entry in self._signed.items() if entry[0] >= step}
        kept = (_signed(at, place, statement) for place, (at, statement) in self._signed.items())
        self._journal.rewrite([_key(self._identity), _FLOOR.pack(_TAG_FLOOR, step), *kept])

    def close(self) -> None:
        self._journal.close()

    def _check_key(self, path: Path) -> None:
        first = self._journal.records[0] if self._journal.records else b""
        if first == _key(self._identity):
            return
        self.close()
        if first[:1] == bytes([_TAG_KEY]):
            raise ConfigError(f"{path}: what another key signed. Remedy: put back the one that belongs to this key")
        raise JournalCorrupt(f"{path}: its beginning is lost. {REMEDY}")

    def _replay(self, record: bytes) -> bool:
        """Take up what a record says; whether it says anything."""
        if record[:1] == bytes([_TAG_FLOOR]) and len(record) == _FLOOR.size:
            _, self.floor = _FLOOR.unpack(record)
            return True
        if record[:1] != bytes([_TAG_SIGNED]) or len(record) < _SIGNED.size:
            return False
        _, step, length = _SIGNED.unpack_from(record)
        end = _SIGNED.size + length
        try:
            self._signed[record[_SIGNED.size : end].decode()] = (step, record[end:])
        except UnicodeDecodeError:
            return False
        return bool(end <= len(record))


def _key(identity: Identity) -> bytes:
    return bytes([_TAG_KEY]) + identity.public_key


def _signed(step: int, place: str, statement: bytes) -> bytes:
    name = place.encode()
    return _SIGNED.pack(_TAG_SIGNED, step, len(name)) + name + statement
