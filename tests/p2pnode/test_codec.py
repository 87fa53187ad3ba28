"""One message, one encoding; and whatever a peer sends is a message or a WireError, never anything else."""

import random
import sys
from contextlib import suppress
from dataclasses import replace
from typing import get_args

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pnode import joint
from p2pnode.codec import (
    EVIDENCE_MAGIC,
    HELD_MAX,
    MESSAGE_BYTES_MAX,
    Finished,
    Holding,
    Want,
    WireMessage,
    decode,
    decode_evidence,
    encode,
    encode_evidence,
)
from p2pnode.errors import Malformed, NonCanonical, WireError
from p2pnode.identity import Identity, KeyRing
from p2pnode.joint import LENGTHS
from protocols.committee import MEMBERS_MAX
from protocols.effects import Certificate, DigestEcho, Echo, Evidence, Hello, Proposal, Ready, Report, Sighting
from protocols.faults import Equivocation
from protocols.header import FLOAT32, LENGTH_MAX, STEP_MAX, Header, SignedHeader, Slot

fuzz = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])

slots = st.builds(Slot, st.integers(0, STEP_MAX), st.integers(0, 255), st.integers(0, 65535))
members = st.integers(0, MEMBERS_MAX - 1)
digests = st.binary(min_size=32, max_size=32)
offsets = st.integers(0, 8 * LENGTH_MAX)
signatures = st.binary(min_size=64, max_size=64)
echo_signatures = st.sampled_from(sorted(LENGTHS)).flatmap(lambda length: st.binary(min_size=length, max_size=length))
headers = st.builds(Header, digests, members, slots, st.integers(0, 255), st.integers(0, LENGTH_MAX), digests)
signed = st.builds(SignedHeader, headers, signatures)
messages = st.one_of(
    st.builds(Proposal, signed),
    st.builds(Echo, slots, members, echo_signatures),
    st.builds(Certificate, signed, st.lists(st.tuples(members, echo_signatures), max_size=4).map(tuple)),
    st.builds(Sighting, signed),
    st.builds(Want, slots, digests, offsets),
    st.builds(
        Holding,
        st.lists(st.tuples(slots, digests), max_size=4).map(tuple),
        st.lists(st.tuples(digests, offsets), max_size=4).map(tuple),
    ),
    st.just(Finished()),
    st.builds(Hello, st.integers(0, STEP_MAX)),
    st.builds(DigestEcho, signed),
    st.builds(Ready, slots, members, digests),
    st.builds(Report, slots, st.lists(members, max_size=9).map(tuple)),
    st.builds(Evidence, st.builds(Equivocation, signed, signed)),
)

HEADER = Header(b"n" * 32, 3, Slot(300, 1, 2), FLOAT32, 1000, b"d" * 32)
SIGNED = SignedHeader(HEADER, b"s" * 64)
LARGEST = SignedHeader(
    Header(b"\xff" * 32, MEMBERS_MAX - 1, Slot(STEP_MAX, 255, 65535), 255, LENGTH_MAX, b"\xff" * 32), b"\xff" * 64
)
ONE_OF_EACH = [
    Proposal(SIGNED),
    Echo(HEADER.slot, 3, b"e" * 64),
    Certificate(SIGNED, ((0, b"0" * 64), (200, b"2" * 64))),
    Sighting(SIGNED),
    Want(HEADER.slot, b"d" * 32),
    Finished(),
    Hello(300),
    DigestEcho(SIGNED),
    Ready(HEADER.slot, 3, b"d" * 32),
    Report(HEADER.slot, (0, 1, 200)),
    Evidence(Equivocation(SIGNED, replace(SIGNED, signature=b"t" * 64))),
    Holding(((HEADER.slot, b"d" * 32),), ((b"e" * 32, 1000),)),
]


def decodes_only_to_itself(data):
    """The property of every byte string: one message's one encoding, or a named error."""
    try:
        message = decode(data)
    except (Malformed, NonCanonical):
        return
    assert encode(message) == data


