"""A link to every other member: two lanes each, opened by the member of the lower index, opened again when lost.

The server is aiohttp's: `GET /v1/link/control` and `/v1/link/bulk` upgrade the connection, and from then on its bytes
belong to a lane. Who is not in the genesis fails in the TLS handshake, and who is not welcome is shown the door right
after it: in both cases before any byte of a request is read. Who knocks all the time is not even asked who it is.

Where the genesis says that vectors go in the clear, the bulk lane is a bare TCP connection, for networks that nobody
else can listen to: TLS takes more of a core than all else that a vector costs. It begins with the pair's secret, which
the control lane brought under TLS, and its vectors are checked against digests that members signed: who sits on the
wire can read them and cut the lane. As that one may also change bytes, none that come in the clear are held against a
peer.
"""

import asyncio
import random
import secrets
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from aiohttp import web

from p2pnode.codec import WireMessage, decode, encode
from p2pnode.config import NodeConfig
from p2pnode.errors import LinkError, WireError
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity
from p2pnode.net.budget import Budget, Knocks, allowance
from p2pnode.net.lane import Arrival, BulkLane, ControlLane, Lane
from p2pnode.net.tls import client_context, server_context
from p2pnode.net.whereabouts import Whereabouts
from p2pnode.observe.log import Log
from p2pnode.settings import split_address
from p2pnode.storage.unfinished import Unfinished
from p2pnode.storage.vectors import Announced, Verdict
from protocols.header import Digest, PeerId, Slot

_UPGRADE = "p2pnode-link"
_UPGRADE_HEADERS = f"Connection: Upgrade\r\nUpgrade: {_UPGRADE}\r\n"
_UPGRADED = f"HTTP/1.1 101 Switching Protocols\r\n{_UPGRADE_HEADERS}\r\n".encode()
_LANES = ("control", "bulk")

TRAFFIC = tuple(f"{lane}_{direction}" for lane in _LANES for direction in ("sent", "received"))
"""What goes over the links to a member, under its names."""

_PAIR_DIGITS = 32
"""Hexadecimal digits that name a pair of lanes: a secret, where one of them has no other to show."""

_TLS_HANDSHAKE = b"\x16"
"""What a TLS connection begins with (RFC 8446, 5.1); a pair's name does not."""

_HANDSHAKES_MAX = 64
"""Connections that may be in the handshake at once; more wait in the system's queue."""

_HELD_S, _HELD_MAX = 1.0, 256
"""For so long a connection is left unanswered whose address knocks too often, so that who waits for an answer knocks
once a second; and so many at once, the others are closed."""

_REQUEST_BYTES_MAX = 512
"""A connection that brings more, and is no lane yet, is closed before that is looked at: requests in a row would hold
up the loop, some 0.2 ms each. Ours have some 130 bytes and the name of a host, which has 253 at most."""

_CONNECTIONS_MAX = 2 * len(_LANES)
"""Connections that one member may open to this node: those of a link, and of the one that replaces it."""

_SAID_MAX = 1024
"""Different refusals that are logged, in all."""

_SHUTDOWN_S = 0.5
"""For so long a node that stops waits for members that are in the middle of a request; twice at most."""

_UNANSWERED_MAX = 4
"""A link is given up when the other side's system answers none of so many repetitions in a row, from 3 s on: the system
itself repeats less and less often, up to every two minutes, and a network that is healed would stay apart as long as it
was. A peer that is slow, stopped or pauses us answers them all the same."""

_TCP_INFO_BYTES, _TCP_INFO_UNANSWERED = 8, slice(2, 4)
"""Of Linux's struct tcp_info as much as is read, and the places of tcpi_retransmits and tcpi_probes."""

_LISTEN_EVERY_S = 1.0
"""How often to look whether links get through."""

_FIRST_PAUSE_S = 0.05
"""Pause before the second try of a link; it doubles up to `reconnect_s`. Nodes of one network start in any order."""


