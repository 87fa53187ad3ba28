"""The two lanes over a transport that the test holds: any split of the bytes, any verdict, any full pipe."""

import asyncio
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.codec import MESSAGE_BYTES_MAX
from p2pnode.errors import FrameTooLarge, LinkError, Malformed
from p2pnode.net.budget import Allowance, Budget
from p2pnode.net.lane import BulkLane, ControlLane
from p2pnode.net.mesh import _PeersShelf
from p2pnode.storage.unfinished import Unfinished
from p2pnode.storage.vectors import Verdict, digest_of
from protocols.header import Slot
from tests.loopback import until

MIB = 2**20
HEAD_BYTES = struct.calcsize(">QBHQQ32s")
BACKLOG = MIB
PLENTY = Allowance(1e9, 1e12, 1e9)


class FakeTransport(asyncio.Transport):
    """Keeps what is written, as a transport with a full or an empty pipe."""

    def __init__(self):
        super().__init__()
        self.written = []
        self.unsent = 0
        self.high = None
        self.reading = True
        self.aborted = False

    def write(self, data):
        assert not self.aborted
        self.written.append(bytes(data))

    def get_write_buffer_size(self):
        return self.unsent

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True

    def is_reading(self):
        return self.reading

    def pause_reading(self):
        assert self.reading
        self.reading = False

    def resume_reading(self):
        assert not self.reading
        self.reading = True

    @property
    def bytes(self):
        return b"".join(self.written)


class Taker:
    """A receiver that answers as it is told, all alike or by digest, and keeps what it gets."""

    def __init__(self, verdict=Verdict.TAKE, error=None):
        self.verdict = verdict
        self.error = error
        self.messages, self.judged, self.vectors, self.reasons, self.asked_again = [], [], [], [], []

    def message(self, data):
        if self.error is not None and data == b"bad":
            raise self.error
        self.messages.append(data)

    def judge(self, slot, digest, nbytes):
        self.judged.append((slot, digest, nbytes))
        return self.verdict.get(digest, Verdict.TAKE) if isinstance(self.verdict, dict) else self.verdict

    def vector(self, digest, vector):
        self.vectors.append((digest, vector))

    def again(self, digest):
        self.asked_again.append(digest)

    def lost(self, reason):
        self.reasons.append(reason)


def control(error=None, budget=None):
    taker, transport = Taker(error=error), FakeTransport()
    lane = ControlLane(taker, budget or Budget(PLENTY), BACKLOG)
    lane.connection_made(transport)
    return lane, taker, transport


def bulk(verdict=Verdict.TAKE, budget=None, shelf=None):
    taker, transport = Taker(verdict), FakeTransport()
    lane = BulkLane(taker, budget or Budget(PLENTY), BACKLOG, shelf)
    lane.connection_made(transport)
    return lane, taker, transport


def framed(*messages):
    return b"".join(struct.pack(">I", len(message)) + message for message in messages)


def vector(seed, length=1000):
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32)


def on_wire(*sent):
    """What a lane writes for these (slot, vector), or (slot, vector, offset)."""
    lane, _, transport = bulk()
    for slot, each, *offset in sent:
        lane.send(slot, digest_of(each), each, *offset)
    return transport.bytes


def feed(lane, transport, data, pieces=None):
    """Give the lane bytes as a transport does, as long as it reads; what it left on the wire."""
    pieces = pieces or iter(lambda: len(data) + 1, 0)
    while data and transport.reading and not transport.aborted:
        buffer = lane.get_buffer(-1)
        assert len(buffer) > 0, "a transport gives up on an empty buffer"
        taken = min(len(buffer), next(pieces), len(data))
        buffer[:taken] = data[:taken]
        lane.buffer_updated(taken)
        data = data[taken:]
    return data


def piece_sizes(data):
    """Sizes of reads, without end."""
    sizes = data.draw(st.lists(st.integers(1, 97) | st.integers(1000, 5000), min_size=1, max_size=8))
    while True:
        yield from sizes


async def feed_on(lane, transport, data):
    """Give the lane all of the bytes, whenever it reads again."""
    while data:
        data = feed(lane, transport, data)
        await until(lambda: transport.reading or transport.aborted, "the lane reads on")
        if transport.aborted:
            return


def long_on_wire(each, offset=0):
    return struct.pack(">QBHQQ32s", 0, 0, 0, each.nbytes, offset, digest_of(each)) + each.tobytes()[offset:]


