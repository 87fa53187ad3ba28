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
from p2pnode.relay import FASTEST_BYTES_PER_S, Relay, Tap

HOSTS_MAX = 250

LINK_DELAY_S_MAX = 0.3
"""A hop over a geostationary satellite. Two hosts are two links apart, and a link between nodes opens within 10 s."""

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


_PACKET_BYTES = 1500
"""What most packets of a bulk transfer take on a wire; those that are handed down larger are fewer."""


class HostsFailed(P2PNodeError):
    """The system refuses what hosts are made of; says what it said."""


class Hosts:
    """Hosts that are there while this is entered, and are gone afterwards.

    Args:
        count: how many, at most `HOSTS_MAX`.
        megabits: of each link and direction, 10⁶ bits a second; None leaves them as fast as memory.
        delay_s: how long a packet is on each link, either way, at most `LINK_DELAY_S_MAX`; 0 leaves them as they are.

    Raises:
        ConfigError: if this system or user cannot make hosts, or not so many.
    """

    def __init__(self, count: int, megabits: float | None = None, delay_s: float = 0.0) -> None:
        if count > HOSTS_MAX:
            raise ConfigError(f"{count} hosts: at most {HOSTS_MAX} fit into a network. Remedy: use fewer nodes")
        if delay_s > LINK_DELAY_S_MAX:
            raise ConfigError(
                f"a delay of {delay_s * 1000:g} ms: a link takes {LINK_DELAY_S_MAX * 1000:g} ms at most. "
                "Remedy: choose a shorter one"
            )
        if shutil.which("ip") is None or shutil.which("tc") is None:
            raise ConfigError(
                "hosts of their own need Linux and iproute2. Remedy: install it, or use --engine processes"
            )
        if os.geteuid() != 0:
            raise ConfigError("hosts of their own need root. Remedy: use sudo, or --engine processes")
        self._count = count
        self._megabits = megabits
        self._delay_s = delay_s
        self._netem = False
        self._relay: Relay | None = None
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
        discipline = self._discipline(megabits)
        for where in self._ends(host):
            if discipline is None:
                _run(["tc", *where[0], "qdisc", "del", "dev", where[1], "root"], lenient=True)
            else:
                _run(["tc", *where[0], "qdisc", "replace", "dev", where[1], "root", *discipline])

    def _discipline(self, megabits: float | None) -> list[str] | None:
        """How the kernel queues what a device sends at that rate; None: as it likes."""
        if self._netem:
            return _netem(self._delay_s, megabits)
        return _bucket(megabits) if megabits is not None else None

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
        self._netem = self._delay_s > 0 and _has_netem(self._bridge)
        for host in range(self._count):
            _run(["ip", "netns", "add", self.namespace(host)])
        if self._delay_s and not self._netem:
            self._link_by_relay()
        else:
            self._link_by_kernel()
        for host in range(self._count):
            name = self.namespace(host)
            _run(["ip", "link", "set", self._port(host), "master", self._bridge, "up"])
            _run(["ip", "-n", name, "address", "add", f"{self.address(host)}/24", "dev", "eth0"])
            _run(["ip", "-n", name, "link", "set", "eth0", "up"])
            _run(["ip", "-n", name, "link", "set", "lo", "up"])
            if self._discipline(self._megabits) is not None:
                self.slow(host, self._megabits)

    def _link_by_kernel(self) -> None:
        for host in range(self._count):
            own_end = ["peer", "name", "eth0", "netns", self.namespace(host)]
            _run(["ip", "link", "add", self._port(host), "type", "veth", *own_end])

    def _link_by_relay(self) -> None:
        """Make the links of devices whose packets a process carries, which takes its time."""
        links: list[tuple[Tap, Tap]] = []
        try:
            for host in range(self._count):
                links.append((Tap(self._port(host)), Tap(f"{self._bridge}h{host}")))
                _run(["ip", "link", "set", links[-1][1].name, "netns", self.namespace(host), "name", "eth0"])
            self._relay = Relay(links, self._delay_s)
        finally:
            for link in links:
                for tap in link:
                    tap.close()

    def _remove(self) -> None:
        if self._relay is not None:
            self._relay.close()
            self._relay = None
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


def _netem(delay_s: float, megabits: float | None) -> list[str]:
    """What the kernel delays by, where it can: a queue that holds what is on the way, and waits, at that rate."""
    rate = FASTEST_BYTES_PER_S if megabits is None else megabits * 1e6 / 8
    packets = int(rate * (delay_s + _QUEUE_S) / _PACKET_BYTES) + 1
    limit = ["netem", "delay", f"{delay_s * 1e6:.0f}us", "limit", str(packets)]
    return limit if megabits is None else [*limit, "rate", f"{megabits}mbit"]


def _has_netem(device: str) -> bool:
    """Whether this kernel can delay what a device sends."""
    try:
        _run(["tc", "qdisc", "add", "dev", device, "root", "netem", "delay", "1us"])
    except HostsFailed:
        return False
    _run(["tc", "qdisc", "del", "dev", device, "root"])
    return True


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
