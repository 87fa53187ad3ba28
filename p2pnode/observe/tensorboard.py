"""What a node learns, as TensorBoard reads it: a file of events for each node, written as its status goes on.

The format is TensorFlow's: records, each with its length and masked CRC-32C checksums, of protocol buffers. Of these
three messages with a few fields are needed, which is less than to install what writes them in general.
"""

import struct
import time
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from p2pnode.errors import asking_disk

_CRC_POLYNOMIAL = 0x82F63B78
"""Castagnoli's, its bits reversed (RFC 3720, appendix B.4)."""

_MASK_DELTA = 0xA282EAD8
_FIXED64, _LENGTH, _FIXED32, _VARINT = 1, 2, 5, 0
_WALL_TIME, _STEP, _VERSION, _SUMMARY = 1, 2, 3, 5  # fields of Event
_VALUE = 1  # the field of Summary
_TAG, _SIMPLE_VALUE = 1, 2  # fields of Summary.Value


class Scalars:
    """Appends one node's loss, accuracy and seconds by phase to a file of its own.

    Args:
        folder: where TensorBoard looks; the node's files lie in a folder of its name there.
        name: the node's name.

    Raises:
        DiskError: if the file cannot be made.
    """

    def __init__(self, folder: Path, name: str) -> None:
        place, now = folder / name, time.time()
        with asking_disk(place):
            place.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(place / f"events.out.tfevents.{now:.6f}.p2pnode", "a")
        self._step = -1
        self._measured: tuple[float | None, float | None] = None, None
        self._write(_double(_WALL_TIME, now) + _bytes(_VERSION, b"brain.Event:2"))

    def note(self, told: Mapping[str, Any]) -> None:
        """Write what a status tells, if the node is a step further than it was, or its model was measured since.

        Raises:
            DiskError: if the disk is full.
        """
        measured = told["accuracy"], told["loss"]
        if told["step"] < self._step or (told["step"], measured) == (self._step, self._measured):
            return
        self._step, self._measured = told["step"], measured
        summary = b"".join(_bytes(_VALUE, _scalar(tag, value)) for tag, value in _scalars(told))
        self._write(_double(_WALL_TIME, time.time()) + _number(_STEP, self._step) + _bytes(_SUMMARY, summary))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: bytes) -> None:
        with asking_disk(Path(str(self._file.name))):
            self._file.write(_record(event))


def _scalars(told: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Tags and values; what was not measured yet has none."""
    for tag, value in (("accuracy", told["accuracy"]), ("loss", told["loss"])):
        if value is not None:
            yield f"test/{tag}", value
    for phase, seconds in told["phases"].items():
        yield f"seconds/{phase}", seconds


def _scalar(tag: str, value: float) -> bytes:
    return _bytes(_TAG, tag.encode()) + _varint(_SIMPLE_VALUE << 3 | _FIXED32) + struct.pack("<f", value)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes, a table look-up each."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_CRC_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = [_entry(byte) for byte in range(256)]


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH) + _varint(len(data)) + data


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | _FIXED64) + struct.pack("<d", value)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
