"""What the caller of a protocol did wrong. A peer's fault is a value (`faults.py`), never an exception."""


class UsageError(Exception):
    """A protocol was used against its contract, for example started twice."""
