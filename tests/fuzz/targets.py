"""Everything that is read from outside, each as one function of bytes: what both layers of fuzzing are aimed at.

A target says whether the bytes are accepted. It raises where they are neither that nor refused by an error that the
function under test documents: that is a finding, and so is a hang, or memory beyond the named bound.
"""

import asyncio
import base64
import json
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from unittest.mock import patch

import blake3
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from p2pnode import identity
from p2pnode.codec import (
    EVIDENCE_MAGIC,
    MESSAGE_BYTES_MAX,
    decode,
    decode_evidence,
    encode,
    encode_evidence,
)
from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError, FrameTooLarge, JournalCorrupt, Malformed, NonCanonical
from p2pnode.genesis import Genesis
from p2pnode.identity import Identity, certificate_der, certified_key
from p2pnode.net.budget import Allowance, Budget
from p2pnode.net.conduct import Conduct
from p2pnode.net.lane import BulkLane, ControlLane
from p2pnode.storage.checkpoint import Checkpoint, Outbox, _checksum, load_checkpoint, save_checkpoint
from p2pnode.storage.journal import Journal
from p2pnode.storage.signer import DurableSigner
from p2pnode.storage.vectors import Verdict, digest_of
from protocols.faults import Fault
from protocols.header import Claim, PeerId, Slot
from tests.p2pnode.net.test_lane import HEAD_BYTES, FakeTransport, framed, on_wire
from tests.p2pnode.test_codec import EVIDENCE, ONE_OF_EACH
from tests.p2pnode.test_genesis import CHARTER

NETWORK = b"n" * 32
IDENTITY = Identity.of_seed(b"the key that fuzzing signs with.")
PASSPHRASE = b"secret"
CHEAP_SEALS = patch.multiple(
    identity, SEAL_PASSES=1, SEAL_MEMORY_BYTES=8192, SEAL_PASSES_MAX=1, SEAL_MEMORY_BYTES_MAX=9000
)
PLENTY = Allowance(1e12, 1e15, 1e12)

_MEMORY = Path("/dev/shm")
"""Files that are read back at once need no disk."""

