"""The page about the wire is true: its examples are what the code makes of them, its tables what the code holds to.

Its examples are read out of the page. A block is bytes in hexadecimal, {other} stands for the block of that name, and
two spaces begin a remark.
"""

import asyncio
import re
import ssl
import struct
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import blake3
import numpy as np
import pytest

from p2pnode import codec
from p2pnode.codec import Finished, Holding, Want, WireMessage, decode, decode_evidence, encode, encode_evidence
from p2pnode.config import NodeConfig
from p2pnode.errors import WireError
from p2pnode.genesis import Genesis
from p2pnode.identity import Identity, KeyRing
from p2pnode.joint import sign_together
from p2pnode.net.budget import allowance
from p2pnode.net.mesh import Mesh
from p2pnode.net.tls import client_context, server_context
from p2pnode.recipe import choose
from p2pnode.settings import split_address
from p2pnode.storage.vectors import Verdict, digest_of
from protocols.committee import Committee
from protocols.effects import Certificate, DigestEcho, Echo, Evidence, Hello, Proposal, Ready, Report, Sighting
from protocols.faults import Equivocation
from protocols.header import FLOAT32, Header, PeerId, SignedHeader, Slot
from tests.loopback import PATIENCE_S, LogBook, found_network, until

PAGE = (Path(__file__).parents[1] / "docs" / "wire.md").read_text()
BLOCKS = dict(re.findall(r"```\n# ([^\n]+)\n(.*?)```", PAGE, re.DOTALL))


def example(name):
    """The bytes of an example."""
    lines = [line.split("  ")[0].strip() for line in BLOCKS[name].splitlines()]
    return b"".join(example(line[1:-1]) if line.startswith("{") else bytes.fromhex(line) for line in lines)


def text(name):
    """An example that is lines of text, as they go over the wire."""
    return BLOCKS[name].replace("\n", "\r\n")


def rows(*heads):
    """The rows of the page's table with these heads, cell by cell."""
    begin = PAGE.index(f"| {' | '.join(heads)} |\n")
    lines = PAGE[begin:].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def number(cell):
    return float(cell.replace(",", ""))


IDENTITIES = [Identity.of_seed(bytes([seed]) * 32) for seed in (0, 1)]
VECTOR = np.array([1.0, -2.0, 0.5], dtype="<f4")
SLOT = Slot(7)
JOINT = "joint signature of member 1"


def charter():
    """The genesis of the example, read from its canonical form, with addresses put in."""
    values = Genesis.model_validate_json(
        BLOCKS["canonical charter"].replace("\n", "").replace('"name":"', '"address":"10.0.0.1:7000","name":"', 1)
        .replace('"name":"b"', '"address":"10.0.0.2:7000","name":"b"')
    )  # fmt: skip
    return Genesis.checked(values.model_dump(), "the page")


def header():
    return Header(charter().network, PeerId(0), SLOT, FLOAT32, len(VECTOR), digest_of(VECTOR))


def signed(digest=None):
    named = header() if digest is None else Header(header().network, PeerId(0), SLOT, FLOAT32, len(VECTOR), digest)
    return SignedHeader(named, IDENTITIES[0].sign(named.proposal().statement))


def echo(member):
    return IDENTITIES[member].sign(header().echo().statement)


def proof():
    return Equivocation.of(signed(), signed(example("other digest")))


def messages():
    """What the page says of each kind, by its name."""
    digest = digest_of(VECTOR)
    return {
        "Proposal": Proposal(signed()),
        "Echo": Echo(SLOT, PeerId(0), echo(1)),
        "Certificate": Certificate(signed(), ((PeerId(1), echo(1)),)),
        "Sighting": Sighting(signed()),
        "Want": Want(SLOT, digest, 4),
        "Finished": Finished(),
        "Hello": Hello(5),
        "DigestEcho": DigestEcho(signed()),
        "Ready": Ready(SLOT, PeerId(0), digest),
        "Report": Report(SLOT, (PeerId(0), PeerId(1))),
        "Evidence": Evidence(proof()),
        "Holding": Holding(((SLOT, digest),), ((b"\xab" * 32, 1000),)),
    }


