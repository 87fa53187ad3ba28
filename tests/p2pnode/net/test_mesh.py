"""Real meshes over loopback TLS, on both event loops: members reach each other, strangers reach nothing."""

import asyncio
import itertools
import multiprocessing
import resource
import socket
import ssl
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import uvloop

from p2pnode import hosts
from p2pnode.bench.flooders import Intruder
from p2pnode.codec import Finished, Want, encode
from p2pnode.config import NodeConfig
from p2pnode.errors import LinkError, Malformed, WireError
from p2pnode.hosts import Hosts
from p2pnode.identity import Identity
from p2pnode.net import mesh
from p2pnode.net.budget import KNOCKS_PER_S, KNOCKS_SAVED, KNOCKS_SAVED_PER_MEMBER, Allowance, Budget
from p2pnode.net.lane import BulkLane
from p2pnode.net.mesh import Link, Mesh, unanswered
from p2pnode.net.tls import client_context
from p2pnode.settings import split_address
from p2pnode.storage.vectors import Verdict, digest_of
from protocols.effects import Certificate, Hello
from protocols.header import Header, PeerId, SignedHeader, Slot
from tests.loopback import PATIENCE_S, LogBook, found_network, until
from tests.machines import needs_hosts

LENGTH = 200_000

on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Member:
    """One mesh and what its links brought. `greet(member, peer)` runs inside `connected`."""

    def __init__(self, genesis, home, greet=lambda member, peer: None):
        self.home = home
        self.config = NodeConfig.load(home.config)
        self.log = LogBook()
        self.me = PeerId([member.name for member in genesis.members].index(self.config.name))
        self.mesh = Mesh(self.me, home, genesis, self.config, self, self.log)
        self.greet = greet
        self.heard, self.vectors, self.ups, self.downs, self.early = [], [], [], [], []
        self.banned, self.asked, self.asked_again = set(), 0, []

    def received(self, peer, message):
        self.heard.append((peer, message))
        if peer not in self.mesh.connected:
            self.early.append(message)

    def judge(self, peer, slot, digest, nbytes):
        return Verdict.TAKE if nbytes == 4 * LENGTH else Verdict.REFUSE

    def vector(self, peer, digest, vector):
        self.vectors.append((peer, digest, vector.tobytes()))

    def again(self, peer, digest):
        self.asked_again.append((peer, digest))

    def welcome(self, peer):
        self.asked += 1
        return peer not in self.banned

    def connected(self, peer):
        self.ups.append(peer)
        self.greet(self, peer)

    def disconnected(self, peer, reason):
        self.downs.append((peer, reason))

    @property
    def address(self):
        return split_address(self.config.listen)


@asynccontextmanager
async def running(*members):
    """The members' meshes, started in this order."""
    try:
        for member in members:
            await member.mesh.start()
        yield
    finally:
        for member in members:
            await asyncio.wait_for(member.mesh.stop(), PATIENCE_S)


async def linked(*members):
    await until(
        lambda: all(len(member.mesh.connected) == len(members) - 1 for member in members), "a link of each pair"
    )


def vector(seed):
    return np.random.default_rng(seed).standard_normal(LENGTH).astype(np.float32)


@pytest.mark.parametrize("vectors", ["tls", "plain"])
@on_both_loops
def test_messages_and_vectors_go_both_ways(tmp_path, run, vectors):
    async def work():
        genesis, homes = found_network(tmp_path, 3, vectors=vectors)
        a, b, c = members = [Member(genesis, home) for home in homes]
        async with running(*members):
            await linked(*members)
            for member in members:
                member.mesh.broadcast(Hello(member.me))
                each = vector(member.me)
                member.mesh.stream(None, Slot(7, 0, 2), digest_of(each), each)
            c.mesh.send(a.me, Want(Slot(1), bytes(32)))
            await until(lambda: all(len(member.vectors) == 2 for member in members) and len(a.heard) == 3, "all")
            for member in members:
                others = [other.me for other in members if other is not member]
                assert {(peer, Hello(peer)) for peer in others} <= set(member.heard)
                assert sorted(member.vectors) == [
                    (peer, digest_of(vector(peer)), vector(peer).tobytes()) for peer in others
                ]
            assert a.heard[-1] == (c.me, Want(Slot(1), bytes(32)))
            assert b.mesh.bytes_sent > 2 * 4 * LENGTH
            assert b.mesh.bytes_received > 2 * 4 * LENGTH
            for one, other in itertools.permutations(members, 2):
                out, came = one.mesh.traffic(other.me), other.mesh.traffic(one.me)
                assert 0 < out["control_sent"] == came["control_received"]
                assert 4 * LENGTH < out["bulk_sent"] == came["bulk_received"]

    run(work())


