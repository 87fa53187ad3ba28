"""How much memory this process holds, and held at most since it was last asked."""

import ctypes
from pathlib import Path


def forget_peak() -> int | None:
    """Make the process's peak of memory what it holds now, and say how much that is; None where Linux is not."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else a call is given what an earlier one gave back, and seems to need none
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except (OSError, AttributeError):
        return None


def peak() -> int:
    """The most bytes that the process held since `forget_peak`, which found Linux."""
    return _status("VmHWM")


def libraries() -> int:
    """Bytes of it that are code and tables of libraries: the kernel shares them between processes, and may drop them.

    `forget_peak` found Linux.
    """
    return _status("RssFile")


def _status(field: str) -> int:
    """Bytes of memory that Linux reports of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
