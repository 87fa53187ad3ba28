"""Bytes ↔ messages: canonical msgpack, one encoding a message, every length bounded before memory is taken.

A message is an array `[tag, field, …]`; a signed header is flat inside it. Decoding checks types and bounds field by
field, then encodes again: bytes that differ are refused, so a message has exactly one encoding.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import msgpack

from p2pnode.errors import Malformed, NonCanonical
from p2pnode.joint import LENGTHS
from protocols.committee import MEMBERS_MAX
from protocols.effects import (
    Certificate,
    DigestEcho,
    Echo,
    Evidence,
    Hello,
    Message,
    Proposal,
    Ready,
    Report,
    Sighting,
)
from protocols.faults import Equivocation
from protocols.header import (
    DIGEST_BYTES,
    LENGTH_MAX,
    NETWORK_BYTES,
    SIGNATURE_BYTES,
    STEP_MAX,
    Digest,
    Header,
    PeerId,
    Signature,
    SignedHeader,
    Slot,
)

MESSAGE_BYTES_MAX = 128 * 1024
"""Largest message: a certificate takes 70 bytes an echo, and in networks of `joint.JOINT_MEMBERS_MAX` at most 327."""

HELD_MAX = MEMBERS_MAX
"""Vectors that a `Holding` names, of each kind; what is left out is sent again."""

_NBYTES_MAX = 8 * LENGTH_MAX
"""No vector has more bytes, in any format of numbers."""

EVIDENCE_MAGIC = b"p2pnode evidence 1\n"


@dataclass(frozen=True, slots=True)
class Want:
    """Please send the bytes of this digest, from this one on; they belong to this slot."""

    slot: Slot
    digest: Digest
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """Said first on every link, before the peer says again what it retains: what of it need not be sent.

    Args:
        whole: your vectors that came in for these slots, and are needed for them no more.
        parts: digests of which so many bytes are here: the rest is enough.
    """

    whole: tuple[tuple[Slot, Digest], ...] = ()
    parts: tuple[tuple[Digest, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """I took my last step; I go when my peers need nothing of me."""


WireMessage: TypeAlias = Message | Hello | Want | Holding | Finished | Evidence


class _Tag(IntEnum):
    PROPOSAL = 1
    ECHO = 2
    CERTIFICATE = 3
    SIGHTING = 4
    WANT = 5
    FINISHED = 6
    HELLO = 7
    DIGEST_ECHO = 8
    READY = 9
    REPORT = 10
    EVIDENCE = 11
    HOLDING = 12


def encode(message: WireMessage) -> bytes:
    """The one encoding of a message."""
    data: bytes = msgpack.packb(_fields(message))
    return data


def decode(data: bytes | memoryview) -> WireMessage:
    """The message that these bytes encode.

    Raises:
        Malformed: no message, or a field of the wrong type or out of its bounds.
        NonCanonical: not the message's one encoding.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise Malformed(f"a message of {len(data)} bytes; at most {MESSAGE_BYTES_MAX} are taken")
    message = _message(_unpack(data))
    if encode(message) != data:
        raise NonCanonical(f"a second encoding of a {type(message).__name__}")
    return message


def encode_evidence(evidence: Equivocation) -> bytes:
    """What an evidence file holds: every byte of it is signed, or fixed by the format."""
    headers: bytes = msgpack.packb(_proof_fields(evidence))
    return EVIDENCE_MAGIC + headers


def decode_evidence(data: bytes) -> Equivocation:
    """The evidence in a file; whether it holds is another question (`Equivocation.holds`).

    Raises:
        Malformed, NonCanonical: as `decode`.
    """
    if not data.startswith(EVIDENCE_MAGIC):
        raise Malformed("not an evidence file")
    first, second = _array(_unpack(data[len(EVIDENCE_MAGIC) :]), 2)
    evidence = Equivocation(_signed(first), _signed(second))
    if encode_evidence(evidence) != data:
        raise NonCanonical("a second encoding of an evidence file")
    return evidence


def _fields(message: WireMessage) -> list[Any]:
    match message:
        case Proposal(signed):
            return [_Tag.PROPOSAL, _signed_fields(signed)]
        case Echo(slot, origin, signature):
            return [_Tag.ECHO, _slot_fields(slot), origin, signature]
        case Certificate(signed, echoes):
            return [_Tag.CERTIFICATE, _signed_fields(signed), echoes]
        case Sighting(signed):
            return [_Tag.SIGHTING, _signed_fields(signed)]
        case DigestEcho(signed):
            return [_Tag.DIGEST_ECHO, _signed_fields(signed)]
        case Ready(slot, origin, digest):
            return [_Tag.READY, _slot_fields(slot), origin, digest]
        case Report(slot, delivered):
            return [_Tag.REPORT, _slot_fields(slot), delivered]
        case Want(slot, digest, offset):
            return [_Tag.WANT, _slot_fields(slot), digest, offset]
        case Holding(whole, parts):
            return [_Tag.HOLDING, [[_slot_fields(slot), digest] for slot, digest in whole], parts]
        case Finished():
            return [_Tag.FINISHED]
        case Hello(since):
            return [_Tag.HELLO, since]
        case Evidence(proof):
            return [_Tag.EVIDENCE, *_proof_fields(proof)]


def _slot_fields(slot: Slot) -> list[int]:
    return [slot.step, slot.exchange, slot.sub_round]