def peak_of(act):
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Messages.


def test_messages_arrive_whole_and_in_order_wherever_the_stream_is_cut():
    messages = [b"a", b"", b"bcd" * 50, b"\x00\x00\x00\x01"]
    stream = framed(*messages)
    for first in range(len(stream)):
        for cuts in ((first,), (first, first + 3)):
            lane, taker, _ = control()
            begin = 0
            for end in (*cuts, len(stream)):
                lane.data_received(stream[begin:end])
                begin = min(end, len(stream))
            assert taker.messages == messages
            assert lane.bytes_received == len(stream)


def test_messages_arrive_byte_by_byte():
    lane, taker, _ = control()
    for byte in framed(b"one", b"two"):
        lane.data_received(bytes([byte]))
    assert taker.messages == [b"one", b"two"]


def test_what_is_sent_is_what_the_other_side_takes():
    sender, _, transport = control()
    receiver, taker, _ = control()
    for message in (b"one", b"", b"x" * MESSAGE_BYTES_MAX):
        sender.send(message)
    receiver.data_received(transport.bytes)
    assert taker.messages == [b"one", b"", b"x" * MESSAGE_BYTES_MAX]
    assert sender.bytes_sent == receiver.bytes_received == len(transport.bytes)


def test_a_frame_that_declares_too_much_closes_before_any_of_it_is_read():
    for length in (MESSAGE_BYTES_MAX + 1, 2**32 - 1):
        lane, taker, transport = control()
        lane.data_received(framed(b"good") + struct.pack(">I", length))
        assert transport.aborted
        assert taker.messages == [b"good"]
        lane.connection_lost(None)
        assert [type(reason) for reason in taker.reasons] == [FrameTooLarge]


def test_the_largest_message_is_taken():
    lane, taker, transport = control()
    lane.data_received(framed(b"x" * MESSAGE_BYTES_MAX))
    assert [len(message) for message in taker.messages] == [MESSAGE_BYTES_MAX]
    assert not transport.aborted


def test_what_is_no_message_closes_and_nothing_after_it_is_heard():
    lane, taker, transport = control(Malformed("no"))
    lane.data_received(framed(b"good", b"bad", b"after"))
    assert transport.aborted
    assert taker.messages == [b"good"]
    lane.connection_lost(None)
    assert isinstance(taker.reasons[0], Malformed)
    assert lane.closed.is_set()


def test_a_peer_that_does_not_read_its_messages_is_given_up_at_the_bound():
    lane, taker, transport = control()
    transport.unsent = BACKLOG
    lane.send(b"just fits")
    assert not transport.aborted
    transport.unsent = BACKLOG + 1
    lane.send(b"one too many")
    assert transport.aborted
    lane.send(b"after the end")  # is no error
    lane.connection_lost(None)
    assert isinstance(taker.reasons[0], LinkError)


def test_reading_stops_and_goes_on_and_may_be_told_so_twice():
    lane, _, transport = control()
    for paused in (True, True, False, False, True):
        lane.pause(paused)
        assert transport.reading is not paused
    lane.close()
    lane.pause(False)
    assert not transport.reading, "a lane that closes is left alone"


# Budgets.


def frugal(messages=1e9, nbytes=1e12, vectors=1e9):
    """An allowance of which one thing is short: a second's worth, and in the next second as much again."""
    return Budget(Allowance(messages, nbytes, vectors))


async def eventually(true):
    deadline = asyncio.get_running_loop().time() + 30
    while not true():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("budget", "most"), [(frugal(messages=4), 5), (frugal(nbytes=32), 5)])
def test_who_says_more_than_its_budget_is_read_no_further_and_loses_nothing(budget, most):
    async def work():
        lane, taker, transport = control(budget=budget)
        messages = [b"%04d" % number for number in range(7)]
        lane.data_received(framed(*messages))
        assert taker.messages == messages[:most], "the one that makes the debt is the last"
        assert not transport.reading
        lane.pause(True)
        lane.pause(False)
        assert not transport.reading, "who owes is not read because others are done with it"
        await eventually(lambda: len(taker.messages) == 7)
        assert taker.messages == messages
        await eventually(lambda: transport.reading)
        assert not transport.aborted
        assert taker.reasons == []

    asyncio.run(work())