@on_both_loops
def test_a_vector_for_one_member_reaches_nobody_else(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 3)
        a, b, c = members = [Member(genesis, home) for home in homes]
        async with running(*members):
            await linked(*members)
            b.mesh.stream(c.me, Slot(0), digest_of(vector(0)), vector(0))
            b.mesh.stream(None, Slot(0), digest_of(vector(1)), vector(1))
            await until(lambda: len(a.vectors) == 1 and len(c.vectors) == 2, "the vectors")
            assert a.vectors[0][1] == digest_of(vector(1))

    run(work())


@on_both_loops
def test_nothing_is_lost_when_either_side_speaks_as_soon_as_the_link_is_up(tmp_path, run):
    """The dialler is up first: what it says comes while the other side still makes lanes of its connections."""
    each = vector(5)

    def greet(member, peer):
        member.mesh.stream(peer, Slot(0), digest_of(each), each)
        for number in range(300):
            member.mesh.send(peer, Hello(number))

    async def work(folder):
        genesis, homes = found_network(folder, 2)
        members = [Member(genesis, home, greet) for home in homes]
        async with running(*members):
            await until(lambda: all(len(m.heard) >= 300 and m.vectors for m in members), "the greetings")
            for member in members:
                assert [message.since for _, message in member.heard] == list(range(300))
                assert [digest for _, digest, _ in member.vectors] == [digest_of(each)]
                assert member.downs == []
                assert member.early == [], "an answer to it would have gone nowhere"

    for turn in range(5):
        run(work(tmp_path / str(turn)))


@on_both_loops
@pytest.mark.parametrize("lane", ["control", "bulk"])
def test_a_link_closed_by_garbage_comes_back(tmp_path, run, lane):
    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a, b = members = [Member(genesis, home) for home in homes]
        async with running(*members):
            await linked(a, b)
            for liar, victim in ((a, b), (b, a)):
                ups = len(victim.ups)
                getattr(liar.mesh._links[victim.me], lane).transport.write(b"\xff" * 64)
                await until(lambda v=victim, ups=ups: len(v.ups) > ups, "a second link")
                peer, reason = victim.downs[-1]
                assert peer == liar.me
                assert isinstance(reason, WireError)
            await linked(a, b)
            a.mesh.broadcast(Finished())
            b.mesh.broadcast(Finished())
            await until(lambda: a.heard and b.heard, "words over the new link")

    run(work())


@on_both_loops
def test_a_member_that_restarts_is_linked_again_whoever_dials(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 2)
        for stays, leaves in ((0, 1), (1, 0)):
            one = Member(genesis, homes[stays])
            async with running(one):
                for _ in range(3):
                    other = Member(genesis, homes[leaves])
                    async with running(other):
                        await linked(one, other)
                        other.mesh.broadcast(Finished())
                        await until(lambda one=one: one.heard, "a word")
                        one.heard.clear()
                    await until(lambda one=one: not one.mesh.connected, "the end of the link")
            assert one.ups == [leaves] * 3
            assert [peer for peer, _ in one.downs] == [leaves] * 3

    run(work())


