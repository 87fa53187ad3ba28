"""Links that take time: every packet once, in order, not before its time; and never more on the way than is allowed."""

import os
import socket
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import relay
from p2pnode.errors import ConfigError
from p2pnode.relay import FASTEST_BYTES_PER_S, Lines, Relay, Tap, line_bytes

DELAY_S = 0.25
"""Exact in binary, so that times can be compared."""


@contextmanager
def link():
    """A link of lines between two ends, and what is plugged into each: pairs of sockets that keep packets apart."""
    sockets = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for pair in sockets:
        for each in pair:
            each.setblocking(False)
    (near, one), (far, other) = sockets
    try:
        yield (one.fileno(), other.fileno()), near, far
    finally:
        for pair in sockets:
            for each in pair:
                each.close()


def came(end):
    packets = []
    while True:
        try:
            packets.append(end.recv(2**17))
        except BlockingIOError:
            return packets


@given(st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), max_size=12))
def test_a_packet_comes_out_once_in_order_and_not_before_its_time(sent):
    with link() as (ends, near, far):
        lines = Lines([ends], DELAY_S, line_bytes(DELAY_S))
        now, due = 0.0, []
        arrived = []
        for number, (pause, forth) in enumerate([*sent, (DELAY_S, True)]):
            now += pause
            list(lines.deliver(now))
            arrived += [(packet, forth) for end, forth in ((far, True), (near, False)) for packet in came(end)]
            wanted = [(packet, way) for at, packet, way in due if at <= now]
            assert sorted(arrived) == sorted(wanted)
            for way in (True, False):
                assert [p for p, forth in arrived if forth is way] == [p for p, forth in wanted if forth is way]
            assert lines.next_at() == next((at for at, _, _ in due if at > now), None)
            if number < len(sent):
                packet = b"%03d" % number
                (near if forth else far).send(packet)
                lines.take(ends[0] if forth else ends[1], now)
                due.append((now + DELAY_S, packet, forth))


def test_a_full_line_is_not_read_until_it_has_room_and_the_other_way_is_free():
    with link() as (ends, near, far):
        one, other = ends
        room = relay._PACKET_BYTES_MAX + 2000
        lines = Lines([ends], DELAY_S, room)
        for _ in range(5):
            near.send(bytes(1000))
        lines.take(one, 0.0)
        assert lines.full(one)
        assert not lines.full(other)
        assert lines._held[one] == 3000 <= room
        assert list(lines.deliver(0.2)) == []
        assert list(lines.deliver(DELAY_S)) == [one]
        assert [len(packet) for packet in came(far)] == [1000] * 3
        lines.take(one, DELAY_S)
        assert list(lines.deliver(2 * DELAY_S)) == []
        assert [len(packet) for packet in came(far)] == [1000] * 2


@pytest.mark.parametrize("delay_s", [0.001, 0.02, 0.3])
def test_a_line_holds_what_is_on_the_way_at_its_fastest_and_so_slows_nothing_down(delay_s):
    held = line_bytes(delay_s)
    assert FASTEST_BYTES_PER_S * delay_s <= held <= FASTEST_BYTES_PER_S * delay_s + relay._PACKET_BYTES_MAX


def test_what_cannot_be_delivered_is_lost_and_the_rest_goes_on():
    with link() as (broken, near, far), link() as (whole, there, here):
        lines = Lines([broken, whole], DELAY_S, line_bytes(DELAY_S))
        far.close()
        for end in (near, there):
            end.send(b"x")
        for end in (broken[0], whole[0]):
            lines.take(end, 0.0)
        list(lines.deliver(DELAY_S))
        assert came(here) == [b"x"]


def test_packets_are_carried_until_the_relay_is_closed():
    with link() as ((one, other), near, far):
        carried = Relay([(End(one), End(other))], 0.02)
        for end in (near, far):
            end.setblocking(True)
            end.settimeout(20)
        near.send(b"there")
        assert far.recv(100) == b"there"
        far.send(b"and back")
        assert near.recv(100) == b"and back"
        carried.close()
        near.send(b"nobody carries this")
        far.settimeout(0.1)
        with pytest.raises(TimeoutError):
            far.recv(100)


class End:
    """What a relay needs of a device."""

    def __init__(self, fd):
        self.fd = fd


def test_who_cannot_make_a_device_is_told_what_to_do(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"Operation not permitted. Remedy: load the module tun or sch_netem"):
        Tap("p2pn-test")