def test_every_kind_of_message_is_tested():
    assert {type(message) for message in ONE_OF_EACH} == set(get_args(WireMessage))
    assert [encode(message)[1] for message in ONE_OF_EACH] == list(range(1, 13))


@fuzz
@given(messages)
def test_every_message_comes_back_from_its_encoding(message):
    assert decode(encode(message)) == message
    assert decode(memoryview(encode(message))) == message


@fuzz
@given(messages, messages)
def test_different_messages_have_different_encodings(one, other):
    assert (encode(one) == encode(other)) == (one == other)


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda message: type(message).__name__)
def test_no_single_byte_can_be_changed_unnoticed(message):
    data = encode(message)
    for at in range(len(data)):
        for byte in range(256):
            decodes_only_to_itself(data[:at] + bytes([byte]) + data[at + 1 :])


wire_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([*range(1, 13), 1.0, -1])
    | st.floats()
    | st.text("aé", max_size=3)
    | st.binary(max_size=70)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=3))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**34 - 1), st.integers(0, 10**9 - 1)),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=20,
)


@fuzz
@given(wire_values)
def test_any_msgpack_value_is_a_message_or_refused(value):
    decodes_only_to_itself(msgpack.packb(value))


@fuzz
@given(wire_values, st.integers(1, len(ONE_OF_EACH)), st.integers(0, 6))
def test_any_value_in_the_place_of_a_field_is_refused_or_has_one_encoding(value, tag, at):
    """The fuzz that gets past the tag: a legal message, one field of which is anything at all."""
    fields = msgpack.unpackb(encode(ONE_OF_EACH[tag - 1]))
    nested = fields[1] if len(fields) > 1 and isinstance(fields[1], list) else fields
    nested[at % len(nested)] = value
    decodes_only_to_itself(msgpack.packb(fields))


def spellings(number):
    """All msgpack encodings of a non-negative integer, and the float that equals it."""
    widths = [
        (b"\xcc", 1),
        (b"\xcd", 2),
        (b"\xce", 4),
        (b"\xcf", 8),
        (b"\xd0", 1),
        (b"\xd1", 2),
        (b"\xd2", 4),
        (b"\xd3", 8),
    ]
    return {msgpack.packb(number), msgpack.packb(float(number))} | {
        prefix + number.to_bytes(width, "big") for prefix, width in widths if number < 1 << (8 * width - 1)
    }


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255])
def test_an_integer_has_one_spelling(number):
    data = encode(Echo(Slot(0, number, 0), 3, b"e" * 64))
    for spelling in spellings(number):
        spelt = data[:3] + b"\x00" + spelling + data[4 + len(msgpack.packb(number)) :]
        if spelt == data:
            assert decode(spelt).slot.exchange == number
        else:
            with pytest.raises((Malformed, NonCanonical)):
                decode(spelt)
    assert len(spellings(number)) > 4


@pytest.mark.parametrize(
    "data",
    [
        b"\xcc\x06",  # not an array
        b"\x90",
        b"\x91\xcc\x06",
        b"\x91\xc3",  # true == 1
        b"\xdc\x00\x01\x06",
        b"\x91\xcb\x40\x18\x00\x00\x00\x00\x00\x00",
        b"\x91\x06\xc0",
        b"\x92\x06\x06",
        b"\xc7\x00\x06",  # an extension is a pair, too
        b"\x80",
        b"\xa0",
        b"\xc1",
    ],
)
def test_what_only_resembles_finished_is_refused(data):
    with pytest.raises((Malformed, NonCanonical)):
        decode(data)


