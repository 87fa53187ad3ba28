"""Who answers at the members' addresses: one handshake with each, by a member that may not be running."""

import asyncio
import os
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity
from p2pnode.net.tls import client_context
from p2pnode.settings import split_address
from protocols.header import PeerId


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking at a member's address.

    Args:
        member: who answered; None where nobody of this genesis did.
        refused: whether somebody answered that shares no genesis with the one who asks.
        trouble: what went wrong, where nobody answered or it was refused.
        clock_apart_s: seconds by which the clock of who answered is ahead, to the second.
    """

    member: PeerId | None
    refused: bool = False
    trouble: str = ""
    clock_apart_s: float = 0.0


def reach(home: Home, genesis: Genesis, identity: Identity, peers: Sequence[PeerId], patience_s: float) -> list[Answer]:
    """The answers at the addresses of these members, all asked at once.

    Args:
        home: whose certificate is shown.
        genesis: the members.
        identity: the home's key.
        peers: whom to ask.
        patience_s: how long to wait for each.
    """
    context = client_context(home, genesis, identity)

    async def ask_all() -> list[Answer]:
        return await asyncio.gather(*(_ask(genesis, peer, context, patience_s) for peer in peers))

    return asyncio.run(ask_all())


async def _ask(genesis: Genesis, peer: PeerId, context: ssl.SSLContext, patience_s: float) -> Answer:
    host, port = split_address(genesis.members[peer].address)
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                writer.write(f"GET /v1/link/control HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
            finally:
                writer.transport.abort()
    except ssl.SSLError as error:
        return Answer(None, refused=True, trouble=error.reason or str(error))
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        errno: int | None = getattr(error, "errno", None)
        return Answer(None, trouble=os.strerror(errno) if errno is not None else str(error) or "no answer")
    return Answer(PeerId(genesis.certificates_der.index(shown)), clock_apart_s=_clock_apart(head))


def _clock_apart(head: bytes) -> float:
    """Seconds by which the one who sent this HTTP head is ahead; 0 where it does not tell."""
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "date":
            try:
                return parsedate_to_datetime(value.strip()).timestamp() - time.time()
            except ValueError:
                return 0.0
    return 0.0
