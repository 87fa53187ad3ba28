"""Events for TensorBoard: records whose checksums hold, of messages that say what the status said."""

import struct
from types import SimpleNamespace

import pytest

from p2pnode.errors import DiskError
from p2pnode.observe.tensorboard import Scalars, crc32c

STATUS = {"step": 3, "accuracy": None, "loss": None, "phases": {"gradient": 0.5, "idle": 300.25}}


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """(field, value) of a protocol buffer, as its wire format tells them apart."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        match key & 7:
            case 0:
                value, at = varint(data, at)
            case 1:
                value, at = struct.unpack_from("<d", data, at)[0], at + 8
            case 2:
                length, at = varint(data, at)
                value, at = data[at : at + length], at + length
            case 5:
                value, at = struct.unpack_from("<f", data, at)[0], at + 4
        yield key >> 3, value


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def events(data):
    """The events of a file; fails where a checksum does not hold."""
    at, read = 0, []
    while at < len(data):
        length, checksum = struct.unpack_from("<QI", data, at)
        assert checksum == masked(data[at : at + 8])
        body = data[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length) == (masked(body),)
        at += 16 + length
        told = dict(fields(body))
        values = [dict(fields(value)) for _, value in fields(told.get(5, b""))]
        scalars = {value[1].decode(): value[2] for value in values}
        version = told.get(3, b"").decode()
        read.append(SimpleNamespace(at=told[1], step=told.get(2, 0), version=version, scalars=scalars))
    return read


def test_the_checksum_is_the_one_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4


def test_each_new_step_is_an_event_with_what_is_known_of_it(tmp_path):
    scalars = Scalars(tmp_path / "board", "node0")
    for told in (STATUS, STATUS, STATUS | {"step": 300, "accuracy": 0.75, "loss": 1.5}, STATUS | {"step": 200}):
        scalars.note(told)
    scalars.close()
    [file] = (tmp_path / "board" / "node0").iterdir()
    assert "tfevents" in file.name
    version, first, last = events(file.read_bytes())
    assert version.version == "brain.Event:2"
    assert (first.step, first.scalars) == (3, {"seconds/gradient": 0.5, "seconds/idle": 300.25})
    assert (last.step, last.scalars["test/accuracy"], last.scalars["test/loss"]) == (300, 0.75, 1.5)
    assert version.at <= first.at <= last.at


def test_a_model_that_is_measured_after_its_step_was_written_is_written_again(tmp_path):
    scalars = Scalars(tmp_path, "node0")
    scalars.note(STATUS)
    scalars.note(STATUS | {"accuracy": 0.5, "loss": 2.0})
    scalars.close()
    [file] = (tmp_path / "node0").iterdir()
    assert [(event.step, event.scalars.get("test/accuracy")) for event in events(file.read_bytes())[1:]] == [
        (3, None),
        (3, 0.5),
    ]


def test_a_folder_that_cannot_be_made_is_told_with_a_remedy(tmp_path):
    (tmp_path / "board").touch()
    with pytest.raises(DiskError, match=r"Remedy: "):
        Scalars(tmp_path / "board", "node0")
