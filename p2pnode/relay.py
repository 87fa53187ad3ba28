"""Links that take time, where the kernel has none: what goes in at one end comes out at the other so much later.

The ends of such a link are TAP devices, whose packets a process of its own carries: to the nodes they are ordinary
network devices, and round trips are real to everything above. A packet is as large as TCP hands it down (64 KiB), so a
byte costs little more than two copies.

Run as `python -m p2pnode.relay DELAY_S LINE_BYTES_MAX ONE OTHER …`, with a pair of file descriptors for each link. It
ends when standard input ends, so also when the process that started it is killed, and with it its devices end.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from p2pnode.errors import ConfigError

FASTEST_BYTES_PER_S = 625_000_000
"""5 Gbit/s: what a link that takes time carries, at most; one process does not copy more."""

_TUN = "/dev/net/tun"
_TUNSETIFF = 0x400454CA  # linux/if_tun.h, as the rest
_TUNSETOFFLOAD = 0x400454D0
_IFF_TAP_NO_PI_VNET_HDR = 0x0002 | 0x1000 | 0x4000
_TUN_F_CSUM_TSO4_TSO6 = 0x01 | 0x02 | 0x04

_PACKET_BYTES_MAX = 65536 + 64
"""The largest packet that TCP hands down, with the headers of Ethernet and of virtio before it."""

_AT_ONCE = 16
"""Packets that are read of one device before the others have their turn."""


def line_bytes(delay_s: float) -> int:
    """What one direction of a link may hold: as much as is on the way at `FASTEST_BYTES_PER_S`, and one packet."""
    return int(FASTEST_BYTES_PER_S * delay_s) + _PACKET_BYTES_MAX


class Tap:
    """A network device whose packets are read and written here; it is gone when all who hold it have closed it.

    Args:
        name: of the device.

    Raises:
        ConfigError: if this system or user cannot make one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self.fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self.fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP_NO_PI_VNET_HDR))
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, _TUN_F_CSUM_TSO4_TSO6)
        except OSError as error:
            raise ConfigError(
                f"links that take time need {_TUN} or the kernel's netem: {error.strerror}. "
                "Remedy: load the module tun or sch_netem, or leave --link-delay out"
            ) from error

    def close(self) -> None:
        os.close(self.fd)


class Lines:
    """Both directions of each link: every packet comes out once, in order, and not before its time.

    Pure but for the reads and writes: the time is passed in.

    Args:
        ends: the two file descriptors of each link, which do not block.
        delay_s: how long a packet is on the way.
        line_bytes_max: a direction that holds so much is not read: what comes then waits where it comes from.
    """

    def __init__(self, ends: Iterable[tuple[int, int]], delay_s: float, line_bytes_max: int) -> None:
        self._other_end = {here: there for one, other in ends for here, there in ((one, other), (other, one))}
        self._delay_s = delay_s
        self._line_bytes_max = line_bytes_max
        # The delay is the same for all, so what came first leaves first, whichever way it goes.
        self._on_the_way: deque[tuple[float, int, bytes]] = deque()
        self._held = dict.fromkeys(self._other_end, 0)

    def take(self, end: int, now: float) -> None:
        """Read what has come in at an end, as far as there is room."""
        for _ in range(_AT_ONCE):
            if self.full(end):
                return
            try:
                packet = os.read(end, _PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            self._held[end] += len(packet)
            self._on_the_way.append((now + self._delay_s, end, packet))

    def full(self, end: int) -> bool:
        """Whether what came in at this end fills its line."""
        return self._held[end] > self._line_bytes_max - _PACKET_BYTES_MAX

    def next_at(self) -> float | None:
        """When the next packet is to leave; None where none is on the way."""
        return self._on_the_way[0][0] if self._on_the_way else None

    def deliver(self, now: float) -> Iterator[int]:
        """Write what is due; at which ends there is room again."""
        while self._on_the_way and self._on_the_way[0][0] <= now:
            _, end, packet = self._on_the_way.popleft()
            was_full = self.full(end)
            self._held[end] -= len(packet)
            with suppress(OSError):  # the device is down or choked: lost, as on any link
                os.write(self._other_end[end], packet)
            if was_full and not self.full(end):
                yield end


class Relay:
    """The process that carries the packets of these links, from when it is made until it is closed.

    Args:
        links: the two devices of each; the process holds them until its end.
        delay_s: how long a packet is on the way.
    """

    def __init__(self, links: Sequence[tuple[Tap, Tap]], delay_s: float) -> None:
        fds = [tap.fd for link in links for tap in link]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "p2pnode.relay", repr(delay_s), str(line_bytes(delay_s)), *map(str, fds)],
            stdin=subprocess.PIPE,
            pass_fds=fds,
            start_new_session=True,  # Ctrl-C is for the process that closes this
        )

    def close(self) -> None:
        """End the process, and the devices with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(delay_s: float, line_bytes_max: int, fds: Sequence[int]) -> None:
    """Carry packets until standard input ends."""
    lines = Lines(zip(fds[::2], fds[1::2], strict=True), delay_s, line_bytes_max)
    ready = select.epoll()
    ready.register(0, select.EPOLLIN)
    for fd in fds:
        ready.register(fd, select.EPOLLIN)
    while True:
        due = lines.next_at()
        for fd, _ in ready.poll(None if due is None else max(0.0, due - time.monotonic())):
            if fd == 0:
                return
            lines.take(fd, time.monotonic())
            if lines.full(fd):
                ready.modify(fd, 0)
        for fd in lines.deliver(time.monotonic()):
            ready.modify(fd, select.EPOLLIN)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), [int(fd) for fd in sys.argv[3:]])
