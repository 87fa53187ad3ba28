"""Hosts of their own: they reach each other and this machine, are as slow as asked, are cut off, and leave no trace."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest

from p2pnode import hosts
from p2pnode.errors import ConfigError
from p2pnode.hosts import Hosts, HostsFailed
from tests.machines import needs_hosts


def on(namespace, work, *args):
    """What `work` returns on a host."""
    with ProcessPoolExecutor(1, get_context("fork"), hosts.enter, (namespace,)) as pool:
        return pool.submit(work, *args).result(timeout=30)


def reaches(address, port, patience=0.5):
    try:
        socket.create_connection((address, port), patience).close()
    except OSError:
        return False
    return True


def send(address, port, nbytes):
    """Seconds that it takes to send so much until the other side has it all."""
    with socket.create_connection((address, port), 10) as connection:
        began = time.perf_counter()
        connection.sendall(bytes(nbytes))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        return time.perf_counter() - began


@pytest.fixture
def server():
    """A server on a host or here, that swallows what it is sent."""
    started = []

    def start(address, namespace=None):
        code = (
            "import socket\n"
            f"server = socket.create_server(({address!r}, 7000))\n"
            "print('up', flush=True)\n"
            "while True:\n"
            "    connection, _ = server.accept()\n"
            "    while connection.recv(65536):\n"
            "        pass\n"
            "    connection.close()\n"
        )
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        process = subprocess.Popen([*inside, "python3", "-c", code], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"up\n"

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@needs_hosts
def test_hosts_reach_each_other_and_are_reached_from_here_until_they_are_cut_off(server):
    with Hosts(3) as made:
        for host in (0, 1, 2):
            server(made.address(host), made.namespace(host))
        assert all(reaches(made.address(host), 7000) for host in (0, 1, 2))
        assert on(made.namespace(0), reaches, made.address(1), 7000)
        made.cut([0], [1, 2])
        assert not on(made.namespace(0), reaches, made.address(1), 7000)
        assert not on(made.namespace(2), reaches, made.address(0), 7000)
        assert on(made.namespace(1), reaches, made.address(2), 7000)
        assert reaches(made.address(0), 7000)
        made.heal([0], [1, 2])
        assert on(made.namespace(0), reaches, made.address(1), 7000)


@needs_hosts
def test_a_link_is_no_faster_than_asked_in_either_direction(server):
    with Hosts(2, megabits=40) as made:
        server(made.address(1), made.namespace(1))
        least = 4e6 * 8 / 40e6
        assert on(made.namespace(0), send, made.address(1), 7000, 4_000_000) > 0.8 * least
        assert send(made.address(1), 7000, 4_000_000) > 0.8 * least
        made.slow(0, None)
        made.slow(1, None)
        assert on(made.namespace(0), send, made.address(1), 7000, 4_000_000) < 0.8 * least


def round_trip(address, port):
    """Seconds until a word comes back from a host, of three the fewest."""
    with socket.create_connection((address, port), 10) as connection:
        took = []
        for _ in range(3):
            began = time.perf_counter()
            connection.sendall(b"?")
            assert connection.recv(1) == b"!"
            took.append(time.perf_counter() - began)
        return min(took)


def answer(address, port):
    with socket.create_server((address, port)) as server:
        connection, _ = server.accept()
        with connection:
            while connection.recv(1):
                connection.sendall(b"!")


@pytest.fixture(params=["netem", "relay"])
def delayed(request, monkeypatch):
    """Makes hosts with links that take time, by what the kernel has, or by a process."""
    if request.param == "relay":
        monkeypatch.setattr(hosts, "_has_netem", lambda device: False)

    @contextmanager
    def make(*args, **kwargs):
        with Hosts(*args, **kwargs) as made:
            if request.param == "netem" and made._relay is not None:
                pytest.skip("this kernel has no netem")
            yield made

    return make


def later(namespace, work, *args):
    """A process on a host that does `work`."""

    def inside():
        hosts.enter(namespace)
        work(*args)

    process = get_context("fork").Process(target=inside, daemon=True)
    process.start()
    return process


@needs_hosts
def test_a_word_takes_its_time_on_each_link_both_ways(delayed):
    with delayed(2, delay_s=0.05) as made:
        for host in (0, 1):
            later(made.namespace(host), answer, made.address(host), 7000)
        until_listening(made)
        assert 2 * 0.05 <= round_trip(made.address(0), 7000) < 4 * 0.05, "one link there and back"
        assert on(made.namespace(0), round_trip, made.address(1), 7000) >= 4 * 0.05, "two links there and back"


@needs_hosts
def test_much_at_once_is_on_the_way_together(delayed, server):
    """A link that let go of a packet only when the last one had arrived would take a delay for each."""
    with delayed(1, delay_s=0.1) as made:
        server(made.address(0), made.namespace(0))
        assert send(made.address(0), 7000, 64 * 100 * 2**10) < 100 * 0.1 / 2


@needs_hosts
def test_a_link_that_takes_time_keeps_its_rate(delayed, server):
    with delayed(1, megabits=40, delay_s=0.02) as made:
        server(made.address(0), made.namespace(0))
        least = 4e6 * 8 / 40e6
        assert send(made.address(0), 7000, 4_000_000) > 0.8 * least
        made.slow(0, 400)
        assert send(made.address(0), 7000, 4_000_000) < 0.8 * least


def test_the_kernel_is_asked_for_delay_rate_and_room_for_what_is_on_the_way():
    assert hosts._netem(0.02, 100.0) == ["netem", "delay", "20000us", "limit", "584", "rate", "100.0mbit"]
    assert hosts._netem(0.02, None) == ["netem", "delay", "20000us", "limit", "29167"]


def until_listening(made):
    deadline = time.monotonic() + 30
    for host in (0, 1):
        while not on(made.namespace(host), listens, 7000):
            assert time.monotonic() < deadline


def listens(port):
    return f":{port:04X} " in Path("/proc/net/tcp").read_text()


def left(pid):
    """What there is of the hosts that this process made."""
    places = (("/sys/class/net", ""), ("/sys/class/net", "[.h]*"), ("/run/netns", "-*"))
    return [path.name for folder, end in places for path in Path(folder).glob(f"p2pn{pid}{end}")]


@needs_hosts
@pytest.mark.parametrize("delay_s", [0.0, 0.01])
def test_nothing_is_left_behind_even_of_a_process_that_was_killed(delay_s):
    code = (
        "import os, signal\nfrom p2pnode.hosts import Hosts\n"
        f"Hosts(2, None, {delay_s}).__enter__()\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path.cwd())}) as killed:
        killed.wait()
    assert left(killed.pid)
    with Hosts(2, None, delay_s):
        assert len(left(os.getpid())) == 5
        assert left(killed.pid) == []
    assert left(os.getpid()) == []


@needs_hosts
def test_what_the_system_refuses_is_said_and_what_was_made_is_removed(monkeypatch):
    monkeypatch.setattr(Hosts, "address", lambda self, host: "no.address")
    with pytest.raises(HostsFailed, match=r"no\.address"), Hosts(2):
        pass
    assert left(os.getpid()) == []


def test_who_cannot_have_hosts_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr(hosts.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(hosts.shutil, "which", lambda name: f"/sbin/{name}")
    with pytest.raises(ConfigError, match="use fewer nodes"):
        Hosts(251)
    with pytest.raises(ConfigError, match="a link takes 300 ms at most"):
        Hosts(2, delay_s=0.301)
    with pytest.raises(ConfigError, match="use sudo"):
        Hosts(2)
    monkeypatch.setattr(hosts.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="install it"):
        Hosts(2)
