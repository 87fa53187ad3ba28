"""Hosts of their own: they reach each other and this machine, are as slow as asked, are cut off, and leave no trace."""

import os
import socket
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
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


def left():
    names = [path.name for path in Path("/sys/class/net").glob("p2pn*")]
    return sorted(names + [path.name for path in Path("/run/netns").glob("p2pn*")])


@needs_hosts
def test_nothing_is_left_behind_even_of_a_process_that_was_killed():
    before = left()
    code = (
        "import os, signal\nfrom p2pnode.hosts import Hosts\nHosts(2).__enter__()\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run(["python3", "-c", code], check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    assert len(left()) == len(before) + 5
    with Hosts(2):
        assert len(left()) == len(before) + 5
    assert left() == before


@needs_hosts
def test_what_the_system_refuses_is_said_and_what_was_made_is_removed(monkeypatch):
    before = left()
    monkeypatch.setattr(Hosts, "address", lambda self, host: "no.address")
    with pytest.raises(HostsFailed, match=r"no\.address"), Hosts(2):
        pass
    assert left() == before


def test_who_cannot_have_hosts_is_told_what_to_do(monkeypatch):
    with pytest.raises(ConfigError, match="use fewer nodes"):
        Hosts(251)
    monkeypatch.setattr(hosts.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(hosts.shutil, "which", lambda name: f"/sbin/{name}")
    with pytest.raises(ConfigError, match="use sudo"):
        Hosts(2)
    monkeypatch.setattr(hosts.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="install it"):
        Hosts(2)
