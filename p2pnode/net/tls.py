"""Mutual TLS 1.3, pinned: each member trusts exactly the certificates in the genesis, and nobody else's."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: the genesis says which certificates hold, and no clock does. A machine whose own
does not run on while it is off begins in 1970, before they were made."""


def server_context(home: Home, genesis: Genesis, identity: Identity | None = None) -> ssl.SSLContext:
    """Lets in who shows a member's certificate and proves its key; everyone else fails in the handshake.

    Args:
        home: holds one's own certificate.
        genesis: names the members.
        identity: one's own key; None: as the home holds it, in clear.
    """
    context = _pinned(ssl.PROTOCOL_TLS_SERVER, home, genesis, identity)
    context.num_tickets = 0  # sessions are never resumed, so no bytes for it
    return context


def client_context(home: Home, genesis: Genesis, identity: Identity | None = None) -> ssl.SSLContext:
    """Talks to members only. Which member it is, the caller checks: names in certificates mean nothing here.

    Args:
        home, genesis, identity: as for `server_context`.
    """
    return _pinned(ssl.PROTOCOL_TLS_CLIENT, home, genesis, identity)


def _pinned(side: int, home: Home, genesis: Genesis, identity: Identity | None) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= _NO_CHECK_TIME
    with _read_once((identity or Identity.load(home.key)).pem()) as key:
        context.load_cert_chain(home.certificate, key)
    context.load_verify_locations(cadata="".join(member.certificate for member in genesis.members))
    return context


@contextmanager
def _read_once(secret: bytes) -> Iterator[str]:
    """A path that gives the secret, once, and is on no disk: TLS takes a key by its path only."""
    read, write = os.pipe()
    try:
        try:
            assert os.write(write, secret) == len(secret)  # a pipe holds more than a key
        finally:
            os.close(write)
        yield f"/dev/fd/{read}"
    finally:
        os.close(read)