def test_what_is_not_taken_yet_is_charged_when_it_is_taken_and_not_held_twice():
    lane, taker, transport = control()
    lane.pause(True)
    lane.data_received(framed(b"one", b"two", b"three")[:-2])
    assert taker.messages == []
    lane.pause(False)
    assert taker.messages == [b"one", b"two"]
    assert transport.reading
    lane.data_received(b"ee")
    assert taker.messages == [b"one", b"two", b"three"]


def test_who_is_paused_by_a_message_is_heard_no_further_than_that_message():
    lane, taker, transport = control()
    take = taker.message
    taker.message = lambda data: (take(data), lane.pause(data == b"stop"))
    lane.data_received(framed(b"one", b"stop", b"two", b"stop", b"three"))
    assert taker.messages == [b"one", b"stop"]
    lane.pause(False)
    assert taker.messages == [b"one", b"stop", b"two", b"stop"]
    assert not transport.reading
    lane.pause(False)
    assert len(taker.messages) == 5
    assert transport.reading


def test_garbage_that_waited_closes_when_its_turn_comes():
    lane, taker, transport = control(Malformed("no"))
    lane.pause(True)
    lane.data_received(framed(b"good", b"bad", b"after"))
    assert not transport.aborted
    lane.pause(False)
    assert transport.aborted
    assert taker.messages == [b"good"]


def test_vectors_that_nobody_needs_are_charged_before_they_are_read():
    async def work():
        lane, taker, transport = bulk(Verdict.DISCARD, frugal(vectors=2))
        each = vector(1)
        rest = feed(lane, transport, on_wire(*[(Slot(number), each) for number in range(4)]))
        assert len(taker.judged) == 3
        assert len(rest) > each.nbytes, "the third is not read, nor what is behind it"
        assert not transport.reading
        lane.retry()
        assert not transport.reading
        taker.verdict = Verdict.TAKE
        while rest:
            await eventually(lambda: transport.reading)
            rest = feed(lane, transport, rest)
        assert len(taker.vectors) == 1
        assert not transport.aborted

    asyncio.run(work())


def test_a_debt_is_over_with_the_lane_and_not_with_the_peer():
    async def work():
        budget = frugal(messages=1e-9)
        lane, taker, _ = control(budget=budget)
        lane.data_received(framed(b"one", b"two"))
        lane.connection_lost(None)
        assert taker.messages == [b"one"]
        again, heard, _ = control(budget=budget)
        again.data_received(framed(b"one", b"two"))
        assert heard.messages == [b"one"]
        again.connection_lost(None)
        assert [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()] == []

    asyncio.run(work())


# Vectors.


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_vectors_arrive_bit_exact_wherever_the_stream_is_cut(data):
    sent = [(Slot(3, 1, 2), vector(1, 700)), (Slot(2**63 - 1), vector(2, 1)), (Slot(4, 255, 65535), vector(3, 90))]
    lane, taker, transport = bulk()
    assert feed(lane, transport, on_wire(*sent), piece_sizes(data)) == b""
    assert taker.judged == [(slot, digest_of(each), each.nbytes) for slot, each in sent]
    assert [digest for digest, _ in taker.vectors] == [digest_of(each) for _, each in sent]
    for (_, got), (_, each) in zip(taker.vectors, sent, strict=True):
        assert got.tobytes() == each.tobytes()


def test_every_bit_of_a_float_survives():
    strange = np.array([0x7FC00001, 0xFFFFFFFF, 0x80000000, 1, 0x7F800000], np.uint32).view(np.float32)
    lane, taker, transport = bulk()
    feed(lane, transport, on_wire((Slot(0), strange)))
    assert taker.vectors[0][1].tobytes() == strange.tobytes()


@pytest.mark.parametrize("dtype", [np.uint16, np.float16])
def test_vectors_of_two_bytes_a_number_arrive_whole_and_can_be_read_where_they_came_in(dtype):
    odd = np.arange(7, dtype=dtype)
    lane, taker, transport = bulk()
    feed(lane, transport, on_wire((Slot(0), odd), (Slot(1), vector(1))))
    (_, first), (_, second) = taker.vectors
    assert taker.judged[0][2] == 14
    assert first.view(dtype).tolist() == odd.tolist()
    assert second.view(np.float32).tobytes() == vector(1).tobytes()