class Delegate(Protocol):
    """Who takes what the links bring."""

    def received(self, peer: PeerId, message: WireMessage) -> None: ...

    def judge(self, peer: PeerId, slot: Slot, digest: Digest, nbytes: int) -> Verdict: ...

    def vector(self, peer: PeerId, digest: Digest, vector: Announced) -> None: ...

    def again(self, peer: PeerId, digest: Digest) -> None: ...

    def welcome(self, peer: PeerId) -> bool: ...

    def connected(self, peer: PeerId) -> None: ...

    def disconnected(self, peer: PeerId, reason: BaseException | None) -> None: ...


@dataclass(eq=False)
class Link:
    """The two lanes to one member; up when both are, down when either is lost.

    Args:
        peer: the member.
        delegate: takes what the lanes bring.
        in_the_clear: whether the bulk lane is a bare connection.
    """

    peer: PeerId
    delegate: Delegate
    in_the_clear: bool = False
    lanes: dict[str, Lane] = field(default_factory=dict)
    down: asyncio.Event = field(default_factory=asyncio.Event)

    def message(self, data: bytes) -> None:
        self.delegate.received(self.peer, decode(data))

    def judge(self, slot: Slot, digest: Digest, nbytes: int) -> Verdict:
        return self.delegate.judge(self.peer, slot, digest, nbytes)

    def vector(self, digest: Digest, vector: Announced) -> None:
        self.delegate.vector(self.peer, digest, vector)

    def again(self, digest: Digest) -> None:
        self.delegate.again(self.peer, digest)

    def lost(self, reason: BaseException | None) -> None:
        if self.down.is_set():
            return
        was_up = self.up
        self.down.set()
        self.close()
        if was_up:
            # Who broke one lane must not hide it by closing the other before the news of the first gets here.
            failures = (self._failure(name) for name, lane in self.lanes.items() if lane.failure is not None)
            self.delegate.disconnected(self.peer, next(failures, reason))

    def _failure(self, name: str) -> BaseException | None:
        failure = self.lanes[name].failure
        if self.in_the_clear and name == "bulk" and isinstance(failure, WireError):
            return LinkError(f"{failure}; whose doing it was cannot be told of what goes in the clear")
        return failure

    @property
    def up(self) -> bool:
        return len(self.lanes) == len(_LANES) and not self.down.is_set()

    def close(self) -> None:
        for lane in self.lanes.values():
            lane.close()

    @property
    def control(self) -> ControlLane:
        lane = self.lanes["control"]
        assert isinstance(lane, ControlLane)
        return lane

    @property
    def bulk(self) -> BulkLane:
        lane = self.lanes["bulk"]
        assert isinstance(lane, BulkLane)
        return lane


@dataclass(frozen=True)
class _PeersShelf:
    """Where the bulk lanes of one peer leave and find what was cut off."""

    peer: PeerId
    unfinished: Unfinished[Arrival]

    def keep(self, digest: Digest, arrival: Arrival) -> None:
        self.unfinished.keep(self.peer, digest, arrival)

    def resume(self, digest: Digest, offset: int) -> Arrival | None:
        return self.unfinished.resume(digest, self.peer, offset)

    def spoil(self, digest: Digest) -> None:
        self.unfinished.spoil(digest)


