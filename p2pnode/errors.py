"""Every exception that p2pnode raises on purpose, in one tree.

A peer's fault is a value (`protocols.faults`), ours is an exception, our bug is an assertion that stays on. What the
driver does about each branch stands beside it.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class P2PNodeError(Exception):
    """Base of all errors below."""


class ConfigError(P2PNodeError):
    """A setting, file or argument is wrong: names the key, the value, the reason and the remedy. Exit code 2."""


class WireError(P2PNodeError):
    """Bytes from a peer are not a message. The link is closed."""


class FrameTooLarge(WireError):
    """A frame declares more bytes than its named bound; nothing of it was read into memory."""


class Malformed(WireError):
    """Bytes that decode to no message, or to one with a field out of bounds."""


class NonCanonical(WireError):
    """A second encoding of a message; every message has exactly one."""


class LinkError(P2PNodeError):
    """A link to a peer is closed or cannot be opened. The dialler backs off and tries again."""


class TrainingError(P2PNodeError):
    """A model, batch or vector cannot be trained with or mixed. The update is discarded."""


class NonFinite(TrainingError):
    """A vector holds NaN or infinity."""


class ShapeMismatch(TrainingError):
    """A vector has another length or dtype than the model's."""


class JournalError(P2PNodeError):
    """The durable record of what was signed cannot be trusted. The node halts: silence beats equivocation."""


class JournalCorrupt(JournalError):
    """A complete record fails its checksum."""


class JournalMissing(JournalError):
    """There is no record of what this key signed, though every key gets one when it is made."""


class DiskError(P2PNodeError):
    """The disk refuses what the node must write: names the path, the cause and the remedy. The node halts, exit code 1;
    what it had made durable before is whole, and it goes on from there."""


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room for this user on its disk"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "let this user write there"),
}


@contextmanager
def asking_disk(path: Path) -> Iterator[None]:
    """What the disk refuses within is told with the path and the remedy.

    Raises:
        DiskError: in the place of any OSError.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the disk and this user's limits")
        raise DiskError(f"{path}: {error.strerror or error}. Remedy: {remedy}, then start the node again") from error