def _signed_fields(signed: SignedHeader) -> list[Any]:
    header = signed.header
    return [
        header.network,
        header.origin,
        _slot_fields(header.slot),
        header.dtype,
        header.length,
        header.digest,
        signed.signature,
    ]


def _proof_fields(proof: Equivocation) -> list[Any]:
    return [_signed_fields(proof.first), _signed_fields(proof.second)]


def _unpack(data: bytes | memoryview) -> Any:  # noqa: ANN401  anything a peer can say
    try:
        return msgpack.unpackb(
            data,
            use_list=False,
            raw=False,
            max_array_len=MEMBERS_MAX,
            max_bin_len=max(LENGTHS),
            max_str_len=0,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Malformed(f"not a message: {error or type(error).__name__}") from error


def _message(value: Any) -> WireMessage:  # noqa: ANN401
    if not isinstance(value, tuple) or not value:
        raise Malformed("a message is an array that begins with its tag")
    match value:
        case (_Tag.PROPOSAL, signed):
            return Proposal(_signed(signed))
        case (_Tag.ECHO, slot, origin, signature):
            return Echo(_slot(slot), _member(origin), _echo_signature(signature))
        case (_Tag.CERTIFICATE, signed, echoes):
            return Certificate(_signed(signed), _echoes(echoes))
        case (_Tag.SIGHTING, signed):
            return Sighting(_signed(signed))
        case (_Tag.DIGEST_ECHO, signed):
            return DigestEcho(_signed(signed))
        case (_Tag.READY, slot, origin, digest):
            return Ready(_slot(slot), _member(origin), _bytes(digest, DIGEST_BYTES))
        case (_Tag.REPORT, slot, delivered):
            return Report(_slot(slot), _members(delivered))
        case (_Tag.WANT, slot, digest, offset):
            return Want(_slot(slot), _bytes(digest, DIGEST_BYTES), _integer(offset, _NBYTES_MAX))
        case (_Tag.HOLDING, whole, parts):
            return Holding(_whole(whole), _parts(parts))
        case (_Tag.FINISHED,):
            return Finished()
        case (_Tag.HELLO, since):
            return Hello(_integer(since, STEP_MAX))
        case (_Tag.EVIDENCE, first, second):
            return Evidence(Equivocation(_signed(first), _signed(second)))
        case (int(tag), *fields):
            raise Malformed(f"no message has tag {tag} and {len(fields)} fields")
        case _:
            raise Malformed("a tag is an integer")


def _signed(value: Any) -> SignedHeader:  # noqa: ANN401
    network, origin, slot, dtype, length, digest, signature = _array(value, 7)
    header = Header(
        _bytes(network, NETWORK_BYTES),
        _member(origin),
        _slot(slot),
        _integer(dtype, 255),
        _integer(length, LENGTH_MAX),
        _bytes(digest, DIGEST_BYTES),
    )
    return SignedHeader(header, _bytes(signature, SIGNATURE_BYTES))


def _echoes(value: Any) -> tuple[tuple[PeerId, bytes], ...]:  # noqa: ANN401
    if not isinstance(value, tuple):
        raise Malformed("a certificate's echoes are an array")
    pairs = [_array(pair, 2) for pair in value]
    return tuple((_member(member), _echo_signature(signature)) for member, signature in pairs)


def _echo_signature(value: Any) -> Signature:  # noqa: ANN401
    if not isinstance(value, bytes) or len(value) not in LENGTHS:
        raise Malformed(f"an echo's signature has {SIGNATURE_BYTES} bytes, or a joint one's: up to {max(LENGTHS)}")
    return value


def _members(value: Any) -> tuple[PeerId, ...]:  # noqa: ANN401
    if not isinstance(value, tuple):
        raise Malformed("a report's members are an array")
    return tuple(_member(member) for member in value)


def _whole(value: Any) -> tuple[tuple[Slot, Digest], ...]:  # noqa: ANN401
    return tuple((_slot(slot), _bytes(digest, DIGEST_BYTES)) for slot, digest in _pairs(value))


def _parts(value: Any) -> tuple[tuple[Digest, int], ...]:  # noqa: ANN401
    return tuple((_bytes(digest, DIGEST_BYTES), _integer(nbytes, _NBYTES_MAX)) for digest, nbytes in _pairs(value))


def _slot(value: Any) -> Slot:  # noqa: ANN401
    step, exchange, sub_round = _array(value, 3)
    return Slot(_integer(step, STEP_MAX), _integer(exchange, 255), _integer(sub_round, 65535))


def _pairs(value: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401
    if not isinstance(value, tuple):
        raise Malformed("expected an array of pairs")
    return [_array(pair, 2) for pair in value]


def _array(value: Any, length: int) -> tuple[Any, ...]:  # noqa: ANN401
    if not isinstance(value, tuple) or len(value) != length:
        raise Malformed(f"expected an array of {length}")
    return value


def _integer(value: Any, most: int) -> int:  # noqa: ANN401
    if type(value) is not int or not 0 <= value <= most:
        raise Malformed(f"expected an integer from 0 to {most}")
    return value


def _member(value: Any) -> PeerId:  # noqa: ANN401
    return PeerId(_integer(value, MEMBERS_MAX - 1))


def _bytes(value: Any, length: int) -> bytes:  # noqa: ANN401
    if not isinstance(value, bytes) or len(value) != length:
        raise Malformed(f"expected {length} bytes")
    return value