@pytest.mark.parametrize("tag", [0, 11, 255, -1, None, "", (), 2**64 - 1])
def test_an_unknown_tag_is_refused(tag):
    with pytest.raises(Malformed, match=r"^no message has tag|^a tag is an integer"):
        decode(msgpack.packb([tag, 1]))


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        (b"\x91", b"\x00"),
        (b"\x92", b"\x00" * 2),
        (b"\x92\x01", b"\x00"),
        (b"\x92\x63", b"\x00"),
        (b"\x92\x01\x97", b"\x00" * 7),
    ],
    ids=["tag", "tag and more", "header", "unknown field", "network"],
)
def test_nesting_of_any_depth_is_refused(opening, closing):
    for depth in (1, 10, 500, *range(900, 1100), 10_000, MESSAGE_BYTES_MAX - 10):
        with pytest.raises(Malformed, match=r"^(?!.*extra data)") as caught:
            decode(opening + b"\x91" * depth + closing)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\xff\xff\xff\xff",  # declared: an array of 2^32 - 1
        b"\xdc\x04\x01",  # one more than there are members
        b"\x92\x01\xdd\x7f\xff\xff\xff",
        b"\x93\x0a\x93\x00\x00\x00\xdd\xff\xff\xff\xff",  # a report of so many members
        b"\xc6\xff\xff\xff\xff",  # bytes
        b"\xdb\xff\xff\xff\xff",  # text
        b"\xdf\xff\xff\xff\xff",  # a map
        b"\xc9\xff\xff\xff\xff\x01",  # an extension
    ],
)
def test_a_declared_length_takes_no_memory(bomb):
    with pytest.raises(Malformed, match=r"^not a message"):
        decode(bomb)


def test_lengths_are_bounded_before_the_fields_are_looked_at():
    for field in (b"x" * (max(LENGTHS) + 1), "x", {1: 1}, msgpack.ExtType(1, b"x"), [0] * (MEMBERS_MAX + 1)):
        with pytest.raises(Malformed, match=r"^not a message: .*exceeds"):
            decode(msgpack.packb([2, field]))


def test_a_message_of_more_bytes_than_the_bound_is_not_even_parsed():
    with pytest.raises(Malformed, match=f"{MESSAGE_BYTES_MAX + 1} bytes"):
        decode(b"\x91\x06" + bytes(MESSAGE_BYTES_MAX - 1))
    with pytest.raises(Malformed, match="extra data"):
        decode(b"\x91\x06" + bytes(MESSAGE_BYTES_MAX - 2))


def test_the_largest_certificate_fits_and_a_larger_one_does_not_decode():
    echoes = [(member, b"\xff" * 64) for member in range(MEMBERS_MAX)]
    largest = Certificate(LARGEST, tuple(echoes))
    assert decode(encode(largest)) == largest
    assert len(encode(largest)) <= MESSAGE_BYTES_MAX
    with pytest.raises(Malformed):
        decode(encode(Certificate(LARGEST, (*echoes, (0, b"\xff" * 64)))))


def test_the_largest_holding_fits_and_a_larger_one_does_not_decode():
    slot, digest, most = LARGEST.header.slot, b"\xff" * 32, 8 * LENGTH_MAX
    largest = Holding(((slot, digest),) * HELD_MAX, ((digest, most),) * HELD_MAX)
    assert decode(encode(largest)) == largest
    assert len(encode(largest)) <= MESSAGE_BYTES_MAX
    for larger in (
        replace(largest, whole=(*largest.whole, (slot, digest))),
        replace(largest, parts=(*largest.parts, (digest, most))),
        replace(largest, parts=((digest, most + 1),)),
        Want(slot, digest, most + 1),
    ):
        with pytest.raises(Malformed):
            decode(encode(larger))


def test_the_largest_report_fits_and_a_larger_one_does_not_decode():
    everyone = tuple(range(MEMBERS_MAX))
    largest = Report(LARGEST.header.slot, everyone)
    assert decode(encode(largest)) == largest
    assert len(encode(largest)) <= 3 * MEMBERS_MAX
    with pytest.raises(Malformed, match="exceeds"):
        decode(encode(Report(LARGEST.header.slot, (*everyone, 0))))