def test_bytes_land_in_the_memory_of_the_vector_itself():
    each = vector(1)
    wire = on_wire((Slot(0), each))
    lane, taker, transport = bulk()
    body = feed(lane, transport, wire[: len(wire) - each.nbytes])
    assert body == b""
    landing = np.frombuffer(lane.get_buffer(-1), np.uint8)
    assert landing.nbytes == each.nbytes
    feed(lane, transport, wire[len(wire) - each.nbytes :])
    assert np.shares_memory(landing, taker.vectors[0][1])
    assert landing.ctypes.data == taker.vectors[0][1].ctypes.data


def test_two_vectors_do_not_share_memory():
    lane, taker, transport = bulk()
    feed(lane, transport, on_wire((Slot(0), vector(1)), (Slot(1), vector(2))))
    (_, one), (_, other) = taker.vectors
    assert not np.shares_memory(one, other)


def test_what_must_wait_stays_on_the_wire_until_it_is_welcome():
    each = vector(1)
    lane, taker, transport = bulk(Verdict.WAIT)
    rest = feed(lane, transport, on_wire((Slot(0), each)))
    assert len(rest) == each.nbytes
    assert not transport.reading
    lane.retry()
    assert not transport.reading
    assert len(taker.judged) == 2
    taker.verdict = Verdict.TAKE
    lane.retry()
    assert transport.reading
    assert feed(lane, transport, rest) == b""
    assert taker.vectors[0][1].tobytes() == each.tobytes()
    judged = len(taker.judged)
    lane.retry()
    assert len(taker.judged) == judged, "between two vectors there is nothing to judge"


def test_retry_in_the_middle_of_a_vector_disturbs_nothing():
    each = vector(1)
    wire = on_wire((Slot(0), each))
    lane, taker, transport = bulk()
    feed(lane, transport, wire[:500])
    lane.retry()
    feed(lane, transport, wire[500:])
    assert len(taker.judged) == 1
    assert taker.vectors[0][1].tobytes() == each.tobytes()


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 40_000))
def test_a_discarded_vector_is_drained_to_its_last_byte_and_no_further(data, length):
    unwanted, wanted = vector(1, length), vector(2, 50)
    wire = on_wire((Slot(0), unwanted), (Slot(1), wanted))
    lane, taker, transport = bulk({digest_of(unwanted): Verdict.DISCARD})
    assert feed(lane, transport, wire, piece_sizes(data)) == b""
    assert [digest for digest, _ in taker.vectors] == [digest_of(wanted)]
    assert taker.vectors[0][1].tobytes() == wanted.tobytes()


def test_what_waited_may_be_discarded_after_all():
    unwanted, wanted = vector(1), vector(2)
    lane, taker, transport = bulk(Verdict.WAIT)
    rest = feed(lane, transport, on_wire((Slot(0), unwanted), (Slot(1), wanted)))
    taker.verdict = {digest_of(unwanted): Verdict.DISCARD}
    lane.retry()
    assert feed(lane, transport, rest) == b""
    assert [digest for digest, _ in taker.vectors] == [digest_of(wanted)]


def test_what_is_refused_closes():
    lane, taker, transport = bulk(Verdict.REFUSE)
    feed(lane, transport, on_wire((Slot(0), vector(1))))
    assert transport.aborted
    lane.retry()
    lane.connection_lost(None)
    assert isinstance(taker.reasons[0], Malformed)
    assert taker.vectors == []


@pytest.mark.parametrize("place", [0, 2000, -1])
def test_bytes_that_do_not_hash_to_their_digest_close(place):
    each = vector(1)
    wire = bytearray(on_wire((Slot(0), each)))
    wire[len(wire) - each.nbytes + place if place >= 0 else place] ^= 1
    lane, taker, transport = bulk()
    feed(lane, transport, bytes(wire))
    assert transport.aborted
    assert taker.vectors == []
    lane.connection_lost(None)
    assert isinstance(taker.reasons[0], Malformed)