def test_the_network_of_the_example_has_the_name_that_the_page_tells():
    canonical = BLOCKS["canonical charter"].replace("\n", "")
    assert blake3.blake3(b"p2pnode/genesis/v1\0" + canonical.encode()).digest() == example("network")
    genesis = charter()
    assert genesis.network == example("network")
    assert [bytes.fromhex(member.public_key) for member in genesis.members] == [one.public_key for one in IDENTITIES]


def test_what_is_signed_is_what_the_page_shows_and_its_signatures_hold():
    assert header().proposal().statement == example("statement of a proposal")
    assert header().echo().statement == example("statement of an echo")
    assert signed().signature == example("signature of member 0 on the proposal")
    keys = KeyRing([one.public_key for one in IDENTITIES])
    assert echo(1) == example("signature of member 1 on the echo")
    assert keys(PeerId(1), example("statement of an echo"), example("signature of member 1 on the echo"))


def test_a_joint_signature_is_what_the_page_shows_and_holds_for_both_statements():
    statements = [replace(header(), slot=Slot(step)).echo().statement for step in (7, 8)]
    assert IDENTITIES[1].sign(example("what a joint signature is on")) + example("names") == example(JOINT)
    assert set(sign_together(IDENTITIES[1].sign, statements).values()) == {example(JOINT)}
    keys = KeyRing([one.public_key for one in IDENTITIES])
    assert all(keys(PeerId(1), statement, example(JOINT)) for statement in statements)
    assert {len(decode(encode(Echo(SLOT, PeerId(0), bytes(size)))).signature) for size in (128, 320)} == {128, 320}


@pytest.mark.parametrize("name", [kind.__name__ for kind in get_args(WireMessage)])
def test_every_kind_of_message_has_the_encoding_and_the_tag_of_the_page(name):
    assert encode(messages()[name]) == example(name)
    assert decode(example(name)) == messages()[name]
    tags = {cells[1].strip("`"): int(cells[0]) for cells in rows("tag", "message", "fields after the tag", "sent")}
    assert tags[name] == example(name)[1]
    assert len(tags) == len(get_args(WireMessage))


def test_the_frame_and_the_vector_are_as_the_page_shows_them():
    assert example("frame of Hello") == struct.pack(">I", len(example("Hello"))) + example("Hello")
    assert VECTOR.tobytes() == example("vector")
    assert digest_of(VECTOR) == example("digest")
    assert example("vector on the lane") == example("bulk head") + example("vector")[4:]


def test_the_evidence_file_of_the_page_proves_what_it_says():
    assert encode_evidence(proof()) == example("evidence file")
    keys = KeyRing([one.public_key for one in IDENTITIES])
    assert decode_evidence(example("evidence file")).holds(example("network"), keys)


def test_each_limit_of_the_page_is_the_constant_that_it_names():
    limits = rows("limit", "where", "is")
    assert len(limits) > 10
    for _, where, told in limits:
        module, _, name = where.strip("`").rpartition(".")
        assert getattr(import_module(module), name) == number(told), where


def test_each_setting_of_the_page_has_the_default_that_it_tells():
    settings = rows("setting in `node.toml`", "default", "what")
    assert len(settings) > 5
    for name, told, _ in settings:
        assert NodeConfig.model_fields[name.strip("`")].default == number(told), name


def test_the_budget_of_the_page_is_what_the_recipe_comes_to():
    [[_, messages_a_second, bytes_a_second, vectors]] = rows(
        "network", "messages a second", "bytes a second", "vectors thrown away a second"
    )
    committee = Committee(5, 1)
    allowed = allowance(choose("trimmed", committee), committee, 200)
    told = [number(cell) for cell in (messages_a_second, bytes_a_second, vectors)]
    assert [allowed.messages, allowed.nbytes, allowed.vectors] == told


def at_most(name, value):
    """A message whose field of this name has this value, and all others the least."""
    slot = {"step": 0, "exchange": 0, "sub-round": 0} | {name: value}
    place = Slot(slot["step"], slot["exchange"], slot["sub-round"])
    fields = {"origin": 0, "dtype": 0, "length": 0, "offset": 0} | {name: value}
    if name == "offset":
        return encode(Want(place, bytes(32), fields["offset"]))
    named = Header(bytes(32), fields["origin"], place, fields["dtype"], fields["length"], bytes(32))
    return encode(Proposal(SignedHeader(named, bytes(64))))