@on_both_loops
def test_a_link_given_up_is_told_of_once_and_comes_back(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a, b = members = [Member(genesis, home) for home in homes]
        async with running(*members):
            await linked(a, b)
            a.mesh.broadcast(Hello(0))
            before = a.mesh.traffic(b.me)
            reason = LinkError("enough")
            a.mesh.close(b.me, reason)
            a.mesh.close(b.me, reason)
            assert a.downs == [(b.me, reason)]
            a.mesh.broadcast(Hello(1))  # to nobody, and no error
            await until(lambda: len(b.ups) == 2, "the link again")
            await linked(a, b)
            assert len(b.downs) == 1
            assert 0 < before["control_sent"] <= a.mesh.traffic(b.me)["control_sent"], "the old link's bytes count on"

    run(work())


@on_both_loops
@pytest.mark.parametrize(("lane", "finder"), [("control", 0), ("bulk", 1)])
def test_a_link_through_which_nothing_gets_is_given_up_and_opened_anew(tmp_path, run, monkeypatch, lane, finder):
    """By either side, and for either lane."""

    async def work():
        genesis, homes = found_network(tmp_path, 2)
        members = [Member(genesis, home) for home in homes]
        async with running(*members):
            await linked(*members)
            [link] = members[finder].mesh._links.values()
            silent = link.lanes[lane].transport
            monkeypatch.setattr(mesh, "unanswered", lambda transport: 4 if transport is silent else 3)
            await until(lambda: all(len(member.ups) == 2 for member in members), "another link")
            await linked(*members)
            [(_, reason)] = members[finder].downs
            assert isinstance(reason, LinkError)
            assert str(reason) == "nothing gets through to the peer"

    monkeypatch.setattr(mesh, "_LISTEN_EVERY_S", 0.05)
    run(work())


@on_both_loops
def test_of_every_lane_it_is_known_what_is_unanswered_and_of_none_that_is_closed(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 2)
        members = [Member(genesis, home) for home in homes]
        async with running(*members):
            await linked(*members)
            lanes = [lane for member in members for link in member.mesh._links.values() for lane in link.lanes.values()]
            assert [lane.transport.get_extra_info("socket").fileno() > 0 for lane in lanes] == [True] * 4
            assert [unanswered(lane.transport) for lane in lanes] == [0] * 4
        assert [unanswered(lane.transport) for lane in lanes] == [0] * 4
        assert unanswered(None) == 0

    run(work())


@needs_hosts
def test_what_a_cut_line_leaves_unanswered_is_told_from_what_a_slow_reader_leaves_unread():
    with Hosts(2) as made, _server_that_reads_nothing(made.address(1), made.namespace(1)):
        here, there = multiprocessing.Pipe()
        sender = multiprocessing.get_context("fork").Process(
            target=_send_and_tell, args=(made.namespace(0), made.address(1), there)
        )
        sender.start()
        try:
            assert here.recv() < mesh._UNANSWERED_MAX
            made.cut([0], [1])
            here.send("cut")
            assert here.recv() >= mesh._UNANSWERED_MAX
        finally:
            sender.kill()
            sender.join()


@contextmanager
def _server_that_reads_nothing(address, namespace):
    code = f"import socket\nserver = socket.create_server(({address!r}, 7000))\nprint('up', flush=True)\n"
    code += "connections = [server.accept() for _ in range(3)]"
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"up\n"
            yield
        finally:
            process.kill()


def _send_and_tell(namespace, address, there):
    """On a host: fill what nobody reads, and tell what is unanswered; then of another connection, when it is cut."""
    hosts.enter(namespace)
    full, quiet = (socket.create_connection((address, 7000), PATIENCE_S) for _ in range(2))
    full.settimeout(1.5)  # for so long the system asks whether there is room, and is told that there is none
    with suppress(TimeoutError):
        full.sendall(bytes(2**24))
    there.send(_unanswered(full))
    there.recv()
    quiet.send(b"x")
    deadline = time.monotonic() + PATIENCE_S
    while _unanswered(quiet) < mesh._UNANSWERED_MAX and time.monotonic() < deadline:
        time.sleep(0.05)
    there.send(_unanswered(quiet))


def _unanswered(connection):
    return unanswered(SimpleNamespace(get_extra_info=lambda _: connection))


@on_both_loops
@pytest.mark.parametrize("cutter", [0, 1])
def test_a_link_that_is_cut_in_a_vector_again_and_again_costs_no_byte_of_it_twice(tmp_path, run, cutter, monkeypatch):
    """Whichever side cuts it, and whichever dials."""
    each = np.random.default_rng(0).standard_normal(2**21).astype(np.float32)
    named, cuts = digest_of(each), [each.nbytes * sixth // 6 for sixth in range(1, 5)]
    update = BulkLane._body_updated

    def cut(lane, nbytes):
        update(lane, nbytes)
        if cuts and lane._arrival is not None and lane._arrival.filled >= cuts[0]:
            cuts.pop(0)
            asyncio.get_running_loop().call_soon(members[cutter].mesh.close, PeerId(1 - cutter), LinkError("cut"))

    async def work():
        taker.judge = lambda *_: Verdict.TAKE
        async with running(*members):
            came = []
            for links in range(1, 6):
                await until(lambda links=links: all(len(member.ups) == links for member in members), "a link")
                await linked(*members)
                came.append(taker.mesh.unfinished.offset(named, sender.me))
                sender.mesh.stream(taker.me, Slot(0), named, each, came[-1])
            await until(lambda: taker.vectors, "the vector")
            assert came == sorted(set(came)), "it gets on each time"
            assert taker.vectors[0][2] == each.tobytes()
            assert taker.asked_again == []
            assert each.nbytes <= taker.mesh.bytes_received < each.nbytes + 2**16
        assert len(taker.mesh.unfinished) == 0

    monkeypatch.setattr(BulkLane, "_body_updated", cut)
    genesis, homes = found_network(tmp_path, 2)
    sender, taker = members = [Member(genesis, home) for home in homes]
    run(work())


@on_both_loops
def test_one_who_is_paused_is_not_read_until_it_is_welcome_again(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a, b = members = [Member(genesis, home) for home in homes]
        async with running(*members):
            await linked(a, b)
            a.mesh.pause(b.me, True)
            before = len(a.heard)
            for number in range(3):
                b.mesh.broadcast(Hello(number))
            b.mesh.stream(None, Slot(0), digest_of(vector(0)), vector(0))
            await until(lambda: a.vectors, "the vector, which has a lane of its own")
            assert len(a.heard) == before
            a.mesh.pause(b.me, False)
            await until(lambda: len(a.heard) == before + 3, "the words")

    run(work())


# Strangers.


async def no_certificate(address, folder):
    return await tls_visit(address, anonymous())


async def own_certificate(address, folder):
    context = anonymous()
    key, certificate = folder / "stranger.pem", folder / "stranger.crt"
    if not key.exists():
        identity = Identity.generate()
        identity.save(key)
        certificate.write_text(identity.certificate("node0"))
    context.load_cert_chain(certificate, key)
    return await tls_visit(address, context)


async def member_of_another_network(address, folder):
    if not (folder / "other").exists():
        found_network(folder / "other", 2)
    context = anonymous()
    context.load_cert_chain(folder / "other" / "node0" / "cert.pem", folder / "other" / "node0" / "key.pem")
    return await tls_visit(address, context)


async def plain_http(address, folder):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /v1/link/control?pair=00 HTTP/1.1\r\nHost: x\r\n\r\n")
    return await answer(reader, writer)


async def replay(address, folder):
    """Every byte that a member sent to this node when it opened a lane before, and spoke."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write((folder / "recorded").read_bytes())
    return await answer(reader, writer)


async def silence(address, folder):
    reader, writer = await asyncio.open_connection(*address)
    return await answer(reader, writer)


def answered(task):
    return task.done() and task.exception() is None


def anonymous():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def tls_visit(address, context):
    with suppress(ssl.SSLError, ConnectionError):
        reader, writer = await asyncio.open_connection(*address, ssl=context)
        writer.write(b"GET /v1/link/control?pair=00 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\r\n")
        return await answer(reader, writer)
    return b""


async def answer(reader, writer):
    """All that the other side says, until it closes."""
    said = b""
    with suppress(ssl.SSLError, ConnectionError):
        while data := await asyncio.wait_for(reader.read(65536), 20):
            said += data
    writer.close()
    with suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()
    return said


@on_both_loops
@pytest.mark.parametrize("stranger", [no_certificate, own_certificate, member_of_another_network, plain_http, silence])
def test_strangers_get_no_byte_and_are_logged_once_and_members_are_served(tmp_path, run, stranger):
    async def work():
        genesis, homes = found_network(tmp_path / "net", 3, handshake_s=0.5)
        a, b, c = (Member(genesis, home) for home in homes)
        async with running(a, c):
            await until(lambda: c.mesh.connected, "the first link")
            said = await asyncio.gather(*(stranger(c.address, tmp_path) for _ in range(20)))
            for each in said:
                # A TLS alert, 7 bytes, may tell a plain speaker that this is TLS.
                assert len(each) <= 7
                assert b"HTTP" not in each
            assert len(c.log.of("stranger refused")) == 1
            assert c.ups == [a.me]
            assert c.downs == []
            async with running(b):
                await linked(a, b, c)
                b.mesh.broadcast(Hello(3))
                await until(lambda: (b.me, Hello(3)) in c.heard and (b.me, Hello(3)) in a.heard, "words of members")

    run(work())


@on_both_loops
def test_strangers_in_the_handshake_do_not_keep_members_out(tmp_path, run):
    """As many as there are places say nothing; a member gets in when their time is over."""

    async def work():
        genesis, homes = found_network(tmp_path, 2, handshake_s=1.0)
        a, b = (Member(genesis, home) for home in homes)
        async with running(b):
            idle = [await asyncio.open_connection(*b.address) for _ in range(80)]
            async with running(a):
                await linked(a, b)
            for _, writer in idle:
                writer.close()

    run(work())


@on_both_loops
def test_who_knocks_all_the_time_costs_few_handshakes_and_keeps_nobody_out_who_is_elsewhere(tmp_path, run):
    async def knock(member, home, genesis, source):
        with suppress(OSError):
            context = client_context(home, genesis)
            reader, writer = await asyncio.open_connection(*member.address, ssl=context, local_addr=(source, 0))
            writer.write(
                b"GET /v1/link/control?pair=00 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                b"Upgrade: p2pnode-link\r\n\r\n"
            )
            return await answer(reader, writer) if source == "127.0.0.1" else await reader.readline()
        return b""

    async def work():
        genesis, homes = found_network(tmp_path, 3)
        a, b, c = (Member(genesis, home) for home in homes)
        c.banned.add(a.me)
        async with running(c):
            began = time.monotonic()
            knocks = (knock(c, a.home, genesis, "127.0.0.1") for _ in range(600))
            assert set(await asyncio.gather(*knocks)) == {b""}
            saved = KNOCKS_SAVED + 3 * KNOCKS_SAVED_PER_MEMBER
            assert saved <= c.asked <= saved + KNOCKS_PER_S * (time.monotonic() - began)
            assert len(c.log.of("knocks too often")) == 1
            assert b" 101 " in await knock(c, b.home, genesis, "127.0.0.2")

    run(work())


@on_both_loops
def test_a_member_of_a_higher_index_does_not_open_the_link(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 3)
        a, b, c = (Member(genesis, home) for home in homes)
        async with running(b):
            for dialler, wanted in ((c, b" 403 "), (b, b" 403 "), (a, b" 101 ")):
                reader, writer = await asyncio.open_connection(*b.address, ssl=client_context(dialler.home, genesis))
                writer.write(
                    b"GET /v1/link/control?pair=00 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                    b"Upgrade: p2pnode-link\r\n\r\n"
                )
                assert wanted in await reader.readline()
                writer.close()
            assert b.ups == []
            assert b.mesh.connected == ()

    run(work())


@on_both_loops
def test_a_member_is_not_heard_before_its_link_is_up(tmp_path, run):
    """An answer could not be sent yet, and would be lost."""

    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a, b = (Member(genesis, home) for home in homes)
        async with running(b):
            writers = []
            for lane in ("control", "bulk"):
                reader, writer = await asyncio.open_connection(*b.address, ssl=client_context(a.home, genesis))
                writer.write(
                    f"GET /v1/link/{lane}?pair=00 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                    "Upgrade: p2pnode-link\r\n\r\n".encode()
                )
                assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
                word = encode(Hello(3))
                writer.write(len(word).to_bytes(4, "big") + word if lane == "control" else b"")
                writers.append(writer)
            await until(lambda: b.heard == [(a.me, Hello(3))], "the word")
            assert b.early == []
            for writer in writers:
                writer.close()

    run(work())


@on_both_loops
def test_a_member_that_answers_at_anothers_address_is_not_taken_for_it(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 3)
        swapped = [
            genesis.members[i].model_copy(update={"address": genesis.members[j].address})
            for i, j in ((0, 0), (1, 2), (2, 1))
        ]
        a = Member(genesis.model_copy(update={"members": tuple(swapped)}), homes[0])
        b, c = Member(genesis, homes[1]), Member(genesis, homes[2])
        async with running(a, b, c):
            await until(lambda: len(a.log.of("no link yet")) >= 2, "two refusals")
            assert a.mesh.connected == ()
            assert any(
                "is node2; mend the address in the genesis" in said["reason"] for said in a.log.of("no link yet")
            )

    run(work())


@on_both_loops
def test_a_member_cannot_hold_more_connections_than_two_links_take(tmp_path, run):
    """It may lie, so it may open connections until the node has no file left to write to."""

    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a, b = (Member(genesis, home) for home in homes)
        async with running(b):
            context = client_context(a.home, genesis)
            opened = [await asyncio.open_connection(*b.address, ssl=context) for _ in range(20)]
            ended = [asyncio.create_task(answer(*each)) for each in opened]
            await until(lambda: sum(map(answered, ended)) == 16, "the end of the older ones")
            async with running(a):
                await linked(a, b)
            for each in ended:
                each.cancel()
            await asyncio.gather(*ended, return_exceptions=True)
            for _, writer in opened:
                writer.close()

    run(work())


@on_both_loops
def test_running_out_of_files_for_a_while_does_not_end_the_listening(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a, b = (Member(genesis, home) for home in homes)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with running(b):
            await asyncio.sleep(0)
            with socket.socket() as visitor:
                visitor.setblocking(False)
                resource.setrlimit(resource.RLIMIT_NOFILE, (visitor.fileno() + 1, hard))
                try:
                    await asyncio.get_running_loop().sock_connect(visitor, b.address)
                    await until(lambda: b.log.of("cannot accept"), "the failure to accept")
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            async with running(a):
                await linked(a, b)

    run(work())


@on_both_loops
def test_a_recorded_handshake_played_again_opens_nothing(tmp_path, run):
    """The answer to a handshake depends on what both sides drew for it, and no session is ever resumed."""

    async def work():
        genesis, homes = found_network(tmp_path, 2, handshake_s=0.5)
        a, b = (Member(genesis, home) for home in homes)
        recorded = bytearray()

        async def listen_in(reader, writer):
            inner, outer = await asyncio.open_connection(*b.address)

            async def pump(source, sink, kept):
                with suppress(OSError):
                    while data := await source.read(65536):
                        kept += data
                        sink.write(data)

            await asyncio.gather(pump(reader, outer, recorded), pump(inner, writer, bytearray()))

        async with running(b):
            tap = await asyncio.start_server(listen_in, "127.0.0.1", 0)
            context = client_context(a.home, genesis)
            reader, writer = await asyncio.open_connection(*tap.sockets[0].getsockname(), ssl=context)
            writer.write(
                b"GET /v1/link/control?pair=00 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                b"Upgrade: p2pnode-link\r\n\r\n"
            )
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
            (tmp_path / "recorded").write_bytes(recorded)
            assert len(recorded) > 500
            admitted, b.asked = b.asked, 0
            assert admitted == 1
            for _ in range(3):
                assert b"HTTP" not in await replay(b.address, tmp_path)
            assert b.asked == 0, "nobody got as far as to the door"
            assert len(b.log.of("stranger refused")) == 1
            tap.close()
            async with running(a):
                await linked(a, b)

    run(work())


# Who does not read.


@on_both_loops
def test_who_does_not_read_is_given_up_at_the_bound_and_others_are_served_meanwhile(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 3, control_backlog_bytes_max=2**20)
        a, b, c = (Member(genesis, home) for home in homes)
        c.mesh._budgets[b.me] = Budget(Allowance(1e9, 1e9, 1e9))  # with its own it would read for half a minute
        async with running(b, c):
            deaf = Intruder(a.home, genesis, victim=1)
            assert await deaf.open()
            for _, writer in deaf.lanes.values():
                writer.transport.pause_reading()
            await until(lambda: b.mesh.connected == (a.me, c.me), "both links")
            signed = SignedHeader(Header(bytes(32), b.me, Slot(0), 1, 1, bytes(32)), bytes(64))
            words = Certificate(signed, tuple((member, bytes(64)) for member in range(1000)))
            unsent = b.mesh._links[a.me].control.transport.get_write_buffer_size
            said = 0
            while a.me in b.mesh.connected:
                assert unsent() <= 2**20
                b.mesh.broadcast(words)
                said += 1
                await until(lambda said=said: len(c.heard) == said, "the words, where they are read")
                assert said < 1000
            peer, reason = b.downs[-1]
            assert (peer, type(reason)) == (a.me, LinkError)
            b.mesh.broadcast(Hello(1))
            await until(lambda: c.heard[-1] == (b.me, Hello(1)), "one more word")
            deaf.leave()

    run(work())


# Who is not welcome.


@on_both_loops
def test_who_is_not_welcome_is_shown_the_door_before_a_byte_of_its_request_is_read(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a, b = (Member(genesis, home) for home in homes)
        async with running(b):
            for banned, wanted in ((set(), b"400"), ({a.me}, b"")):
                b.banned = banned
                context = client_context(a.home, genesis)
                said = b""
                with suppress(ssl.SSLError, ConnectionError):
                    reader, writer = await asyncio.open_connection(*b.address, ssl=context)
                    writer.write(b"no request at all\r\n\r\n")
                    said = await answer(reader, writer)
                assert wanted in said
                assert bool(said) != bool(banned), "a parser would have answered"
            assert len(b.log.of("refused")) == 1

    run(work())


@on_both_loops
def test_who_is_expelled_loses_all_it_opened_and_gets_no_link_until_it_is_welcome_again(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a, b = members = [Member(genesis, home) for home in homes]
        async with running(*members):
            await linked(a, b)
            idle = await asyncio.open_connection(*b.address, ssl=client_context(a.home, genesis))
            ended = asyncio.create_task(answer(*idle))
            await until(lambda: len(b.mesh._opened[a.me]) == 3, "the end of its handshake at the other side")
            for judge, outcast in ((b, a), (a, b)):  # who is dialled, and who dials
                ups, asked = len(judge.ups), judge.asked
                judge.banned.add(outcast.me)
                judge.mesh.expel(outcast.me, LinkError("enough"))
                await until(lambda o=outcast, n=ups: len(o.downs) == n, "the end of the link")
                await asyncio.wait_for(asyncio.shield(ended), PATIENCE_S)
                seen = outcast.asked
                await until(lambda j=judge, n=asked: j.asked >= n + 3, "tries to open it again")
                assert len(judge.ups) == ups
                assert outcast.asked == seen or judge is b, "who is banned is not dialled"
                judge.banned.clear()
                await until(lambda j=judge, n=ups: len(j.ups) == n + 1, "the link again")
                await linked(a, b)

    run(work())


@on_both_loops
def test_a_connection_that_brings_more_than_a_request_and_is_no_lane_is_closed(tmp_path, run):
    """The server answers one request after another, and would keep all that wait."""

    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a, b = (Member(genesis, home) for home in homes)
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        async with running(b):
            reader, writer = await asyncio.open_connection(*b.address, ssl=client_context(a.home, genesis))
            writer.write(request)
            assert b" 404 " in await reader.readline()
            writer.write(request * (mesh._REQUEST_BYTES_MAX // len(request)))
            assert b" 404 " not in await answer(reader, writer)
            async with running(a):
                await linked(a, b)

    run(work())


@on_both_loops
def test_who_is_banned_while_we_dial_it_gets_no_link(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a, b = (Member(genesis, home) for home in homes)
        attach = a.mesh._attach

        def banning(link, name, transport):
            if name == "control" and not a.log.of("no link yet"):
                a.banned.add(b.me)
            return attach(link, name, transport)

        a.mesh._attach = banning
        async with running(a, b):
            await until(lambda: a.log.of("no link yet"), "the end of the try")
            assert "banned meanwhile" in a.log.of("no link yet")[-1]["reason"]
            assert a.ups == []
            a.banned.clear()
            await linked(a, b)

    run(work())


def test_a_lane_that_is_broken_is_the_reason_though_the_other_one_ends_first():
    class Stub:
        def __init__(self, failure=None):
            self.failure = failure

        def close(self):
            pass

    class Delegate:
        def disconnected(self, peer, reason):
            told.append((peer, reason))

    told, broken = [], Malformed("no vector")
    link = Link(PeerId(1), Delegate(), lanes={"control": Stub(), "bulk": Stub(broken)})
    link.lost(None)
    link.lost(broken)
    assert told == [(1, broken)]


# Vectors in the clear.


async def a_bare_connection(genesis, said):
    """A connection to the last member that brings these bytes instead of a handshake."""
    reader, writer = await asyncio.open_connection(*split_address(genesis.members[-1].address))
    writer.write(said)
    return reader, writer


@on_both_loops
def test_only_vectors_go_in_the_clear(tmp_path, run):
    """Between the two sits a relay that writes down what it passes on."""

    async def work():
        genesis, homes = found_network(tmp_path, 2, vectors="plain")
        a, b = Member(genesis, homes[0]), Member(genesis, homes[1])
        passed = bytearray()
        async with relayed(genesis, passed) as through:
            a.mesh._genesis = through
            async with running(a, b):
                await linked(a, b)
                a.mesh.broadcast(Want(Slot(3), b"w" * 32))
                a.mesh.stream(None, Slot(0), digest_of(vector(0)), vector(0))
                await until(lambda: b.vectors and b.heard, "the vector and the message")
        assert vector(0).tobytes() in bytes(passed)
        assert b"w" * 32 not in bytes(passed)

    run(work())


@asynccontextmanager
async def relayed(genesis, passed, change=lambda data: data):
    """The genesis with a relay at the last member's address; what it passes on is noted, and may be changed."""
    writers = []

    async def relay(reader, writer):
        onward, back = await asyncio.open_connection(*split_address(genesis.members[-1].address))
        writers.extend((writer, back))
        await asyncio.gather(pump(reader, back, change), pump(onward, writer), return_exceptions=True)

    async def pump(reader, writer, change=lambda data: data):
        while data := await reader.read(65536):
            passed.extend(data)
            writer.write(change(data))
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    last = genesis.members[-1].model_copy(update={"address": address})
    try:
        yield genesis.model_copy(update={"members": (*genesis.members[:-1], last)})
    finally:
        server.close()
        for writer in writers:
            writer.close()


@on_both_loops
def test_bytes_changed_in_the_clear_cut_the_link_and_are_held_against_nobody(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 2, vectors="plain")
        a, b = Member(genesis, homes[0]), Member(genesis, homes[1])
        middle = vector(0).tobytes()[5000:5016]
        async with relayed(genesis, bytearray(), lambda data: data.replace(middle, bytes(16))) as through:
            a.mesh._genesis = through
            async with running(a, b):
                await linked(a, b)
                a.mesh.stream(None, Slot(0), digest_of(vector(0)), vector(0))
                await until(lambda: b.downs, "the end of the link")
                assert isinstance(b.downs[0][1], LinkError)
                assert not isinstance(b.downs[0][1], WireError)
                assert "digest" in str(b.downs[0][1])
                assert b.vectors == []
                await linked(a, b)

    run(work())


@pytest.mark.parametrize("said", [b"0" * 32, b"\xff" * 32, b"GET /v1/link/bulk HTTP/1.1\r\nHost: x\r\n\r\n", b""])
@on_both_loops
def test_a_bare_connection_without_the_secret_of_a_pair_opens_nothing(tmp_path, run, said):
    async def work():
        genesis, homes = found_network(tmp_path, 2, vectors="plain", handshake_s=0.5)
        a, b = Member(genesis, homes[0]), Member(genesis, homes[1])
        async with running(b):
            intruder = Intruder(homes[0], genesis, victim=1)
            assert await intruder.open("control")  # a pair whose bulk lane is awaited
            reader, writer = await a_bare_connection(genesis, said)
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
            writer.close()
            assert b.ups == []
            assert b.mesh._halves
            intruder.leave()
            async with running(a):
                await linked(a, b)

    run(work())


@on_both_loops
def test_the_secret_of_a_pair_opens_one_lane_once(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 2, vectors="plain")
        b = Member(genesis, homes[1])
        async with running(b):
            intruder = Intruder(homes[0], genesis, victim=1)
            intruder._pairs, secret = 0, f"{id(intruder):x}1".encode()
            assert await intruder.open("control")
            assert await opened(genesis, secret.rjust(32, b"0")) == b""
            reader, writer = await intruder.connect()
            writer.write(
                b"GET /v1/link/control?pair=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                b"Upgrade: p2pnode-link\r\n\r\n" % (b"7" * 32)
            )
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            b.banned.add(PeerId(0))
            assert await opened(genesis, b"7" * 32) == b""
            b.banned.clear()
            assert b" 101 " in await opened(genesis, b"7" * 32)
            await until(lambda: b.ups == [0], "the link")
            assert await opened(genesis, b"7" * 32) == b""
            writer.close()
            intruder.leave()

    async def opened(genesis, secret):
        reader, _ = await a_bare_connection(genesis, secret)
        with suppress(ConnectionResetError):
            return await asyncio.wait_for(reader.read(len(b"HTTP/1.1 101 ")), PATIENCE_S)
        return b""

    run(work())


# The end.


def open_sockets():
    names = []
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # of the listing itself
            names.append(str(fd.readlink()))
    return sorted(name for name in names if name.startswith("socket:"))


@on_both_loops
def test_stop_leaves_no_task_and_no_socket(tmp_path, run):
    async def work():
        genesis, homes = found_network(tmp_path, 4)
        members = [Member(genesis, home) for home in homes]
        absent = members.pop()
        before = open_sockets()
        async with running(*members):
            await until(lambda: all(len(member.mesh.connected) == 2 for member in members), "links")
            loop = asyncio.get_running_loop()
            began = loop.time()
            _, writer = await asyncio.open_connection(*members[0].address)  # in the handshake for ever
            idle = await asyncio.open_connection(*members[2].address, ssl=client_context(members[0].home, genesis))
            members[0].mesh.stream(None, Slot(0), digest_of(vector(0)), vector(0))  # under way when all ends
            assert absent.me not in members[0].mesh.connected
        assert loop.time() - began < 5
        writer.close()
        idle[1].close()
        me = asyncio.current_task()
        await until(lambda: asyncio.all_tasks() == {me}, "no task but this one", 5)
        await until(lambda: open_sockets() == before, "no socket of the meshes", 5)
        for member in members:
            with socket.create_server(member.address):
                pass

    run(work())


def test_an_address_in_use_is_said_with_the_remedy(tmp_path):
    async def work():
        genesis, homes = found_network(tmp_path, 2)
        a = Member(genesis, homes[0])
        with (
            socket.create_server(a.address),
            pytest.raises(LinkError, match=r"cannot listen on .*; free it, or change `listen`"),
        ):
            await a.mesh.start()
        await a.mesh.stop()

    asyncio.run(work())
