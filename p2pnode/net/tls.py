"""Mutual TLS 1.3, pinned: each member trusts exactly the certificates in the genesis, and nobody else's."""

import ssl

from p2pnode.genesis import Genesis
from p2pnode.home import Home


def server_context(home: Home, genesis: Genesis) -> ssl.SSLContext:
    """Lets in who shows a member's certificate and proves its key; everyone else fails in the handshake."""
    context = _pinned(ssl.PROTOCOL_TLS_SERVER, home, genesis)
    context.num_tickets = 0  # sessions are never resumed, so no bytes for it
    return context


def client_context(home: Home, genesis: Genesis) -> ssl.SSLContext:
    """Talks to members only. Which member it is, the caller checks: names in certificates mean nothing here."""
    return _pinned(ssl.PROTOCOL_TLS_CLIENT, home, genesis)


def _pinned(side: int, home: Home, genesis: Genesis) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(home.certificate, home.key)
    context.load_verify_locations(cadata="".join(member.certificate for member in genesis.members))
    return context
