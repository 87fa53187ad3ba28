"""The two lanes of a link, as transport protocols: framed messages, and vectors received straight into their memory.

Neither lane knows what it carries for. Both are told who is at the other end by the handshake, and close on any
byte that no correct peer sends.
"""

import asyncio
import struct
import time
from collections import deque
from typing import Protocol, cast

import blake3
import numpy as np

from p2pnode.codec import MESSAGE_BYTES_MAX
from p2pnode.errors import FrameTooLarge, LinkError, Malformed, P2PNodeError, WireError
from p2pnode.net.budget import Budget
from p2pnode.net.memory import Memory
from p2pnode.storage.vectors import Announced, Verdict
from protocols.header import DIGEST_BYTES, Digest, PeerId, Slot

_LENGTH = struct.Struct(">I")
_BULK_HEAD = struct.Struct(f">QBHQQ{DIGEST_BYTES}s")

_PIECE_BYTES = 256 * 1024
"""Vectors are handed to the transport in pieces, one a turn of the loop: a message waits for one to be encrypted, not
for all that the socket takes."""

_TURN_BYTES = 1024 * 1024
"""What is read of vectors in one turn: the rest may come as fast as it is read, and messages would wait for its end."""

_WRITE_BUFFER_BYTES_MAX = 1024 * 1024
_SCRATCH_BYTES = 64 * 1024

_DEBT_MIN_S = 0.05
"""Who owes something waits so long at least: to stop and go on for each message costs more than the message."""


_MEMORY = Memory()


class Receiver(Protocol):
    """Who takes what the lanes bring."""

    def message(self, data: bytes) -> None:
        """One framed message; raises WireError if it is none."""

    def judge(self, slot: Slot, digest: Digest, nbytes: int) -> Verdict:
        """What to do with a vector that is about to come."""

    def vector(self, digest: Digest, vector: Announced) -> None:
        """The bytes of a whole vector, which hash to `digest`."""

    def again(self, digest: Digest) -> None:
        """What came from an offset cannot be used: all of the vector is to be asked for."""

    def lost(self, reason: BaseException | None) -> None:
        """The lane is closed, for this reason if it is our doing."""


class Lane(asyncio.BaseProtocol):
    """What both lanes share: their transport, its end, counting, and the peer's budget."""

    def __init__(self, receiver: Receiver, budget: Budget) -> None:
        self.receiver = receiver
        self.budget = budget
        self.transport: asyncio.Transport | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        self.closed = asyncio.Event()
        self.predecessor: asyncio.BaseProtocol | None = None
        self.failure: P2PNodeError | None = None
        """Why we closed it, if we did."""
        self._debt: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's TLS transport is one in all but its bases

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._debt is not None:
            self._debt.cancel()
        if self.predecessor is not None:
            self.predecessor.connection_lost(exc)
        self.closed.set()
        self.receiver.lost(self.failure)

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def resume(self) -> None:
        """Go on reading, unless the peer owes something."""
        if self.transport is not None and self.open and self._debt is None and not self.transport.is_reading():
            self.transport.resume_reading()

    def _stop_reading(self) -> None:
        if self.transport is not None and self.open and self.transport.is_reading():
            self.transport.pause_reading()

    def _owes(self, seconds: float) -> None:
        """Read nothing for so long."""
        if seconds and self._debt is None:
            self._debt = asyncio.get_running_loop().call_later(max(seconds, _DEBT_MIN_S), self._paid)
            self._stop_reading()

    def _paid(self) -> None:
        self._debt = None
        self.resume()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, error: P2PNodeError) -> None:
        self.failure = self.failure or error
        self.close()


class ControlLane(Lane, asyncio.Protocol):
    """Messages, each behind its length (4 bytes, big endian).

    Args:
        receiver: takes the messages.
        budget: is charged for each message before it is decoded.
        backlog_bytes_max: unsent bytes above which the peer is given up; it hears all again when it is back.
    """

    def __init__(self, receiver: Receiver, budget: Budget, backlog_bytes_max: int) -> None:
        super().__init__(receiver, budget)
        self._backlog_bytes_max = backlog_bytes_max
        self._buffer = bytearray()
        """What was read and not taken: of one read of the socket, and of a message that is not whole."""
        self._paused = False
        self._taking = False

    def send(self, message: bytes) -> None:
        """Queue a message; the order is kept."""
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write(_LENGTH.pack(len(message)) + message)
        self.bytes_sent += _LENGTH.size + len(message)
        if self.transport.get_write_buffer_size() > self._backlog_bytes_max:
            self._fail(LinkError(f"more than {self._backlog_bytes_max} bytes of messages wait for the peer"))

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._buffer += data
        self._take_frames()

    def pause(self, paused: bool) -> None:
        """Stop or go on taking messages, from the very next one."""
        if paused is self._paused:
            return
        self._paused = paused
        if paused:
            self._stop_reading()
        else:
            self.resume()

    def resume(self) -> None:
        self._take_frames()
        if not self._paused:
            super().resume()

    def _take_frames(self) -> None:
        if self._taking:  # a message that makes us go on is still being taken
            return
        self._taking = True
        try:
            del self._buffer[: self._frames()]
        except WireError as error:
            self._fail(error)
        finally:
            self._taking = False

    def _frames(self) -> int:
        """Take what may be taken; how many bytes of the buffer that was."""
        position = 0
        while self.open and not self._paused and not self._debt and len(self._buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, position)
            if length > MESSAGE_BYTES_MAX:
                raise FrameTooLarge(f"a message of {length} bytes; at most {MESSAGE_BYTES_MAX} are taken")
            begin, end = position + _LENGTH.size, position + _LENGTH.size + length
            if end > len(self._buffer):
                break
            self._owes(self.budget.message(end - position, time.monotonic()))
            self.receiver.message(bytes(self._buffer[begin:end]))
            position = end
        return position


