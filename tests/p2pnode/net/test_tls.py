"""A member proves its key in the handshake, though the key lies sealed on its disk and nowhere in clear."""

import base64
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from p2pnode import identity
from p2pnode.errors import ConfigError
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity, certificate_der
from p2pnode.init import Place, found
from p2pnode.net.tls import client_context, server_context

VALUES = {"f": 0, "training": {"steps": 3, "local_batch": 5, "momentum": 0.9, "lr": 0.1}}


@pytest.fixture
def homes(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "SEAL_MEMORY_BYTES", 8192)
    found(tmp_path, [Place(name, f"127.0.0.1:{port}", {}) for name, port in (("a", 7000), ("b", 7001))], VALUES)
    return Home(tmp_path / "a"), Home(tmp_path / "b")


def shown(server, client):
    """The certificates that client and server see, after a handshake in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return [end.getpeercert(binary_form=True) for end in ends]


def test_a_sealed_key_is_proved_by_both_sides_and_lies_in_clear_in_no_file(homes, tmp_path):
    keys = [Identity.load(home.key) for home in homes]
    for home in homes:
        home.key.unlink()  # what TLS needs comes from the key in memory, not from the file
    genesis = Genesis.load(homes[0].genesis)
    descriptors = set(Path("/dev/fd").iterdir())
    server, client = server_context(homes[0], genesis, keys[0]), client_context(homes[1], genesis, keys[1])
    assert set(Path("/dev/fd").iterdir()) == descriptors
    assert shown(server, client) == [certificate_der(member.certificate) for member in genesis.members]
    for secret in (key.pem().splitlines()[1] for key in keys):
        for file in (file for file in tmp_path.rglob("*") if file.is_file()):
            assert secret not in file.read_bytes()
            assert base64.b64decode(secret)[-32:] not in file.read_bytes()


def test_a_key_in_clear_is_read_from_the_home_and_a_sealed_one_is_not_guessed(homes):
    genesis = Genesis.load(homes[0].genesis)
    contexts = server_context(homes[0], genesis), client_context(homes[1], genesis)
    assert None not in shown(*contexts)
    Identity.load(homes[0].key).resave(homes[0].key, b"secret")
    for make in (server_context, client_context):
        with pytest.raises(ConfigError, match="it is sealed by a passphrase"):
            make(homes[0], genesis)


@pytest.mark.parametrize(("begin", "end"), [(9000, 9999), (1970, 1971)], ids=["a clock that is behind", "ahead"])
def test_whoever_has_a_wrong_clock_is_let_in_and_lets_in(tmp_path, monkeypatch, begin, end):
    """A clock that is years off from certificates, and certificates that are years off from the clock, are the same."""
    monkeypatch.setattr(identity, "_LONG_AGO", datetime(begin, 1, 1, tzinfo=UTC))
    monkeypatch.setattr(identity, "_NEVER_EXPIRES", datetime(end, 1, 1, tzinfo=UTC))
    genesis = found(
        tmp_path, [Place(name, f"127.0.0.1:{port}", {}) for name, port in (("a", 7000), ("b", 7001))], VALUES
    )
    a, b = Home(tmp_path / "a"), Home(tmp_path / "b")
    ends = shown(server_context(a, genesis), client_context(b, genesis))
    assert ends == [certificate_der(member.certificate) for member in genesis.members]


def test_another_key_than_the_certificates_proves_nothing(homes):
    genesis = Genesis.load(homes[0].genesis)
    with pytest.raises(OSError, match=r"KEY_VALUES_MISMATCH|Illegal seek"):  # the latter of the pipe, before the reason
        server_context(homes[0], genesis, Identity.load(homes[1].key))