class Mesh:
    """All links of one node.

    Args:
        me: this node's member index.
        home, genesis, config: its files and settings.
        delegate: takes what the links bring.
        log: says who was refused, and why.
        identity: its key; None: as the home holds it, in clear.
        whereabouts: where members are said to be, if not where the genesis has them.
    """

    def __init__(
        self,
        me: PeerId,
        home: Home,
        genesis: Genesis,
        config: NodeConfig,
        delegate: Delegate,
        log: Log,
        identity: Identity | None = None,
        whereabouts: Whereabouts | None = None,
    ) -> None:
        self.me = me
        self.unfinished: Unfinished[Arrival] = Unfinished()
        """What came of vectors whose link was lost in the middle."""
        self._genesis = genesis
        self._config = config
        self._delegate = delegate
        self._log = log
        self._whereabouts = whereabouts or Whereabouts(genesis)
        self._member_of = {der: PeerId(i) for i, der in enumerate(genesis.certificates_der)}
        self._in_the_clear = genesis.vectors == "plain"
        self._server_tls = server_context(home, genesis, identity)
        self._client_tls = client_context(home, genesis, identity)
        self._links: dict[PeerId, Link] = {}
        self._halves: dict[tuple[PeerId, str], Link] = {}
        self._opened: dict[PeerId, deque[asyncio.Transport]] = {}
        allowed = allowance(genesis.plan, genesis.committee, genesis.training.steps)
        self._budgets = {peer: Budget(allowed) for peer in genesis.committee.members}
        self._knocks = Knocks(genesis.committee.n)
        self._held: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._said: set[str] = set()
        self._runner: web.AppRunner | None = None
        self._retired: Counter[tuple[PeerId, str]] = Counter()
        """Bytes of links that were replaced, by member and what `traffic` calls them."""

    async def start(self) -> None:
        """Listen, and begin to open links.

        Raises:
            LinkError: if the address cannot be listened on.
        """
        app = web.Application()
        app.router.add_get("/v1/link/{lane}", self._upgrade)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        address = split_address(self._config.listen)
        try:
            listener = socket.create_server(address, backlog=128)
        except OSError as error:
            raise LinkError(
                f"cannot listen on {self._config.listen}: {error.strerror}; free it, or change `listen`"
            ) from error
        listener.setblocking(False)
        self._spawn(self._accept(listener))
        for peer in range(self.me + 1, len(self._genesis.members)):
            self._spawn(self._keep(PeerId(peer)))
        self._spawn(self._give_up_the_unanswered())

    async def stop(self) -> None:
        """Close every link and stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in [*self._links.values(), *self._halves.values()]:
            link.close()
        for connection in list(self._held):
            self._let_go(connection)
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def connected(self) -> tuple[PeerId, ...]:
        return tuple(peer for peer, link in sorted(self._links.items()) if link.up)

    @property
    def bytes_sent(self) -> int:
        return self._bytes("sent")

    @property
    def bytes_received(self) -> int:
        return self._bytes("received")

    def traffic(self, peer: PeerId) -> dict[str, int]:
        """Bytes to and from a member since the start, by lane and direction, as `control_sent`."""
        link = self._links.get(peer)
        now = _traffic(link) if link is not None else {}
        return {name: self._retired[peer, name] + now.get(name, 0) for name in TRAFFIC}

    def _bytes(self, direction: str) -> int:
        ways = [self.traffic(peer) for peer in self._budgets]
        return sum(count for way in ways for name, count in way.items() if name.endswith(direction))

    def send(self, peer: PeerId, message: WireMessage) -> None:
        """Send to one member, if it is connected; whoever is not hears it again when it is back."""
        self._send_bytes(peer, encode(message))

    def broadcast(self, message: WireMessage) -> None:
        """Send to every connected member."""
        data = encode(message)
        for peer in self._links:
            self._send_bytes(peer, data)

    def stream(self, to: PeerId | None, slot: Slot, digest: Digest, vector: Announced, offset: int = 0) -> None:
        """Send a vector, from a byte on, to one connected member, or to all."""
        for peer, link in self._links.items():
            if link.up and to in (peer, None):
                link.bulk.send(slot, digest, vector, offset)

    def pause(self, peer: PeerId, paused: bool) -> None:
        """Stop or go on reading messages of one member."""
        link = self._links.get(peer)
        if link is not None and link.up:
            link.control.pause(paused)

    def retry(self) -> None:
        """Vectors that were told to wait may be welcome now."""
        for link in self._links.values():
            if link.up:
                link.bulk.retry()

    def close(self, peer: PeerId, reason: BaseException) -> None:
        """Give up the link to one member; it may come back."""
        link = self._links.get(peer)
        if link is not None:
            link.lost(reason)

    def expel(self, peer: PeerId, reason: BaseException) -> None:
        """Close all that a member has opened; it comes back when it is welcome."""
        self.close(peer, reason)
        for transport in self._opened.pop(peer, ()):
            transport.abort()

    def _send_bytes(self, peer: PeerId, data: bytes) -> None:
        link = self._links.get(peer)
        if link is not None and link.up:
            link.control.send(data)

    async def _give_up_the_unanswered(self) -> None:
        """Lose links through which nothing gets, so that they are opened anew as soon as something does."""
        while True:
            await asyncio.sleep(_LISTEN_EVERY_S)
            for link in list(self._links.values()):
                if link.up and any(unanswered(lane.transport) >= _UNANSWERED_MAX for lane in link.lanes.values()):
                    link.lost(LinkError("nothing gets through to the peer"))

    # Opening links to members of a higher index.

    async def _keep(self, peer: PeerId) -> None:
        """Open the link to `peer`, again whenever it is lost."""
        pause = _FIRST_PAUSE_S
        while True:
            if not self._delegate.welcome(peer):
                await asyncio.sleep(self._config.reconnect_s)
                continue
            try:
                link = await self._find(peer)
            except (OSError, TimeoutError, LinkError) as error:
                self._say_once("no link yet", peer=self._name(peer), reason=str(error) or type(error).__name__)
            else:
                pause = _FIRST_PAUSE_S
                await link.down.wait()
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, self._config.reconnect_s)

    async def _find(self, peer: PeerId) -> Link:
        """Open the link at the address in the genesis, or else where the member is said to be.

        Raises:
            OSError, TimeoutError, LinkError: why it is not at the address in the genesis, if it is nowhere.
        """
        try:
            return await self._dial(peer, self._genesis.members[peer].address)
        except (OSError, TimeoutError, LinkError):
            for address in self._whereabouts.of(peer):
                with suppress(OSError, TimeoutError, LinkError):
                    link = await self._dial(peer, address)
                    self._log.info("found elsewhere", peer=self._name(peer), address=address)
                    return link
                self._whereabouts.refute(peer, address)
            raise

    async def _dial(self, peer: PeerId, address: str) -> Link:
        link = self._link(peer)
        pair = secrets.token_hex(_PAIR_DIGITS // 2)
        try:
            async with asyncio.timeout(self._config.handshake_s):
                for name in _LANES:
                    await self._dial_lane(link, name, pair, address)
        except BaseException:
            link.close()
            raise
        self._adopt(link)
        return link

    async def _dial_lane(self, link: Link, name: str, pair: str, address: str) -> None:
        host, port = split_address(address)
        if name == "bulk" and link.in_the_clear:
            transport, answer = await self._connect(host, port, None)
            transport.write(pair.encode())
        else:
            transport, answer = await self._connect(host, port, self._client_tls)
            if self._peer_of(transport) != link.peer:
                answer.done.cancel()
                transport.abort()
                other = self._name(self._peer_of(transport))
                raise LinkError(f"{host}:{port} is {other}; mend the address in the genesis")
            request = f"GET /v1/link/{name}?pair={pair} HTTP/1.1\r\nHost: {host}\r\n{_UPGRADE_HEADERS}\r\n"
            transport.write(request.encode())
        if await answer.done != _UPGRADED:
            transport.abort()
            raise LinkError("the peer does not open the link")
        if transport.is_closing():
            raise LinkError("the peer closed the connection")
        if not self._delegate.welcome(link.peer):
            transport.abort()
            raise LinkError("the peer was banned meanwhile")
        self._attach(link, name, transport)

    async def _connect(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[asyncio.Transport, "_Awaited"]:
        timeout = self._config.handshake_s if tls is not None else None
        return await asyncio.get_running_loop().create_connection(
            lambda: _Awaited(len(_UPGRADED)), host, port, ssl=tls, ssl_handshake_timeout=timeout
        )

    # Letting in members of a lower index.

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Semaphore(_HANDSHAKES_MAX)
        with listener:
            while True:
                await room.acquire()
                try:
                    connection, address = await loop.sock_accept(listener)
                except OSError as error:  # out of file descriptors, or the stranger is gone already
                    room.release()
                    self._say_once("cannot accept", reason=str(error))
                    await asyncio.sleep(_FIRST_PAUSE_S)
                    continue
                if not self._knocks.admits(address[0], time.monotonic()):
                    room.release()
                    self._turn_away(connection, address[0])
                    continue
                self._spawn(self._let_in(connection, address[0])).add_done_callback(lambda _: room.release())

    def _turn_away(self, connection: socket.socket, host: str) -> None:
        self._say_once("knocks too often", host=host)
        if len(self._held) >= _HELD_MAX:
            connection.close()
            return
        self._held.add(connection)
        asyncio.get_running_loop().call_later(_HELD_S, self._let_go, connection)

    def _let_go(self, connection: socket.socket) -> None:
        connection.close()
        self._held.discard(connection)

    async def _let_in(self, connection: socket.socket, host: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._in_the_clear and not await self._begins_with(connection, _TLS_HANDSHAKE):
                await self._let_in_bare(connection)
                return
            await loop.connect_accepted_socket(
                lambda: _Door(self._admit),
                connection,
                ssl=self._server_tls,
                ssl_handshake_timeout=self._config.handshake_s,
            )
        except (OSError, ssl.SSLError, TimeoutError, LinkError) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            self._say_once("stranger refused", host=host, reason=reason)
            connection.close()

    async def _begins_with(self, connection: socket.socket, begin: bytes) -> bool:
        """Whether that is what a connection brings first; it stays to be read."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(connection, readable.set)
        try:
            async with asyncio.timeout(self._config.handshake_s):
                await readable.wait()
        finally:
            loop.remove_reader(connection)
        return connection.recv(len(begin), socket.MSG_PEEK) == begin

    async def _let_in_bare(self, connection: socket.socket) -> None:
        """Make a bulk lane of a bare connection that brings the secret of a pair."""
        loop = asyncio.get_running_loop()
        transport, awaited = await loop.connect_accepted_socket(lambda: _Awaited(_PAIR_DIGITS), connection)
        async with asyncio.timeout(self._config.handshake_s):
            secret = await awaited.done
        pair = self._half_of(secret)
        if pair is None:
            transport.abort()
            self._say_once("refused", peer="a stranger")
            return
        transport.write(_UPGRADED)
        self._attach(self._halves[pair], "bulk", transport)
        self._complete(*pair)

    def _half_of(self, secret: bytes) -> tuple[PeerId, str] | None:
        """The pair of this secret that waits for its bulk lane."""
        for (peer, pair), link in self._halves.items():
            if secrets.compare_digest(pair.encode(errors="replace"), secret):
                return (peer, pair) if "bulk" not in link.lanes and self._delegate.welcome(peer) else None
        return None

    def _admit(self, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """Who takes the bytes of a connection whose handshake is over; None: nobody, and it must be closed.

        Whoever opens more connections than links take loses its oldest: a liar must not use up our descriptors.
        """
        peer = self._peer_of(transport)
        if peer is None or not self._delegate.welcome(peer):
            self._say_once("refused", peer=self._name(peer))
            return None
        opened = self._opened.setdefault(peer, deque())
        opened.append(transport)
        if len(opened) > _CONNECTIONS_MAX:
            # Of Python 3.11.2: a transport of asyncio's TLS that was closed twice has nothing left to abort.
            with suppress(AttributeError):
                opened.popleft().abort()
        assert self._runner is not None
        server = self._runner.server
        assert server is not None
        return cast(asyncio.Protocol, server())

    def _say_once(self, event: str, **details: str) -> None:
        """Neither a stranger nor a peer that is down may fill the log."""
        said = f"{event} {sorted(details.items())}"
        if said not in self._said and len(self._said) < _SAID_MAX:
            self._said.add(said)
            self._log.warning(event, **details)

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        """Turn a member's request into a lane, and stay until the lane is lost."""
        name, pair = request.match_info["lane"], request.query.get("pair", "")
        transport = request.transport
        if name not in _LANES or request.headers.get("Upgrade") != _UPGRADE or transport is None:
            raise web.HTTPUpgradeRequired(headers={"Upgrade": _UPGRADE})
        peer = self._peer_of(transport)
        if peer is None or peer >= self.me:
            raise web.HTTPForbidden(text="the member of the lower index opens the link")
        link = self._half(peer, pair)
        if name in link.lanes:
            raise web.HTTPConflict(text="this lane is open already")
        transport.write(_UPGRADED)
        handler = transport.get_protocol()
        lane = self._attach(link, name, transport)
        assert isinstance(handler, asyncio.BaseProtocol)
        lane.predecessor = handler  # aiohttp cleans up after its connection
        self._complete(peer, pair)
        await lane.closed.wait()
        return web.Response()

    def _complete(self, peer: PeerId, pair: str) -> None:
        """Adopt the link once both its lanes are here."""
        if self._halves[peer, pair].up:
            self._adopt(self._halves.pop((peer, pair)))

    def _half(self, peer: PeerId, pair: str) -> Link:
        """The link that this lane completes, or a new one; a member has one half-open link at most."""
        if (peer, pair) not in self._halves:
            for key in [key for key in self._halves if key[0] == peer]:
                self._halves.pop(key).lost(None)
            self._halves[peer, pair] = self._link(peer)
        return self._halves[peer, pair]

    def _link(self, peer: PeerId) -> Link:
        return Link(peer, self._delegate, self._in_the_clear)

    def _attach(self, link: Link, name: str, transport: asyncio.Transport) -> Lane:
        budget = self._budgets[link.peer]
        lane: Lane = (
            ControlLane(link, budget, self._config.control_backlog_bytes_max)
            if name == "control"
            else BulkLane(link, budget, self._config.bulk_backlog_bytes_max, _PeersShelf(link.peer, self.unfinished))
        )
        # Nothing is read before the link is up: an answer to it could not be sent yet, and would be lost.
        transport.pause_reading()
        transport.set_protocol(lane)
        lane.connection_made(transport)
        link.lanes[name] = lane
        return lane

    def _adopt(self, link: Link) -> None:
        """This link is the one to its member from now on."""
        old = self._links.get(link.peer)
        if old is not None:
            self._retired.update({(link.peer, name): count for name, count in _traffic(old).items()})
            old.lost(LinkError("replaced by a newer link"))
        self._links[link.peer] = link
        self._delegate.connected(link.peer)
        for lane in link.lanes.values():
            lane.resume()

    def _peer_of(self, transport: asyncio.Transport) -> PeerId | None:
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return self._member_of.get(der)

    def _name(self, peer: PeerId | None) -> str:
        return self._genesis.members[peer].name if peer is not None else "a stranger"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _traffic(link: Link) -> dict[str, int]:
    lanes = link.lanes.items()
    sent = {f"{name}_sent": lane.bytes_sent for name, lane in lanes}
    return sent | {f"{name}_received": lane.bytes_received for name, lane in lanes}


def unanswered(transport: asyncio.Transport | None) -> int:
    """How many repetitions of the same bytes the other side's system has not answered; 0 where ours does not tell."""
    connection = None if transport is None else transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0 or not hasattr(socket, "TCP_INFO"):
        return 0
    told: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return sum(told[_TCP_INFO_UNANSWERED])


class _Door(asyncio.Protocol):
    """Stands before the server: closes the connection of who is not admitted before a byte of it is read, and of who
    brings more than a request."""

    def __init__(self, admit: Callable[[asyncio.Transport], asyncio.Protocol | None]) -> None:
        self._admit = admit
        self._server: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._left = _REQUEST_BYTES_MAX

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server = self._admit(self._transport)
        if self._server is None:
            self._transport.abort()
        else:
            self._server.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        assert self._server is not None
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()
        else:
            self._server.data_received(data)

    def eof_received(self) -> bool | None:
        assert self._server is not None
        return self._server.eof_received()

    def pause_writing(self) -> None:
        assert self._server is not None
        self._server.pause_writing()

    def resume_writing(self) -> None:
        assert self._server is not None
        self._server.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._server is not None:
            self._server.connection_lost(exc)


class _Awaited(asyncio.BufferedProtocol):
    """Waits for so many bytes, and reads not one more: what follows them is for a lane."""

    def __init__(self, nbytes: int) -> None:
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._bytes = bytearray(nbytes)
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._bytes)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled == len(self._bytes) and not self.done.done():
            assert self._transport is not None
            self._transport.pause_reading()
            self.done.set_result(bytes(self._bytes))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(LinkError("the peer closed the connection; is it of the same genesis?"))