class Arrival:
    """A vector that is on its way in: its memory, how far it is filled, and the hash of that.

    It outlives the lane that began it: another one may go on with it (`Shelf`).
    """

    def __init__(self, nbytes: int) -> None:
        self.vector = _MEMORY.take(nbytes)
        self.filled = 0
        self.senders: set[PeerId] = set()
        self._hasher = blake3.blake3()
        self._bytes = self.vector.data

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def room(self) -> memoryview:
        """Where the next bytes go."""
        return self._bytes[self.filled : self.filled + _TURN_BYTES]

    @property
    def whole(self) -> bool:
        return self.filled == len(self)

    @property
    def digest(self) -> Digest:
        """Of what is here."""
        return self._hasher.digest()

    def fill(self, nbytes: int) -> None:
        """So many bytes came. They are hashed while they are near the core: a thread that did it beside the loop took
        longer in all, and what waited for a core was the loop."""
        begin, self.filled = self.filled, self.filled + nbytes
        self._hasher.update(self._bytes[begin : self.filled])


class Shelf(Protocol):
    """Where a lane that is lost leaves the vector that it is in the middle of, for the next one."""

    def keep(self, digest: Digest, arrival: Arrival) -> None: ...

    def resume(self, digest: Digest, offset: int) -> Arrival | None:
        """What was left of this vector, if it ends at the offset."""

    def spoil(self, digest: Digest) -> None:
        """What several peers sent of it does not fit together."""


class NoShelf:
    """Keeps nothing: what is cut off is lost."""

    def keep(self, digest: Digest, arrival: Arrival) -> None:
        """It is forgotten."""

    def resume(self, digest: Digest, offset: int) -> Arrival | None:
        return None

    def spoil(self, digest: Digest) -> None:
        """Nothing is ever put together."""