def test_the_largest_value_of_each_field_is_taken_and_one_more_is_none():
    fields = rows("field", "what", "most")
    assert len(fields) == 7
    for name, _, most in fields:
        value = int(most.replace(",", ""))
        assert decode(at_most(name.strip("`"), value))
        with pytest.raises(WireError):
            decode(at_most(name.strip("`"), value + 1))


class Taker:
    """Takes what a mesh brings."""

    def __init__(self):
        self.heard, self.vectors = [], []

    def received(self, peer, message):
        self.heard.append((peer, message))

    def judge(self, peer, slot, digest, nbytes):
        return Verdict.TAKE

    def vector(self, peer, digest, vector):
        self.vectors.append((peer, digest, vector.tobytes()))

    def again(self, peer, digest):
        raise AssertionError("it came whole")

    def welcome(self, peer):
        return True

    def connected(self, peer):
        """Nothing to say."""

    def disconnected(self, peer, reason):
        """Nothing to do."""


def mesh_of(genesis, home, me):
    taker = Taker()
    return taker, Mesh(PeerId(me), home, genesis, NodeConfig.load(home.config), taker, LogBook())


def request(lane, pair, host):
    return text("request").replace("LANE", lane).replace("PAIR", pair).replace("HOST", host).encode()


def test_who_opens_a_link_by_the_page_alone_is_understood(tmp_path):
    """Requests, answers, a message and a vector, written from the page, to a real mesh."""

    async def work():
        genesis, homes = found_network(tmp_path, 2)
        taker, mesh = mesh_of(genesis, homes[1], 1)
        host, port = split_address(genesis.members[1].address)
        tls, pair = client_context(homes[0], genesis), "0123456789abcdef" * 2
        await mesh.start()
        lanes = SimpleNamespace()
        try:
            for lane in ("control", "bulk"):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls)
                assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
                writer.write(request(lane, pair, host))
                answer = await asyncio.wait_for(reader.readexactly(len(text("answer"))), PATIENCE_S)
                assert answer == text("answer").encode()
                setattr(lanes, lane, writer)
            lanes.control.write(example("frame of Hello"))
            whole = example("bulk head").replace(struct.pack(">QQ", 12, 4), struct.pack(">QQ", 12, 0))
            lanes.bulk.write(whole + example("vector"))
            await until(lambda: taker.heard and taker.vectors, "a message and a vector")
            assert taker.heard == [(0, Hello(5))]
            assert taker.vectors == [(0, example("digest"), example("vector"))]
        finally:
            for writer in vars(lanes).values():
                writer.transport.abort()
            await mesh.stop()

    asyncio.run(work())


def test_who_is_dialled_hears_the_requests_of_the_page(tmp_path):
    """A server that knows no more than the page is dialled by a real mesh, and is a link to it then."""

    async def work():
        genesis, homes = found_network(tmp_path, 2)
        _, mesh = mesh_of(genesis, homes[0], 0)
        host, port = split_address(genesis.members[1].address)
        asked, writers = [], []

        async def serve(reader, writer):
            writers.append(writer)
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(text("answer").encode())

        tls = server_context(homes[1], genesis)
        assert tls.minimum_version == ssl.TLSVersion.TLSv1_3
        server = await asyncio.start_server(serve, host, port, ssl=tls)
        try:
            await mesh.start()
            await until(lambda: mesh.connected == (1,), "the link")
            pair = re.search(rb"pair=([0-9a-f]{32}) ", asked[0]).group(1).decode()
            assert asked == [request("control", pair, host), request("bulk", pair, host)]
        finally:
            await mesh.stop()
            server.close()
            for writer in writers:
                writer.transport.abort()

    asyncio.run(work())


def test_a_request_has_room_for_the_longest_name_of_a_host():
    longest = request("control", "0" * 32, "h" * 253)
    limit = next(number(told) for what, _, told in rows("limit", "where", "is") if what == "bytes of a request")
    assert len(longest) <= limit


def test_the_page_tells_of_every_message_and_every_bound_of_a_message():
    assert f"{codec.MESSAGE_BYTES_MAX:,} bytes at most" in PAGE
    assert set(messages()) == {kind.__name__ for kind in get_args(WireMessage)} <= set(BLOCKS)