_FOLDER = tempfile.TemporaryDirectory(prefix="p2pnode-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)


@dataclass(frozen=True)
class Target:
    """Something that reads bytes.

    Args:
        reads: whether it accepts these; raises on a finding.
        samples: bytes that it accepts, of every kind that there is.
        words: pieces that such bytes are made of, to be put in elsewhere.
    """

    reads: Callable[[bytes], bool]
    samples: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()


def message(data: bytes) -> bool:
    """One message's one encoding, or refused."""
    try:
        read = decode(data)
    except (Malformed, NonCanonical):
        return False
    assert encode(read) == data
    return True


def evidence(data: bytes) -> bool:
    """Evidence in its one encoding, or refused; with and without the beginning that every file of it has."""
    return any([_evidence(data), _evidence(EVIDENCE_MAGIC + data)])


def _evidence(data: bytes) -> bool:
    try:
        read = decode_evidence(data)
    except (Malformed, NonCanonical):
        return False
    assert encode_evidence(read) == data
    return True


class _Taker:
    """Reads what a lane brings as a node does, and holds it against what was sent."""

    def __init__(self) -> None:
        self.taken = 0
        self.lost_for: list[BaseException | None] = []

    def message(self, data: bytes) -> None:
        self.taken += 4 + len(data)
        decode(data)

    def judge(self, slot: Slot, digest: bytes, nbytes: int) -> Verdict:
        if nbytes != VECTOR.nbytes:
            return Verdict.REFUSE
        return list(Verdict)[slot.step % len(Verdict)]

    def vector(self, digest: bytes, vector: np.ndarray) -> None:
        assert vector.nbytes == VECTOR.nbytes
        assert digest_of(vector) == digest
        self.taken += 1

    def again(self, digest: bytes) -> None:
        """Nothing was left of it: the rest of what was begun elsewhere is read and forgotten."""

    def lost(self, reason: BaseException | None) -> None:
        self.lost_for.append(reason)


VECTOR = np.arange(4, dtype=np.float32)

_SIZES = 4
"""Bytes before a stream that say in pieces of which sizes it comes."""


def _pieces(data: bytes) -> tuple[bytes, Iterator[int]]:
    """A stream, and the sizes of its pieces, without end."""
    return data[_SIZES:], cycle([1 + size * size for size in data[:_SIZES]] or [1])


def control_lane(data: bytes) -> bool:
    """However it is cut, a stream is the messages that it frames, up to the first that is none."""
    stream, sizes = _pieces(data)
    whole, refused = _whole_frames(stream)
    taker, transport = _Taker(), FakeTransport()
    lane = ControlLane(taker, Budget(PLENTY), MESSAGE_BYTES_MAX)
    lane.connection_made(transport)
    fed = 0
    while fed < len(stream) and lane.open:
        size = next(sizes)
        lane.data_received(stream[fed : fed + size])
        fed += size
        assert not lane.open or min(fed, len(stream)) - taker.taken < 4 + MESSAGE_BYTES_MAX, "memory"
    assert taker.taken == whole
    assert lane.open == (refused is None)
    assert type(lane.failure) is (refused or type(None))
    return lane.open


def _whole_frames(stream: bytes) -> tuple[int, type[Exception] | None]:
    """How many bytes of frames are handed on, and why it ends there."""
    at = 0
    while len(stream) - at >= 4:
        (length,) = struct.unpack_from(">I", stream, at)
        if length > MESSAGE_BYTES_MAX:
            return at, FrameTooLarge
        if at + 4 + length > len(stream):
            break
        frame = stream[at + 4 : at + 4 + length]
        at += 4 + length
        try:
            decode(frame)
        except (Malformed, NonCanonical) as error:
            return at, type(error)
    return at, None


def bulk_lane(data: bytes) -> bool:
    """However it is cut, a stream is vectors that hash to their digests, or ends; and there is always room to read."""
    stream, sizes = _pieces(data)
    taker, transport = _Taker(), FakeTransport()
    lane = BulkLane(taker, Budget(PLENTY), MESSAGE_BYTES_MAX)
    lane.connection_made(transport)
    while stream and transport.reading and lane.open:
        room = lane.get_buffer(-1)
        assert 0 < len(room) <= max(HEAD_BYTES, VECTOR.nbytes), "memory"
        taken = min(len(room), next(sizes), len(stream))
        room[:taken] = stream[:taken]
        lane.buffer_updated(taken)
        stream = stream[taken:]
    assert lane.open or type(lane.failure) is Malformed
    return lane.open


def genesis(data: bytes) -> bool:
    """A charter that names one network, or a ConfigError."""
    path = _file(data)
    try:
        read = Genesis.load(path)
    except ConfigError as error:
        return _helps(error)
    assert len(read.network) == 32
    assert len(read.certificates_der) == len(read.members) == read.committee.n
    read.save(path)
    again = Genesis.load(path)
    assert again == read
    assert again.network == read.network
    return True


def config(data: bytes) -> bool:
    """A node's settings, or a ConfigError."""
    try:
        NodeConfig.load(_file(data))
    except ConfigError as error:
        return _helps(error)
    return True


def _helps(error: ConfigError) -> bool:
    """Whether it is short enough to be read; what is refused is not repeated at any length."""
    assert len(max(str(error).splitlines(), key=len)) < 2000
    return False


def journal(data: bytes) -> bool:
    """Records, of which the file then holds exactly those; or JournalCorrupt."""
    path = _file(data)
    try:
        kept = Journal(path)
    except JournalCorrupt:
        return False
    kept.close()
    sound = path.read_bytes()
    assert data.startswith(sound)
    Journal.make(path, kept.records)
    assert path.read_bytes() == sound
    return True


def signer(data: bytes) -> bool:
    """Whatever lies in whole records is what a key signed, the same whenever it is read; or JournalCorrupt."""
    path = Path(_FOLDER.name) / "journal"
    Journal.make(path, [bytes([3]) + IDENTITY.public_key, *_records(data)])
    try:
        first = DurableSigner(IDENTITY, path)
        first.close()
    except JournalCorrupt:
        return False
    with_more = DurableSigner(IDENTITY, path)
    assert with_more.floor == first.floor
    claim = Claim(2**64 - 1, "a place of its own", b"statement")
    assert with_more.promise(claim)
    with_more.forget_before(with_more.floor + 1) if with_more.floor < 2**64 - 1 else with_more.flush()
    with_more.close()
    again = DurableSigner(IDENTITY, path)
    again.close()
    assert again.promised(claim.place) == claim.statement
    assert again.floor == with_more.floor
    return True


def _records(data: bytes) -> Iterator[bytes]:
    """Each behind its length, of one byte."""
    while data:
        yield data[1 : 1 + data[0]]
        data = data[1 + data[0] :]


def checkpoint(data: bytes) -> bool:
    """A checkpoint that is saved as it was read, or none and the reason; with the checksum that it has, and with the
    right one."""
    return any(_checkpoint(each) for each in (data, *_with_checksum(data)))


def _checkpoint(data: bytes) -> bool:
    path, reasons = _file(data), []
    read = load_checkpoint(path, NETWORK, lambda _, why: reasons.append(why))
    assert (read is None) == bool(reasons)
    if read is None:
        return False
    save_checkpoint(path, NETWORK, read)
    again = load_checkpoint(path, NETWORK)
    assert again is not None
    assert (again.step, _frozen(again.tensors)) == (read.step, _frozen(read.tensors))
    return True


def _frozen(tensors: dict[str, np.ndarray]) -> dict[str, tuple[object, ...]]:
    return {name: (tensor.dtype, tensor.shape, tensor.tobytes()) for name, tensor in tensors.items()}


def outbox(data: bytes) -> bool:
    """A vector, or none and the reason; with the checksum that it has, and with the right one."""
    return any(_outbox(each) for each in (data, *_with_checksum(data)))


def _outbox(data: bytes) -> bool:
    folder, reasons = Path(_FOLDER.name) / "outbox", []
    slot = Slot(7, 1, 2)
    kept = Outbox(folder, NETWORK, lambda _, why: reasons.append(why))
    (folder / "00000000000000000007-001-00002.safetensors").write_bytes(data)
    vector = kept.get(slot)
    assert vector is None or vector.dtype in (np.float32, np.uint16, np.float16)
    assert list(kept.kept()) == ([] if vector is None else [slot])
    return vector is not None


_NUMPY = {"F32": np.float32, "F64": np.float64, "F16": np.float16, "I64": np.int64, "U8": np.uint8, "BOOL": np.bool_}


def _with_checksum(data: bytes) -> Iterator[bytes]:
    """The same file, if it is one, with the right checksum in it."""
    try:
        tensors = {name: _array(**told) for name, told in deserialize(data)}
        header = json.loads(data[8 : 8 + struct.unpack_from("<Q", data)[0]])
    except (SafetensorError, ValueError, KeyError, RecursionError):
        return
    metadata = {key: value for key, value in header.get("__metadata__", {}).items() if key != "checksum"}
    yield _safetensors(tensors, metadata)


def _safetensors(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    return save(tensors, {**metadata, "checksum": _checksum(tensors, metadata)})


def _array(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    return np.frombuffer(data, _NUMPY[dtype]).reshape(shape)


def conduct(data: bytes) -> bool:
    """What is held against peers, as it is written again; or nothing of it; with the checksum that it has, and with the
    right one."""
    sealed = b"p2pnode conduct 1\n" + blake3.blake3(data).digest() + data
    return any([_conduct(data), _conduct(sealed)])


def _conduct(data: bytes) -> bool:
    read = Conduct(7, 2, 60.0, 3600.0)
    if not read.restore(data, NETWORK, 10.0, 2e9):
        assert len(read) == 0
        return False
    assert len(read) <= 7
    assert all(0 <= read.score(PeerId(peer), 10.0) < float("inf") for peer in range(7))
    assert all(0 <= read.banned(PeerId(peer), 10.0) <= 86400 for peer in range(7))
    for peer in range(7):
        assert 0 <= read.charge(PeerId(peer), Fault.MALFORMED, 11.0) <= 86400
    again = Conduct(7, 2, 60.0, 3600.0)
    assert again.restore(read.dump(NETWORK, 12.0, 2e9), NETWORK, 12.0, 2e9)
    return True


def certificate(data: bytes) -> bool:
    """A certificate of an Ed25519 key, or ValueError; as text, and as the bytes that the text stands for."""
    return any([_certificate(data), _certificate(_armoured(data, "CERTIFICATE"))])


def _armoured(data: bytes, label: str) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.b64encode(data).decode()}\n-----END {label}-----\n".encode()


def _bare(text: bytes) -> bytes:
    return base64.b64decode(b"".join(text.splitlines()[1:-1]))


def _certificate(data: bytes) -> bool:
    try:
        text = data.decode()
        key = certified_key(text)
    except ValueError:
        return False
    assert len(key) == 32
    assert certificate_der(text)
    return True


def key(data: bytes) -> bool:
    """A key, or a ConfigError; as text, as the bytes that the text stands for, and as what is sealed under a right
    checksum."""
    return any([_key(each) for each in (data, _armoured(data, "PRIVATE KEY"), identity._armoured(data))])  # noqa: C419


def _key(data: bytes) -> bool:
    try:
        with CHEAP_SEALS:
            read = Identity.load(_file(data), lambda: PASSPHRASE)
    except ConfigError as error:
        return _helps(error)
    assert len(read.sign(b"statement")) == 64
    return True


def _file(data: bytes) -> Path:
    path = Path(_FOLDER.name) / "file"
    path.write_bytes(data)
    return path


def _messages() -> list[bytes]:
    return [encode(each) for each in ONE_OF_EACH]


def _streams() -> list[bytes]:
    return [bytes([0, 3, 1, 9]) + framed(*_messages()), bytes([200] * _SIZES) + framed(*_messages()[:3])]


def _vectors() -> list[bytes]:
    steps = [step for step, verdict in enumerate(Verdict) if verdict in (Verdict.TAKE, Verdict.DISCARD)]
    sent = asyncio.run(_sent([(Slot(step, 1, 2), VECTOR) for step in steps]))
    return [bytes([size] * _SIZES) + sent for size in (0, 3, 200)]


async def _sent(vectors: list[tuple[Slot, np.ndarray]]) -> bytes:
    return b"".join(on_wire(each) for each in vectors)


def _charters() -> list[bytes]:
    small = {"f": 0, "training": CHARTER["training"], "members": CHARTER["members"][:1]}
    return [json.dumps(charter).encode() for charter in (CHARTER, small)]


def _signed_records() -> list[bytes]:
    """Two places signed, a floor, and one more: as the signer writes them."""
    path = Path(_FOLDER.name) / "sample"
    path.unlink(missing_ok=True)
    DurableSigner.begin(IDENTITY, path)
    kept = DurableSigner(IDENTITY, path)
    for step in (3, 9):
        assert kept.promise(Claim(step, f"echo {step} of ä", b"statement" * step))
    kept.flush()
    before = kept._journal.path.read_bytes()
    kept.forget_before(5)
    assert kept.promise(Claim(2**63, "later", b""))
    kept.close()
    return [before, path.read_bytes()]


def _record_lists() -> list[bytes]:
    def listed(file: bytes) -> bytes:
        path = _file(file)
        kept = Journal(path)
        kept.close()
        return b"".join(bytes([len(record)]) + record for record in kept.records[1:])

    return [listed(file) for file in _signed_records()]


def _checkpoints() -> list[bytes]:
    path = Path(_FOLDER.name) / "sample"
    out = []
    for tensors in ({}, {"model": VECTOR.reshape(2, 2), "momentum": VECTOR}):
        save_checkpoint(path, NETWORK, Checkpoint(7, tensors))
        out.append(path.read_bytes())
    return out


def _outboxes() -> list[bytes]:
    return [_safetensors({"vector": VECTOR}, {"network": NETWORK.hex()})]


def _conducts() -> list[bytes]:
    kept = Conduct(7, 2, 60.0, 3600.0)
    for peer, fault in ((1, Fault.EQUIVOCATED), (2, Fault.MALFORMED), (6, Fault.OUT_OF_TURN)):
        kept.charge(PeerId(peer), fault, 9.0)
    sealed = kept.dump(NETWORK, 10.0, 2e9)
    return [sealed, sealed[sealed.index(b"{") :]]


def _keys() -> list[bytes]:
    path = Path(_FOLDER.name) / "sample"
    path.unlink(missing_ok=True)
    IDENTITY.save(path)
    with CHEAP_SEALS:
        sealed = identity._sealed(_bare(IDENTITY.pem())[-32:], PASSPHRASE)
    return [path.read_bytes(), _bare(path.read_bytes()), sealed, _bare(sealed)[:-16]]


def _certificates() -> list[bytes]:
    text = IDENTITY.certificate("a").encode()
    return [text, _bare(text)]


_MSGPACK = (
    *(bytes([byte]) for byte in (0x80, 0x90, 0x91, 0x97, 0xA0, 0xC0, 0xC1, 0xC3, 0xC4, 0xCA, 0xCB, 0xD4, 0xE0)),
    *(bytes([prefix]) + b"\xff" * 4 for prefix in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)),
    *(bytes([prefix]) + b"\0" * (width - 1) + b"\1" for prefix, width in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8))),
    b"\x91" * 1100,
    b"\xc4\x40",
    b"\xc4\x20",
)
_FRAMES = (b"\0\0\0\0", b"\0\2\0\0", b"\0\2\0\1", b"\xff\xff\xff\xff", b"\0\0\0\2\x91\x06")
_JSON = (
    *(b"null", b"true", b"NaN", b"Infinity", b"-1", b"1e999", b"0.5", b'""', b"{}", b"[]", b"9" * 5000, b'"\\ud800"'),
    *(b"[" * 1100, b'{"a":' * 1100, b"\xef\xbb\xbf", b"\xff"),
)
_TOML = (b"\n[a]\n", b"\n[[a]]\n", b"=", b"inf", b"nan", b'"""', b"0x", b"1979-05-27", b"[" * 1100, b"9" * 5000)
_TENSORS = (b'"F64"', b'"I64"', b'"BOOL"', b'"BF16"', b'"F8_E4M3"', b'"step":"x"', b"[0]", b"[]", b"\xff" * 8)
_DER = (
    b"\x30\x80",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x06\x03\x2b\x65\x70",
    b"\x04\x20",
    b"\x05\x00",
    b"\xa0\x03\x02\x01\x03",
)

TARGETS = {
    "message": Target(message, _messages, _MSGPACK),
    "evidence": Target(evidence, lambda: [encode_evidence(EVIDENCE)], _MSGPACK),
    "control-lane": Target(control_lane, _streams, (*_FRAMES, *_MSGPACK)),
    "bulk-lane": Target(bulk_lane, _vectors, (b"\0" * 7 + b"\x10", b"\xff" * 8)),
    "genesis": Target(genesis, _charters, _JSON),
    "config": Target(config, lambda: [b'name = "a"\nlisten = "h:1"\nlinger_s = 1.5\nban_s = 0.0\n'], _TOML),
    "journal": Target(journal, _signed_records, (b"\0" * 512, b"\xff")),
    "signer": Target(signer, _record_lists, (b"\x01", b"\x02", b"\x03", b"\0", b"\xff")),
    "checkpoint": Target(checkpoint, _checkpoints, (*_TENSORS, *_JSON)),
    "outbox": Target(outbox, _outboxes, (*_TENSORS, *_JSON)),
    "conduct": Target(conduct, _conducts, _JSON),
    "certificate": Target(certificate, _certificates, _DER),
    "key": Target(key, _keys, _DER),
}