def test_no_memory_is_taken_for_a_vector_that_is_not_let_in():
    """The head declares 1 GiB; only TAKE may believe it."""
    head = struct.pack(">QBHQQ32s", 0, 0, 0, 2**30, 0, bytes(32))

    def flood(verdict):
        lane, _, transport = bulk(verdict)
        feed(lane, transport, head + bytes(MIB // 2))

    for verdict in (Verdict.WAIT, Verdict.REFUSE, Verdict.DISCARD):
        assert peak_of(lambda verdict=verdict: flood(verdict)) < 4 * MIB
    assert peak_of(lambda: flood(Verdict.TAKE)) >= 2**30


def test_pieces_stop_when_the_pipe_is_full_and_go_on_when_it_has_room():
    each, small = vector(1, MIB // 2), vector(2)

    class Narrow(FakeTransport):
        """Full after each write."""

        def write(self, data):
            super().write(data)
            lane.pause_writing()

    async def run():
        pipe.high = None
        lane.connection_made(pipe)
        assert pipe.high <= MIB
        lane.pause_writing()
        lane.send(Slot(0), digest_of(each), each)
        lane.send(Slot(1), digest_of(small), small)
        assert pipe.written == []
        turns = 0
        while len(pipe.bytes) < 2 * HEAD_BYTES + each.nbytes + small.nbytes:
            before = len(pipe.bytes)
            lane.resume_writing()
            await asyncio.sleep(0)
            assert before < len(pipe.bytes) <= before + MIB, "small beside a vector"
            turns += 1
            assert turns < 100

    lane, pipe = BulkLane(Taker(), Budget(PLENTY), BACKLOG), Narrow()
    asyncio.run(run())
    assert pipe.bytes == long_on_wire(each) + on_wire((Slot(1), small))
    assert lane.bytes_sent == len(pipe.bytes)


def test_a_vector_goes_a_piece_a_turn_so_that_messages_have_theirs():
    each, small = vector(1, MIB), vector(2)

    async def run():
        lane, _, transport = bulk()
        lane.send(Slot(0), digest_of(each), each)
        lane.send(Slot(1), digest_of(small), small)
        turns = 0
        while len(transport.bytes) < 2 * HEAD_BYTES + each.nbytes + small.nbytes:
            before = len(transport.bytes)
            lane.resume_writing()  # as the transport may say at any time
            await asyncio.sleep(0)
            assert len(transport.bytes) - before <= 2 * (256 * 1024 + HEAD_BYTES)
            turns += 1
        assert transport.bytes == long_on_wire(each) + on_wire((Slot(1), small))
        assert turns >= 8

    asyncio.run(run())


def test_reading_rests_after_a_turn_and_goes_on_by_itself():
    each = vector(1, MIB)
    wire = long_on_wire(each)

    async def run():
        lane, taker, transport = bulk()
        while wire[lane.bytes_received :]:
            before = lane.bytes_received
            feed(lane, transport, wire[before:])
            assert lane.bytes_received - before <= 2 * MIB
            assert taker.vectors or not transport.reading
            lane.retry()
            assert taker.vectors or not transport.reading, "only the end of the turn ends the rest"
            await asyncio.sleep(0)
            assert transport.reading
        assert taker.vectors[0][1].tobytes() == each.tobytes()

    asyncio.run(run())


@pytest.mark.parametrize("place", [None, 0, 3 * MIB, 6 * MIB - 2049])
def test_a_long_vector_is_checked_to_its_last_byte_and_the_next_one_is_read_after_it(place):
    each = vector(1, 3 * MIB // 2 - 512)
    wire = bytearray(long_on_wire(each) + on_wire((Slot(1), vector(2))))
    if place is not None:
        wire[HEAD_BYTES + place] ^= 1

    async def run():
        await feed_on(lane, transport, bytes(wire))
        await until(lambda: len(taker.vectors) == 2 or transport.aborted, "both vectors")

    lane, taker, transport = bulk()
    asyncio.run(run())
    if place is None:
        assert [got.tobytes() for _, got in taker.vectors] == [each.tobytes(), vector(2).tobytes()]
    else:
        assert taker.vectors == []
        lane.connection_lost(None)
        assert isinstance(taker.reasons[0], Malformed)


# Lanes that are lost in the middle of a vector.


def shelves(peers=1):
    """Those of so many peers at one node."""
    unfinished = Unfinished()
    return unfinished, [_PeersShelf(peer, unfinished) for peer in range(peers)]


@pytest.mark.parametrize("step", [1, 97, 1001])
def test_of_a_vector_that_is_cut_off_again_and_again_every_byte_comes_once(step):
    """Cut after so many bytes of the body each time, while the peers take turns."""
    each = vector(1, 1000 if step > 1 else 30)
    unfinished, ways = shelves(2)
    turn, sent = 0, 0
    while True:
        lane, taker, transport = bulk(shelf=ways[turn % 2])
        wire = on_wire((Slot(0), each, unfinished.offset(digest_of(each), turn % 2)))
        sent += len(wire[HEAD_BYTES:][:step])
        feed(lane, transport, wire[: HEAD_BYTES + step])
        if taker.vectors:
            break
        lane.connection_lost(None)
        assert len(unfinished) == 1
        turn += 1
    assert taker.vectors[0][1].tobytes() == each.tobytes()
    assert sent == each.nbytes
    assert len(unfinished) == 0


@pytest.mark.parametrize("early", [True, False])
def test_wherever_a_lane_is_cut_the_next_one_brings_all_and_no_byte_of_a_vector_twice(early):
    """Early: the lane is closed here, before its end is told; as where a newer link takes its place."""
    first, second, third = vector(1, 40), vector(2, 60), vector(3, 20)
    wire = on_wire((Slot(0), first), (Slot(1), second), (Slot(2), third))
    for cut in range(len(wire)):
        unfinished, [shelf] = shelves()
        lane, taker, transport = bulk(shelf=shelf)
        feed(lane, transport, wire[:cut])
        if early:
            lane.close()
        else:
            lane.connection_lost(None)
        here = {digest for digest, _ in taker.vectors}
        rest = [(Slot(0), each, unfinished.offset(digest_of(each), 0)) for each in (first, second, third)]
        lane.connection_lost(None)
        again, taken, transport = bulk(shelf=shelf)
        body = on_wire(*[one for one in rest if digest_of(one[1]) not in here])
        assert feed(again, transport, body) == b""
        came = [got.tobytes() for _, got in taker.vectors + taken.vectors]
        assert came == [each.tobytes() for each in (first, second, third)]
        assert cut + len(body) <= len(wire) + 2 * HEAD_BYTES
        assert (taken.asked_again, len(unfinished)) == ([], 0)


@pytest.mark.parametrize("place", [0, 100, 1999])
@pytest.mark.parametrize("second", [0, 1])
def test_of_halves_from_two_nobody_is_blamed_and_all_is_asked_for_and_of_halves_from_one_it_is(place, second):
    each, after = vector(1), vector(2)
    unfinished, ways = shelves(2)
    wrong = bytearray(on_wire((Slot(0), each)))
    wrong[HEAD_BYTES + place] ^= 1
    lane, _, transport = bulk(shelf=ways[0])
    feed(lane, transport, bytes(wrong[: HEAD_BYTES + 2000]))
    lane.connection_lost(None)
    lane, taker, transport = bulk(shelf=ways[second])
    feed(lane, transport, on_wire((Slot(0), each, 2000), (Slot(0), after)))
    if second == 0:
        assert transport.aborted
        lane.connection_lost(None)
        assert isinstance(taker.reasons[0], Malformed)
        return
    assert not transport.aborted
    assert taker.asked_again == [digest_of(each)]
    assert [digest for digest, _ in taker.vectors] == [digest_of(after)], "what comes behind it is heard"
    feed(lane, transport, on_wire((Slot(0), each))[: HEAD_BYTES + 2000])
    lane.connection_lost(None)
    assert unfinished.offset(digest_of(each), 1) == 2000
    assert unfinished.offset(digest_of(each), 0) == 0, "from now on it is put together from one"
    lane, taker, transport = bulk(shelf=ways[1])
    feed(lane, transport, on_wire((Slot(0), each, 2000)))
    assert taker.vectors[0][1].tobytes() == each.tobytes()


@pytest.mark.parametrize("offset", [1, 999, 1001, 4000])
def test_what_begins_where_nothing_ends_is_charged_and_thrown_away_and_asked_for_anew(offset):
    each, after = vector(1), vector(2)

    async def work():
        unfinished, [shelf] = shelves()
        if offset != 1:
            lane, _, transport = bulk(shelf=shelf)
            feed(lane, transport, on_wire((Slot(0), each))[: HEAD_BYTES + 1000])
            lane.connection_lost(None)
        lane, taker, transport = bulk(budget=frugal(vectors=1e-3), shelf=shelf)
        rest = feed(lane, transport, on_wire((Slot(0), each, offset), (Slot(0), after)))
        assert taker.asked_again == [digest_of(each)]
        assert len(rest) == each.nbytes - offset + HEAD_BYTES + after.nbytes, "it owes, and is not read"
        lane, taker, transport = bulk(shelf=shelf)
        assert feed(lane, transport, on_wire((Slot(0), each, offset), (Slot(0), after))) == b""
        assert [digest for digest, _ in taker.vectors] == [digest_of(after)]
        assert len(unfinished) == (offset != 1)

    asyncio.run(work())


def test_an_offset_beyond_the_end_closes():
    each = vector(1)
    wire = struct.pack(">QBHQQ32s", 0, 0, 0, each.nbytes, each.nbytes + 1, digest_of(each))
    for verdict in Verdict:
        lane, taker, transport = bulk(verdict)
        feed(lane, transport, wire)
        assert transport.aborted
        lane.connection_lost(None)
        assert isinstance(taker.reasons[0], Malformed)


@pytest.mark.parametrize("offset", [0, 1, 3999, 4000])
@pytest.mark.parametrize("verdict", [Verdict.DISCARD, Verdict.WAIT])
def test_of_the_rest_of_a_vector_only_the_rest_is_drained(offset, verdict):
    each, after = vector(1), vector(2)
    lane, taker, transport = bulk({digest_of(each): verdict})
    rest = feed(lane, transport, on_wire((Slot(0), each, offset), (Slot(0), after)))
    if verdict is Verdict.WAIT:
        assert rest != b""
        taker.verdict = Verdict.DISCARD
        lane.retry()
        taker.verdict = Verdict.TAKE
        assert feed(lane, transport, rest) == b""
    assert [digest for digest, _ in taker.vectors] == [digest_of(after)]
    assert taker.asked_again == []


def test_a_rest_is_queued_beside_the_whole_and_counts_as_what_it_is():
    each = vector(1, BACKLOG // 4 - 1000)

    async def run():
        lane, _, transport = bulk()
        lane.pause_writing()
        for offset in (each.nbytes - 4, each.nbytes - 4, 0, each.nbytes):
            lane.send(Slot(0), digest_of(each), each, offset)
        assert not transport.aborted
        lane.resume_writing()
        parts = [long_on_wire(each, offset) for offset in (each.nbytes - 4, 0, each.nbytes)]
        await until(lambda: len(transport.bytes) >= sum(map(len, parts)), "all")
        assert transport.bytes == b"".join(parts)
        assert lane.bytes_sent == len(transport.bytes)

    asyncio.run(run())


# Queues.


def test_a_vector_waits_in_the_queue_once_and_uncopied():
    one, other = vector(1, MIB // 16), vector(2)

    def send():
        for _ in range(5):
            lane.send(Slot(0), digest_of(one), one)
            lane.send(Slot(0), digest_of(other), other)

    async def run():
        assert peak_of(send) < one.nbytes
        lane.resume_writing()
        await asyncio.sleep(0)

    lane, _, transport = bulk()
    lane.pause_writing()
    asyncio.run(run())
    assert transport.bytes == on_wire((Slot(0), one), (Slot(0), other))


def test_a_peer_that_does_not_read_its_vectors_is_given_up_at_the_bound():
    lane, taker, transport = bulk()
    lane.pause_writing()
    sent = 0
    while not transport.aborted:
        each = vector(sent, MIB // 16)
        lane.send(Slot(sent), digest_of(each), each)
        sent += 1
        assert sent * each.nbytes <= 2 * BACKLOG
    assert (sent - 1) * each.nbytes >= BACKLOG
    lane.connection_lost(None)
    assert isinstance(taker.reasons[0], LinkError)
    lane.resume_writing()
    assert transport.written == []


def test_one_vector_larger_than_the_bound_still_goes():
    each, small = vector(1, BACKLOG), vector(2)

    async def run():
        lane, _, transport = bulk()
        lane.pause_writing()
        lane.send(Slot(0), digest_of(each), each)
        lane.send(Slot(1), digest_of(small), small)
        assert not transport.aborted
        lane.resume_writing()
        while len(transport.bytes) < 2 * HEAD_BYTES + each.nbytes + small.nbytes:
            await asyncio.sleep(0)
        assert transport.bytes == long_on_wire(each) + on_wire((Slot(1), small))

    asyncio.run(run())


def test_a_lane_that_is_lost_tells_so_once_and_takes_nothing_more():
    for make, send in ((control, lambda lane: lane.send(b"x")), (bulk, lambda lane: lane.retry())):
        lane, taker, transport = make()
        lane.connection_lost(ConnectionResetError())
        assert taker.reasons == [None], "the other side's doing has no reason of ours"
        assert lane.closed.is_set()
        send(lane)
        lane.close()
        lane.resume()
        assert transport.written == []