class BulkLane(Lane, asyncio.BufferedProtocol):
    """Vectors, each behind its slot, length, offset and digest; received straight into the memory that is mixed.

    What is sent of a vector begins at its offset: what comes before it is at the receiver already, on its shelf.

    Args:
        receiver: judges and takes the vectors.
        budget: is charged for each vector that is thrown away, before its bytes are read.
        backlog_bytes_max: bytes of unsent vectors above which the peer is given up; it is told again when it is back.
        shelf: keeps the vector that is cut off, and gives back what was.
    """

    def __init__(self, receiver: Receiver, budget: Budget, backlog_bytes_max: int, shelf: Shelf | None = None) -> None:
        super().__init__(receiver, budget)
        self._backlog_bytes_max = backlog_bytes_max
        self._shelf: Shelf = shelf or NoShelf()
        self._queue: deque[tuple[Slot, Digest, int, memoryview]] = deque()
        self._sending: memoryview | None = None
        self._writable = True
        self._pumps = False
        self._head = bytearray(_BULK_HEAD.size)
        self._pending: tuple[Slot, Digest, int, int] | None = None
        self._arrival: Arrival | None = None
        self._into = memoryview(self._head)
        self._filled = 0
        self._left = 0
        self._read_in_turn = 0
        self._out_of_turn = False
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES_MAX)

    def close(self) -> None:
        self._shelve()  # at once: the link that replaces this one tells the peer what is here
        super().close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._shelve()
        super().connection_lost(exc)

    def _shelve(self) -> None:
        """Leave what came of a vector to whoever goes on with it."""
        if self._arrival is not None and self._arrival.filled:
            assert self._pending is not None
            self._shelf.keep(self._pending[1], self._arrival)
        self._next_head()

    # Sending: while the transport has room, a piece each turn of the loop.

    def send(self, slot: Slot, digest: Digest, vector: Announced, offset: int = 0) -> None:
        """Queue a vector, which must not change any more, from a byte on. Nothing is copied until there is room."""
        if any((queued, begin) == (digest, offset) for _, queued, begin, _ in self._queue):
            return
        if (
            len(self._queue) > 1
            and sum(len(view) - begin for _, _, begin, view in self._queue) > self._backlog_bytes_max
        ):
            self._fail(LinkError(f"more than {self._backlog_bytes_max} bytes of vectors wait for the peer"))
            return
        self._queue.append((slot, digest, offset, vector.view(np.uint8).data))
        self._pump()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pump()

    def _pump(self) -> None:
        if self._pumps or not self._writable or self.transport is None or self.transport.is_closing():
            return
        if not self._sending:
            if not self._queue:
                return
            slot, digest, offset, vector = self._queue.popleft()
            self._write(_BULK_HEAD.pack(slot.step, slot.exchange, slot.sub_round, len(vector), offset, digest))
            self._sending = vector[offset:]
        piece, self._sending = self._sending[:_PIECE_BYTES], self._sending[_PIECE_BYTES:]
        if piece:
            self._write(piece)
        if self._sending or self._queue:
            self._pumps = True
            asyncio.get_running_loop().call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._pumps = False
        self._pump()

    def _write(self, data: bytes | memoryview) -> None:
        assert self.transport is not None
        self.transport.write(data)
        self.bytes_sent += len(data)

    # Receiving: a head, then as many bytes as it says, into the vector or into nothing.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._arrival.room if self._arrival is not None else self._into[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self.bytes_received += nbytes
        self._count_turn(nbytes)
        if self._pending is None:
            self._head_updated(nbytes)
        else:
            self._body_updated(nbytes)

    def retry(self) -> None:
        """What was told to wait may be welcome now."""
        if self._waits:
            self._admit()

    def resume(self) -> None:
        if not (self._waits or self._out_of_turn):
            super().resume()

    def _count_turn(self, nbytes: int) -> None:
        """Let others read, too."""
        self._read_in_turn += nbytes
        if self._read_in_turn >= _TURN_BYTES:
            self._read_in_turn, self._out_of_turn = 0, True
            self._stop_reading()
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._out_of_turn = False
        self.resume()

    def _head_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._head):
            return
        step, exchange, sub_round, length, offset, digest = _BULK_HEAD.unpack(self._head)
        self._pending = (Slot(step, exchange, sub_round), digest, length, offset)
        self._admit()

    def _admit(self) -> None:
        assert self._pending is not None
        if self.transport is None or self.transport.is_closing():
            return
        slot, digest, length, offset = self._pending
        verdict = self.receiver.judge(slot, digest, length)
        if verdict is Verdict.REFUSE or offset > length:
            self._fail(Malformed(f"a vector of {length} bytes from {offset} on, which no member of this network sends"))
        elif verdict is Verdict.WAIT:
            self._waits = True
            self._stop_reading()
        else:
            self._waits = False
            self._begin_body(verdict, digest, length, offset)
            self.resume()

    def _begin_body(self, verdict: Verdict, digest: Digest, length: int, offset: int) -> None:
        self._left, self._filled = length - offset, 0
        arrival = self._begun(digest, length, offset) if verdict is Verdict.TAKE else None
        if arrival is None:
            self._owes(self.budget.waste(time.monotonic()))
            self._into = memoryview(bytearray(min(self._left, _SCRATCH_BYTES)))
        if arrival is None and verdict is Verdict.TAKE:
            self.receiver.again(digest)
        self._arrival = arrival
        if not self._left:
            self._body_updated(0)

    def _begun(self, digest: Digest, length: int, offset: int) -> Arrival | None:
        """Where the bytes go: into memory of their own, or to what is here of them; None where that ends elsewhere."""
        return self._shelf.resume(digest, offset) if offset else Arrival(length)

    def _body_updated(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._arrival is not None:
            self._arrival.fill(nbytes)
            if self._arrival.whole:
                self._end_body(self._arrival)
        elif self._left == 0:
            self._next_head()
        elif self._left < len(self._into):
            self._into = self._into[: self._left]

    def _end_body(self, arrival: Arrival) -> None:
        assert self._pending is not None
        _, digest, _, _ = self._pending
        self._next_head()
        if arrival.digest == digest:
            self.receiver.vector(digest, arrival.vector)
        elif len(arrival.senders) > 1:  # nobody knows whose bytes are wrong
            self._shelf.spoil(digest)
            self.receiver.again(digest)
        else:
            self._fail(Malformed("a vector whose bytes do not hash to its digest"))

    def _next_head(self) -> None:
        self._pending = self._arrival = None
        self._into, self._filled = memoryview(self._head), 0
