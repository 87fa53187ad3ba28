"""Hosts of their own on one machine: a network namespace a node, joined by a bridge, with links as slow as asked.

Every host has an address of its own in one network, and a full-duplex link to the bridge; this machine is on it too, so
that it can ask the nodes how they are. Linux only, by `ip` and `tc`, as root.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from p2pnode.errors import ConfigError, P2PNodeError

HOSTS_MAX = 250

_PREFIX = "p2pn"
"""Names of what is made here begin so, and go on with the id of the process that made them."""

_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000  # setns(2)

_BURST_S = 0.01
"""How long a link may send faster than its rate: one tick of the slowest kernel clock."""

_BURST_BYTES_MIN = 64 * 1024
"""The largest packet that a kernel hands down."""

_QUEUE_S = 0.05
"""How much may wait in front of a slow link; more is dropped, as at a switch's port."""


class HostsFailed(P2PNodeError):
    """The system refuses what hosts are made of; says what it said."""


class Hosts:
    """Hosts that are there while this is entered, and are gone afterwards.

    Args:
        count: how many, at most `HOSTS_MAX`.
        megabits: of each link and direction, 10⁶ bits a second; None leaves them as fast as memory.

    Raises:
        ConfigError: if this system or user cannot make hosts, or not so many.
    """

    def __init__(self, count: int, megabits: float | None = None) -> None:
        if count > HOSTS_MAX:
            raise ConfigError(f"{count} hosts: at most {HOSTS_MAX} fit into a network. Remedy: use fewer nodes")
        if shutil.which("ip") is None or shutil.which("tc") is None:
            raise ConfigError(
                "hosts of their own need Linux and iproute2. Remedy: install it, or use --engine processes"
            )
        if os.geteuid() != 0:
            raise ConfigError("hosts of their own need root. Remedy: use sudo, or --engine processes")
        self._count = count
        self._megabits = megabits
        self._bridge = f"{_PREFIX}{os.getpid()}"
        self._network = f"10.{64 + (os.getpid() >> 8) % 64}.{os.getpid() % 256}"

    def __enter__(self) -> "Hosts":
        _remove_left_behind()
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def address(self, host: int) -> str:
        """The IPv4 address of a host."""
        return f"{self._network}.{host + 1}"

    def namespace(self, host: int) -> str:
        """What `enter` takes."""
        return f"{self._bridge}-{host}"

    def cut(self, one: Iterable[int], other: Iterable[int]) -> None:
        """Let nothing pass between these hosts any more, in either direction; connections stay as they are."""
        self._routes("add", one, other)

    def heal(self, one: Iterable[int], other: Iterable[int]) -> None:
        """Let pass again what `cut` stopped."""
        self._routes("del", one, other)

    def slow(self, host: int, megabits: float | None) -> None:
        """Give the link of a host another rate."""
        for where in self._ends(host):
            if megabits is None:
                _run(["tc", *where[0], "qdisc", "del", "dev", where[1], "root"], lenient=True)
            else:
                _run(["tc", *where[0], "qdisc", "replace", "dev", where[1], "root", *_bucket(megabits)])

    def restore(self, host: int) -> None:
        """Give the link of a host the rate again that it was made with."""
        self.slow(host, self._megabits)

    def _routes(self, what: str, one: Iterable[int], other: Iterable[int]) -> None:
        pairs = [(a, b) for a in one for b in other]
        for here, there in (*pairs, *((b, a) for a, b in pairs)):
            route = ["route", what, "blackhole", f"{self.address(there)}/32"]
            _run(["ip", "-n", self.namespace(here), *route])

    def _ends(self, host: int) -> tuple[tuple[Sequence[str], str], ...]:
        """Both devices of a host's link: its own, which sends, and the bridge's, from which it receives."""
        return (("-n", self.namespace(host)), "eth0"), ((), self._port(host))

    def _port(self, host: int) -> str:
        return f"{self._bridge}.{host}"

    def _make(self) -> None:
        _run(["ip", "link", "add", self._bridge, "type", "bridge"])
        _run(["ip", "address", "add", f"{self._network}.254/24", "dev", self._bridge])
        _run(["ip", "link", "set", self._bridge, "up"])
        for host in range(self._count):
            name, port = self.namespace(host), self._port(host)
            _run(["ip", "netns", "add", name])
            _run(["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name])
            _run(["ip", "link", "set", port, "master", self._bridge, "up"])
            _run(["ip", "-n", name, "address", "add", f"{self.address(host)}/24", "dev", "eth0"])
            _run(["ip", "-n", name, "link", "set", "eth0", "up"])
            _run(["ip", "-n", name, "link", "set", "lo", "up"])
            if self._megabits is not None:
                self.slow(host, self._megabits)

    def _remove(self) -> None:
        for host in range(self._count):
            _run(["ip", "netns", "del", self.namespace(host)], lenient=True)
            _run(["ip", "link", "del", self._port(host)], lenient=True)
        _run(["ip", "link", "del", self._bridge], lenient=True)


def enter(namespace: str) -> None:
    """Move the calling process to a host."""
    fd = os.open(_NAMESPACES / namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)
    finally:
        os.close(fd)


def _bucket(megabits: float) -> list[str]:
    """A token bucket of that rate."""
    burst = max(_BURST_BYTES_MIN, int(megabits * 1e6 / 8 * _BURST_S))
    return ["tbf", "rate", f"{megabits}mbit", "burst", str(burst), "latency", f"{_QUEUE_S * 1000:.0f}ms"]


def _remove_left_behind() -> None:
    """Remove the hosts of processes that were killed."""
    for namespace in _NAMESPACES.glob(f"{_PREFIX}*-*") if _NAMESPACES.exists() else ():
        if _is_left_behind(namespace.name.partition("-")[0]):
            _run(["ip", "netns", "del", namespace.name], lenient=True)
    for device in Path("/sys/class/net").glob(f"{_PREFIX}*"):
        if _is_left_behind(device.name.partition(".")[0]):
            _run(["ip", "link", "del", device.name], lenient=True)


def _is_left_behind(name: str) -> bool:
    owner = name.removeprefix(_PREFIX)
    return owner.isdigit() and not Path(f"/proc/{owner}").exists()


def _run(command: Sequence[str], *, lenient: bool = False) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not lenient:
        raise HostsFailed(f"{' '.join(command)}: {done.stderr.strip()}")