def test_what_all_say_to_all_takes_a_few_hundred_bytes_in_the_largest_committee():
    slot, last = LARGEST.header.slot, MEMBERS_MAX - 1
    proof = Evidence(Equivocation(LARGEST, LARGEST))
    for message, most in ((DigestEcho(LARGEST), 180), (Ready(slot, last, b"\xff" * 32), 60), (proof, 360)):
        assert decode(encode(message)) == message
        assert len(encode(message)) <= most


SLOT = [300, 1, 2]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([8], "tag 8 and 0 fields"),
        ([8, SLOT], "array of 7"),
        ([8, 3], "array of 7"),
        ([8, SLOT, 3], "tag 8 and 2 fields"),
        ([9, SLOT, 3], "tag 9 and 2 fields"),
        ([9, SLOT, 3, b"d" * 32, 0], "tag 9 and 4 fields"),
        ([9, SLOT, 3, b"d" * 31], "expected 32 bytes"),
        ([9, SLOT, 3, b"d" * 64], "expected 32 bytes"),
        ([9, SLOT, 3, None], "expected 32 bytes"),
        ([9, SLOT, MEMBERS_MAX, b"d" * 32], "0 to 1023"),
        ([9, SLOT, -1, b"d" * 32], "0 to 1023"),
        ([9, SLOT, True, b"d" * 32], "0 to 1023"),
        ([9, SLOT, 3.0, b"d" * 32], "0 to 1023"),
        ([9, [300, 1], 3, b"d" * 32], "array of 3"),
        ([9, [STEP_MAX + 1, 1, 2], 3, b"d" * 32], f"0 to {STEP_MAX}"),
        ([10, SLOT], "tag 10 and 1 fields"),
        ([10, SLOT, 3], "members are an array"),
        ([10, SLOT, b"\x00\x01"], "members are an array"),
        ([10, SLOT, None], "members are an array"),
        ([10, SLOT, [0, MEMBERS_MAX]], "0 to 1023"),
        ([10, SLOT, [0, -1]], "0 to 1023"),
        ([10, SLOT, [0, False]], "0 to 1023"),
        ([10, SLOT, [0, 1.0]], "0 to 1023"),
        ([10, SLOT, [[0, 1]]], "0 to 1023"),
        ([10, [300, 256, 2], [0, 1]], "0 to 255"),
    ],
)
def test_what_only_resembles_an_echo_to_all_a_ready_or_a_report_is_refused(fields, reason):
    with pytest.raises(Malformed, match=reason):
        decode(msgpack.packb(fields))


@pytest.mark.parametrize("delivered", [(), (1, 1), (2, 1), (0, 1, 2)])
def test_what_a_report_means_is_not_the_codecs_to_judge(delivered):
    assert decode(encode(Report(HEADER.slot, delivered))) == Report(HEADER.slot, delivered)


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"origin": MEMBERS_MAX}, "0 to 1023"),
        ({"origin": -1}, "0 to 1023"),
        ({"slot": Slot(STEP_MAX + 1)}, f"0 to {STEP_MAX}"),
        ({"slot": Slot(0, 256)}, "0 to 255"),
        ({"slot": Slot(0, 0, 65536)}, "0 to 65535"),
        ({"dtype": 256}, "0 to 255"),
        ({"length": LENGTH_MAX + 1}, f"0 to {LENGTH_MAX}"),
        ({"length": -1}, f"0 to {LENGTH_MAX}"),
        ({"digest": b"d" * 31}, "32 bytes"),
        ({"network": b"n" * 33}, "32 bytes"),
    ],
)
def test_every_field_of_a_header_is_bounded(fields, bound):
    values = {name: getattr(HEADER, name) for name in HEADER.__slots__}
    for kind in (Proposal, DigestEcho):
        with pytest.raises(Malformed, match=bound):
            decode(encode(kind(SignedHeader(Header(**{**values, **fields}), b"s" * 64))))


