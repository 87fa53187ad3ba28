"""One node as a process: what its exit code and its last words tell of a home or a disk that will not do."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from p2pnode import identity, process
from p2pnode.errors import ConfigError
from p2pnode.identity import Identity, unasked
from p2pnode.process import EXIT_FAILED, EXIT_GOOD, run_node
from tests.loopback import found_network
from tests.p2pnode.observe.test_tensorboard import events


@pytest.fixture
def home(tmp_path):
    _, (home,) = found_network(tmp_path, 1, steps=2, linger_s=0.1)
    return home


def last_words(home):
    return json.loads(home.log.read_text().splitlines()[-1])


def refuse(monkeypatch, name, number):
    real = getattr(os, name)

    def call(first, *more):
        if not isinstance(first, int) and not str(first).startswith(("/tmp", "/var")):
            return real(first, *more)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, call)


def test_a_home_that_will_do_ends_well(home):
    assert run_node(home) == EXIT_GOOD
    assert last_words(home)["event"] == "node stops"
    lines = [json.loads(line) for line in home.log.read_text().splitlines()]
    assert all({"timestamp", "level", "node", "step", "phase"} <= set(line) for line in lines)
    assert [(line["step"], line["phase"]) for line in lines if line["event"] == "node starts"] == [(0, "starting")]


@pytest.fixture
def quick(monkeypatch):
    """Seals that cost nothing."""
    monkeypatch.setattr(identity, "SEAL_MEMORY_BYTES", 8192)


def test_a_sealed_home_runs_by_its_passphrase_and_is_sealed_still(home, quick):
    secret = Identity.load(home.key)
    secret.resave(home.key, b"secret")
    sealed, asked = home.key.read_bytes(), []
    assert run_node(home, ask=lambda: (asked.append(1), b"secret")[1]) == EXIT_GOOD
    assert asked == [1]
    assert home.key.read_bytes() == sealed
    body = secret.pem().splitlines()[1]
    assert not [file for file in home.path.rglob("*") if file.is_file() and body in file.read_bytes()]


def test_a_sealed_home_without_its_passphrase_is_refused_before_anything_is_done(home, quick):
    Identity.load(home.key).resave(home.key, b"secret")
    before = home.journal.read_bytes()
    for ask, reason in ((lambda: b"wrong", "the passphrase is another"), (unasked, "it is sealed by a passphrase")):
        with pytest.raises(ConfigError, match=f"key {home.key}: {reason}.*Remedy: "):
            run_node(home, ask=ask)
    assert home.journal.read_bytes() == before
    assert not home.outbox.exists()
    assert not home.pid.exists()


def test_a_full_disk_is_an_exit_code_and_last_words(home, monkeypatch):
    refuse(monkeypatch, "fdatasync", errno.ENOSPC)
    assert run_node(home) == EXIT_FAILED
    told = last_words(home)
    assert (told["event"], told["level"]) == ("failed", "error")
    assert told["reason"].startswith(f"{home.journal}: No space left on device. Remedy: make room")
    assert not home.pid.exists()


def test_a_lost_journal_is_an_exit_code_and_last_words(home):
    home.journal.unlink()
    assert run_node(home) == EXIT_FAILED
    told = last_words(home)
    assert told["event"] == "halted"
    assert "Remedy: give it a new key and a new place in a new genesis" in told["reason"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_home_that_cannot_be_written_is_a_mistake_in_the_settings(home, monkeypatch, number):
    refuse(monkeypatch, "open", number)
    with pytest.raises(
        ConfigError, match=f"home {home.path}: {os.strerror(number)}. Remedy: let this user write there"
    ):
        run_node(home)
    assert not home.pid.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_the_node_is_made_stops_it_in_good_order(tmp_path, monkeypatch, number):
    _, (home,) = found_network(tmp_path, 1, steps=50, linger_s=0.1)

    class Driver(process.Driver):
        def __init__(self, *arguments):
            os.kill(os.getpid(), number)
            super().__init__(*arguments)

    monkeypatch.setattr(process, "Driver", Driver)
    before = signal.getsignal(number)
    assert run_node(home) == EXIT_GOOD
    assert signal.getsignal(number) is before
    assert last_words(home)["event"] == "node stops"
    assert not home.result.exists(), "it was told to stop before it had begun"
    assert home.checkpoint.exists()
    assert not home.pid.exists()


def test_what_is_learned_is_written_for_tensorboard_to_the_last_step(home, tmp_path):
    assert run_node(home, tensorboard=tmp_path / "board" / "new") == EXIT_GOOD
    [file] = (tmp_path / "board" / "new" / "node0").iterdir()
    version, *points = events(file.read_bytes())
    assert version.version == "brain.Event:2"
    assert points[-1].step == 2
    result = json.loads(home.result.read_text())
    assert points[-1].scalars["test/accuracy"] == pytest.approx(result["accuracy"])


def test_a_disk_that_is_full_ends_the_writing_for_tensorboard_and_not_the_node(home, tmp_path):
    (tmp_path / "board").touch()
    assert run_node(home, tensorboard=tmp_path / "board") == EXIT_GOOD
    said = [json.loads(line) for line in home.log.read_text().splitlines()]
    [told] = [line for line in said if line["event"] == "nothing more for TensorBoard"]
    assert str(tmp_path / "board") in told["reason"]


SHUTS_DOWN_FOR_EVER = """
import sys, time
from pathlib import Path
from p2pnode import process
from p2pnode.home import Home

class Driver(process.Driver):
    async def _shut_down(self):
        (self.home.path / "closing").touch()
        time.sleep(60)

process.Driver = Driver
process.run_node(Home(Path(sys.argv[1])))
"""


def test_during_the_end_a_second_sigterm_changes_nothing_and_a_second_ctrl_c_ends_it_at_once(home):
    with subprocess.Popen([sys.executable, "-c", SHUTS_DOWN_FOR_EVER, str(home.path)]) as running:
        wait_for(home.log, running)
        running.send_signal(signal.SIGINT)
        wait_for(home.path / "closing", running)
        running.send_signal(signal.SIGTERM)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=30) == -signal.SIGINT
    assert run_node(home) == EXIT_GOOD, "whatever it left"


def wait_for(file, running):
    deadline = time.monotonic() + 30
    while not file.exists():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
