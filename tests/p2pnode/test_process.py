"""One node as a process: what its exit code and its last words tell of a home or a disk that will not do."""

import errno
import json
import os

import pytest

from p2pnode import identity
from p2pnode.errors import ConfigError
from p2pnode.identity import Identity, unasked
from p2pnode.process import EXIT_FAILED, EXIT_GOOD, run_node
from tests.loopback import found_network


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