def test_signatures_are_64_bytes_wherever_they_are():
    for short in (
        Proposal(SignedHeader(HEADER, b"s" * 63)),
        DigestEcho(SignedHeader(HEADER, b"s" * 63)),
        Echo(HEADER.slot, 3, b""),
        Certificate(SIGNED, ((1, b"e" * 63),)),
        Proposal(SignedHeader(HEADER, b"s" * 128)),
    ):
        with pytest.raises(Malformed, match="64 bytes"):
            decode(encode(short))


def test_echoes_may_be_signed_jointly_and_nothing_else():
    taken = []
    for length in range(400):
        with suppress(Malformed):
            assert decode(encode(Echo(HEADER.slot, 3, b"e" * length))) == Echo(HEADER.slot, 3, b"e" * length)
            taken.append(length)
    assert taken == [64, *range(128, 321, 32)]


def test_the_largest_certificate_of_joint_signatures_fits():
    echoes = tuple((member, b"\xff" * max(LENGTHS)) for member in range(joint.JOINT_MEMBERS_MAX))
    largest = Certificate(LARGEST, echoes)
    assert decode(encode(largest)) == largest


NETWORK = b"n" * 32
LIAR = Identity.generate()
VERIFY = KeyRing([Identity.generate().public_key, LIAR.public_key])


def claimed(digest, step=300):
    header = Header(NETWORK, 1, Slot(step, 1, 2), FLOAT32, 1000, digest * 32)
    return SignedHeader(header, LIAR.sign(header.proposal().statement))


EVIDENCE = Equivocation.of(claimed(b"b"), claimed(b"a"))


def holds(data):
    try:
        evidence = decode_evidence(data)
    except WireError:
        return False
    assert encode_evidence(evidence) == data
    return evidence.holds(NETWORK, VERIFY)


def test_evidence_comes_back_and_holds():
    data = encode_evidence(EVIDENCE)
    assert decode_evidence(data) == EVIDENCE
    assert holds(data)


def test_no_byte_of_evidence_can_be_changed():
    """Also: no second file proves the same, so evidence is counted once."""
    data = encode_evidence(EVIDENCE)
    rng = random.Random(0)
    for at in range(len(data)):
        for byte in {data[at] ^ 1, data[at] ^ 128, rng.randrange(256), 0, 255} - {data[at]}:
            assert not holds(data[:at] + bytes([byte]) + data[at + 1 :])
    assert not any(holds(data[:end]) for end in range(len(data)))
    assert not holds(data + b"\x00")
    assert not holds(data.removeprefix(EVIDENCE_MAGIC))


@pytest.mark.parametrize("data", [b"", b"p2pnode evidence 2\n\x90", encode(Proposal(EVIDENCE.first))])
def test_another_kind_of_file_is_told_apart(data):
    with pytest.raises(Malformed, match="not an evidence file"):
        decode_evidence(data)


@pytest.mark.parametrize(
    "unproven",
    [
        Equivocation(EVIDENCE.second, EVIDENCE.first),
        Equivocation(EVIDENCE.first, EVIDENCE.first),
        Equivocation.of(claimed(b"a"), claimed(b"b", step=301)),
        Equivocation(EVIDENCE.first, SignedHeader(EVIDENCE.second.header, EVIDENCE.first.signature)),
    ],
    ids=["swapped", "one header twice", "two slots", "one signature twice"],
)
def test_what_accuses_without_proof_does_not_hold(unproven):
    assert not holds(encode_evidence(unproven))


def test_evidence_of_another_network_does_not_hold():
    assert not EVIDENCE.holds(b"m" * 32, VERIFY)


@fuzz
@given(wire_values)
def test_any_evidence_file_is_evidence_or_refused(value):
    assert not holds(EVIDENCE_MAGIC + msgpack.packb(value))
    assert not holds(EVIDENCE_MAGIC + msgpack.packb([value, value]))


def test_refusals_do_not_depend_on_how_deep_the_caller_stands():
    def at_depth(depth):
        return at_depth(depth - 1) if depth else decodes_only_to_itself(b"\x91" * 600 + b"\x00")

    at_depth(sys.getrecursionlimit() - 300)
