"""The door for vectors: in comes what a header announced, from who may send it, at the model's length; no more."""

import tracemalloc
import warnings

import blake3
import numpy as np
import pytest

from p2pnode.storage.spool import Spool
from p2pnode.storage.vectors import Vectors, Verdict, digest_of, is_finite
from protocols.header import BFLOAT16, FLOAT16, FLOAT32, Header, Slot

LENGTH = 8
NBYTES = 4 * LENGTH
ORIGIN, HOLDER, STRANGER = 1, 2, 3
OLD, NOW, NEXT, LATER = Slot(4), Slot(5), Slot(6), Slot(7)


def numbers(value=1.0):
    return np.full(LENGTH, value, np.float32)


D = digest_of(numbers())


def header(slot=NOW, digest=D, origin=ORIGIN):
    return Header(b"n" * 32, origin, slot, FLOAT32, LENGTH, digest)


def move(vectors, before, horizon, own=None):
    vectors.window(before, before if own is None else own, horizon)


@pytest.fixture
def vectors():
    vectors = Vectors(LENGTH)
    move(vectors, NOW, NEXT)
    return vectors


def taken(vectors, slot=NOW, value=1.0):
    vector = numbers(value)
    vectors.expect(header(slot, digest_of(vector)))
    assert vectors.take(digest_of(vector), vector)
    return digest_of(vector)


def test_a_digest_is_blake3_of_the_little_endian_bytes():
    assert digest_of(numbers(1)) == blake3.blake3(b"\x00\x00\x80\x3f" * LENGTH).digest()


@pytest.mark.parametrize(
    ("state", "peer", "slot", "verdict"),
    [
        ("unknown", ORIGIN, NOW, Verdict.WAIT),
        ("unknown", ORIGIN, NEXT, Verdict.WAIT),
        ("unknown", ORIGIN, LATER, Verdict.WAIT),
        ("unknown", ORIGIN, OLD, Verdict.DISCARD),
        ("expected", ORIGIN, NOW, Verdict.TAKE),
        ("expected", ORIGIN, OLD, Verdict.TAKE),  # the header's slot counts, not the word of who sends
        ("expected", ORIGIN, LATER, Verdict.TAKE),
        ("expected", HOLDER, NOW, Verdict.WAIT),
        ("expected", STRANGER, NOW, Verdict.WAIT),
        ("expected", STRANGER, OLD, Verdict.DISCARD),
        ("asked", ORIGIN, NOW, Verdict.TAKE),
        ("asked", HOLDER, NOW, Verdict.TAKE),
        ("asked", STRANGER, NOW, Verdict.WAIT),
        ("expected next", ORIGIN, NEXT, Verdict.TAKE),
        ("expected later", ORIGIN, LATER, Verdict.WAIT),
        ("expected later", ORIGIN, NOW, Verdict.WAIT),
        ("here", ORIGIN, NOW, Verdict.DISCARD),
        ("here", STRANGER, NEXT, Verdict.DISCARD),
        ("here", STRANGER, LATER, Verdict.WAIT),  # not to be kept yet, and nobody sends them twice
        ("here", STRANGER, OLD, Verdict.DISCARD),
        ("own", ORIGIN, NOW, Verdict.DISCARD),
        ("own", ORIGIN, LATER, Verdict.WAIT),
        ("refused", ORIGIN, NOW, Verdict.DISCARD),
        ("refused", ORIGIN, OLD, Verdict.DISCARD),
        ("forgotten", ORIGIN, OLD, Verdict.DISCARD),
        ("forgotten", ORIGIN, NOW, Verdict.WAIT),
    ],
)
def test_who_may_send_what_when(vectors, state, peer, slot, verdict):
    match state:
        case "expected" | "asked":
            assert not vectors.expect(header())
            if state == "asked":
                assert vectors.ask(D, HOLDER) == NOW
        case "expected next":
            vectors.expect(header(NEXT))
        case "expected later":
            vectors.expect(header(LATER))
        case "here":
            taken(vectors)
        case "own":
            vectors.put(NOW, D, numbers())
        case "refused":
            vectors.expect(header())
            assert not vectors.take(D, numbers(np.nan))
        case "forgotten":
            vectors.expect(header(OLD))
            move(vectors, NOW, NEXT)
    assert vectors.judge(peer, slot, D, NBYTES) is verdict


@pytest.mark.parametrize("nbytes", [0, 1, NBYTES - 1, NBYTES + 1, 2**63, -1])
@pytest.mark.parametrize("expected", [True, False])
def test_another_length_is_refused_from_anyone(vectors, nbytes, expected):
    if expected:
        vectors.expect(header())
    for peer in (ORIGIN, STRANGER):
        for slot in (OLD, NOW, LATER):
            assert vectors.judge(peer, slot, D, nbytes) is Verdict.REFUSE


def test_what_waits_is_let_in_when_its_slot_comes(vectors):
    vectors.expect(header(LATER))
    assert vectors.judge(ORIGIN, LATER, D, NBYTES) is Verdict.WAIT
    move(vectors, NEXT, LATER)
    assert vectors.judge(ORIGIN, LATER, D, NBYTES) is Verdict.TAKE


def test_what_came_in_is_here_until_its_slot_goes(vectors):
    vectors.expect(header())
    assert vectors.get(D) is None
    assert vectors.take(D, numbers())
    assert vectors.get(D).tolist() == numbers().tolist()
    assert vectors.expect(header())
    assert vectors.take(D, numbers())  # twice, from two who were asked
    assert vectors.ask(D, HOLDER) is None
    move(vectors, NOW, LATER)
    assert vectors.get(D) is not None
    move(vectors, NEXT, LATER)
    assert vectors.get(D) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", range(LENGTH))
def test_a_vector_with_one_number_that_is_none_is_refused(vectors, bad, position):
    for rest in (0.0, 3e38, -np.inf if bad == np.inf else 1.0):
        vector = numbers(rest)
        vector[position] = bad
        vectors.expect(header())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not vectors.take(D, vector)
        assert vectors.get(D) is None
        assert not vectors.expect(header())  # announced again, it is asked for again


@pytest.mark.parametrize(("array", "infinity"), [(np.uint16, 0x7F80), (np.float16, 0x7C00)])
def test_of_all_numbers_of_two_bytes_those_that_are_none_are_known(array, infinity):
    largest = infinity - 1
    for rest in (0, largest, 0x8000 | largest):
        vector = np.full(3, rest, np.uint16)
        for bits in range(0, 2**16, 1 if rest == 0 else 127):
            vector[1] = bits
            assert is_finite(vector.view(array)) == (bits & 0x7FFF < infinity), hex(bits)


def test_a_look_at_a_vector_takes_no_memory():
    for array in (np.float32, np.uint16, np.float16):
        vector = np.zeros(1_000_000, array)
        tracemalloc.start()
        try:
            assert is_finite(vector)
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(("dtype", "array"), [(BFLOAT16, np.uint16), (FLOAT16, np.float16)])
def test_of_two_bytes_a_number_half_as_many_bytes_are_let_in_and_kept_as_they_came(dtype, array):
    vectors = Vectors(LENGTH, dtype)
    move(vectors, NOW, NEXT)
    said = np.full(LENGTH, 3, array)
    vectors.expect(Header(b"n" * 32, ORIGIN, NOW, dtype, LENGTH, digest_of(said)))
    assert vectors.judge(ORIGIN, NOW, digest_of(said), NBYTES) is Verdict.REFUSE
    assert vectors.judge(ORIGIN, NOW, digest_of(said), NBYTES // 2) is Verdict.TAKE
    assert vectors.take(digest_of(said), said)
    assert vectors.get(digest_of(said)) is said
    for other in (numbers(), np.zeros(LENGTH, np.int16), np.zeros(LENGTH - 1, array)):
        assert not vectors.fits(other)
        with pytest.raises(AssertionError):
            vectors.put(NOW, D, other)


def test_no_peer_finds_what_is_announced_nowhere(vectors):
    """It need not be of the network's dtype: a liar that guessed its digest could have it echoed, and sent."""
    vectors.put_outcome(D, numbers())
    assert vectors.outcome(D).tolist() == numbers().tolist()
    assert vectors.get(D) is None
    assert vectors.judge(ORIGIN, NOW, D, NBYTES) is Verdict.WAIT
    assert not vectors.expect(header())
    assert len(vectors) == 1
    vectors.window(NEXT, OLD, LATER)
    assert vectors.outcome(D) is None, "who adopted it has it, and nobody else may ask for it"
    with pytest.raises(AssertionError):
        vectors.put_outcome(D, np.zeros(LENGTH, np.float16))


def test_huge_finite_numbers_are_numbers():
    for value in (3e38, -3e38, np.finfo(np.float32).max, np.finfo(np.float32).tiny, 1e-45):
        vectors = Vectors(100_000)
        vector = np.full(100_000, value, np.float32)
        vectors.expect(header(Slot(0), digest_of(vector)))
        assert vectors.take(digest_of(vector), vector)


def test_bytes_that_finish_after_their_slot_went_by_are_late_and_not_wrong(vectors):
    """Else the driver would tell the protocols that they are not finite, and those would accuse an honest sender."""
    vectors.expect(header())
    assert vectors.judge(ORIGIN, NOW, D, NBYTES) is Verdict.TAKE
    vectors.window(LATER, NEXT, LATER)
    assert vectors.take(D, numbers())
    assert vectors.get(D) is not None
    vectors.window(LATER, NEXT, LATER)
    assert vectors.get(D) is None
    assert not vectors.take(D, numbers(np.nan))
    assert vectors.get(D) is None


def test_a_digest_of_two_slots_stays_until_the_later_one_goes(vectors):
    """Two members may come to the same vector, and a liar may repeat an old one."""
    for first, second in ((NOW, NEXT), (NEXT, NOW)):
        for arrives_between in (True, False):
            here = Vectors(LENGTH)
            move(here, NOW, LATER)
            here.expect(header(first))
            if arrives_between:
                here.take(D, numbers())
            assert here.expect(header(second, origin=HOLDER)) == arrives_between
            if not arrives_between:
                assert here.judge(ORIGIN, first, D, NBYTES) is here.judge(HOLDER, second, D, NBYTES) is Verdict.TAKE
                here.take(D, numbers())
            move(here, NEXT, LATER)
            assert here.get(D) is not None
            move(here, LATER, LATER)
            assert here.get(D) is None


@pytest.mark.parametrize("own", [True, False])
def test_bytes_that_are_here_are_kept_for_the_later_slot_that_they_come_for_before_their_header(vectors, own):
    """They are sent once: were they forgotten when the window moves, the header would wait for them for ever."""
    if own:
        vectors.put(NOW, D, numbers())
    else:
        taken(vectors)
    assert vectors.judge(HOLDER, NEXT, D, NBYTES) is Verdict.DISCARD
    move(vectors, NEXT, LATER)
    assert vectors.expect(header(NEXT, origin=HOLDER))
    assert vectors.get(D).tolist() == numbers().tolist()
    move(vectors, LATER, LATER)
    assert vectors.get(D) is None


def test_bytes_that_were_let_go_of_and_come_once_more_hold_up_nothing(vectors):
    """Who restarts says again what it said; its header is known already, and will announce them to nobody."""
    taken(vectors)
    vectors.expect(header(digest=digest_of(numbers(2))))
    assert vectors.ask(digest_of(numbers(2)), HOLDER) == NOW
    vectors.take(digest_of(numbers(2)), numbers(2))
    vectors.window(NEXT, OLD, LATER)
    assert len(vectors) == 0
    for peer, value, verdict in (
        (ORIGIN, 1, Verdict.DISCARD),
        (ORIGIN, 2, Verdict.DISCARD),
        (HOLDER, 2, Verdict.DISCARD),
        (HOLDER, 1, Verdict.WAIT),
        (STRANGER, 1, Verdict.WAIT),
    ):
        assert vectors.judge(peer, NOW, digest_of(numbers(value)), NBYTES) == verdict
        assert vectors.judge(peer, NEXT, digest_of(numbers(value)), NBYTES) == Verdict.WAIT, "a later header's bytes"
    vectors.expect(header(NEXT))
    assert vectors.judge(ORIGIN, NOW, D, NBYTES) == Verdict.TAKE
    for step in range(100):
        vectors.window(Slot(step), Slot(step), Slot(step + 1))
    assert vectors._welcomed == {}, "what is past is not remembered"


def test_bytes_that_are_here_wait_for_a_slot_beyond_the_horizon_and_come_in_again(vectors):
    taken(vectors)
    assert vectors.judge(HOLDER, LATER, D, NBYTES) is Verdict.WAIT
    move(vectors, NEXT, LATER)
    assert vectors.get(D) is None
    assert not vectors.expect(header(LATER, origin=HOLDER))
    assert vectors.judge(HOLDER, LATER, D, NBYTES) is Verdict.TAKE


def test_bytes_that_are_here_and_come_for_an_older_slot_stay_for_the_later(vectors):
    taken(vectors, NEXT)
    assert vectors.judge(STRANGER, NOW, D, NBYTES) is Verdict.DISCARD
    assert vectors.judge(STRANGER, OLD, D, NBYTES) is Verdict.DISCARD
    move(vectors, NEXT, LATER)
    assert vectors.get(D) is not None


def test_an_expected_digest_of_two_slots_is_expected_until_the_later_one_goes(vectors):
    vectors.expect(header(NOW))
    vectors.expect(header(NEXT))
    move(vectors, NEXT, LATER)
    assert vectors.judge(ORIGIN, NOW, D, NBYTES) is Verdict.TAKE
    move(vectors, LATER, LATER)
    assert vectors.judge(ORIGIN, NEXT, D, NBYTES) is Verdict.DISCARD
    assert vectors.ask(D, HOLDER) is None


def test_ones_own_vectors_stay_longer_than_others(vectors):
    vectors.put(NOW, D, numbers())
    other = taken(vectors, value=2.0)
    vectors.window(NEXT, NOW, LATER)
    assert vectors.get(D) is not None
    assert vectors.get(other) is None
    vectors.window(LATER, NEXT, LATER)
    assert vectors.get(D) is None


def test_ones_own_vector_that_a_liar_repeats_later_stays_for_the_later_slot(vectors):
    vectors.put(NOW, D, numbers())
    assert vectors.expect(header(NEXT, origin=HOLDER))
    move(vectors, NEXT, LATER)
    assert vectors.get(D) is not None
    move(vectors, LATER, LATER)
    assert vectors.get(D) is None


@pytest.mark.parametrize(
    "vector", [np.zeros(LENGTH + 1, np.float32), np.zeros(LENGTH), np.zeros((1, LENGTH), np.float32)]
)
def test_ones_own_vector_of_another_length_or_type_is_a_bug_of_ours(vectors, vector):
    with pytest.raises(AssertionError):
        vectors.put(NOW, D, vector)


def test_bytes_that_a_header_announced_and_that_are_not_here_are_awaited(vectors):
    assert vectors.awaited(ORIGIN, NOW) is None
    vectors.expect(header())
    assert vectors.awaited(ORIGIN, NOW) == header()
    assert vectors.awaited(ORIGIN, NEXT) is None
    assert vectors.awaited(HOLDER, NOW) is None
    assert vectors.take(D, numbers())
    assert vectors.awaited(ORIGIN, NOW) is None


def test_a_member_need_not_send_again_what_came_of_its_own(vectors):
    """Not what it was only asked for: of its own vector with the same bytes nothing is known yet."""
    first, second, other = (digest_of(numbers(value)) for value in (1, 2, 3))
    for slot, digest in ((NEXT, second), (NOW, first)):
        vectors.expect(header(slot, digest))
    vectors.expect(header(NOW, other, STRANGER))
    assert vectors.ask(other, ORIGIN) == NOW
    assert vectors.had_of(ORIGIN) == []
    for value in (1, 2, 3):
        assert vectors.wants(digest_of(numbers(value)), ORIGIN)
        vectors.take(digest_of(numbers(value)), numbers(value))
        assert not vectors.wants(digest_of(numbers(value)))
    assert vectors.had_of(ORIGIN) == [(NOW, first), (NEXT, second)]
    assert vectors.had_of(STRANGER) == [(NOW, other)]
    assert vectors.had_of(HOLDER) == []
    vectors.window(LATER, NOW, LATER)
    assert len(vectors) == 0
    assert vectors.had_of(ORIGIN) == [(NOW, first), (NEXT, second)], "let go of, and needed no more"
    vectors.expect(header(LATER, first))
    assert vectors.had_of(ORIGIN) == [(NEXT, second)], "the same bytes for another slot are needed anew"
    assert not vectors.wants(first, HOLDER)
    assert vectors.wants(first)
    vectors.window(LATER, LATER, LATER)
    assert vectors.had_of(ORIGIN) == []


def test_talk_takes_no_memory(vectors):
    """Only headers that were checked (`expect`), and peers that were asked, are remembered; the window forgets both."""
    vectors.expect(header())
    state = {name: len(value) for name, value in vars(vectors).items() if isinstance(value, dict)}
    for i in range(1000):
        vectors.judge(STRANGER, Slot(i), i.to_bytes(32, "big"), NBYTES)
        vectors.judge(STRANGER, NOW, D, i)
        vectors.ask(i.to_bytes(32, "big"), STRANGER)
        vectors.get(i.to_bytes(32, "big"))
    assert {name: len(value) for name, value in vars(vectors).items() if isinstance(value, dict)} == state
    for i in range(100):
        vectors.expect(header(digest=i.to_bytes(32, "big")))
        taken(vectors, value=float(i))
    move(vectors, NEXT, LATER)
    assert not any(value for value in vars(vectors).values() if isinstance(value, dict))


def test_an_outcome_that_is_proposed_nowhere_is_there_until_the_window_moves(vectors):
    vectors.put_outcome(D, numbers())
    assert vectors.outcome(D).tolist() == numbers().tolist()
    vectors.put_outcome(digest_of(numbers(2)), numbers(2))
    assert len(vectors) == 1, "of each there was use for one moment"
    move(vectors, NEXT, LATER)
    assert len(vectors) == 0


@pytest.mark.parametrize(
    ("spare", "left"), [(None, [3, 3, 3, 3]), (5, [3, 3, 3, 3]), (1, [2, 1, 1, 1]), (0, [2, 1, 0, 0])]
)
def test_vectors_of_the_slot_that_was_left_make_way_for_those_that_come_in(spare, left):
    """One for one, and before memory is taken: a node of a large model holds n of others' and not 2n."""
    vectors = Vectors(LENGTH, spare=spare)
    vectors.window(NOW, NOW, NEXT, NOW)
    old = [taken(vectors, NOW, value) for value in (1, 2, 3)]
    vectors.put(NOW, digest_of(numbers(4)), numbers(4))
    vectors.window(NOW, NOW, LATER, NEXT)
    for number, value in enumerate((5, 6, 7, 8)):
        digest = digest_of(numbers(value))
        vectors.expect(header(NEXT, digest))
        assert vectors.judge(ORIGIN, NEXT, digest, NBYTES) is Verdict.TAKE
        assert sum(vectors.get(digest) is not None for digest in old) == left[number]
        vectors.take(digest, numbers(value))
    assert all(vectors.get(digest_of(numbers(value))) is not None for value in (4, 5, 6, 7, 8)), "one's own stays"


@pytest.mark.parametrize("refuses", [False, True])
def test_where_anyone_s_may_be_needed_those_that_make_way_are_read_from_disk_again(tmp_path, monkeypatch, refuses):
    spool = Spool(tmp_path, np.dtype(np.float32), LENGTH, lambda why: None)
    if refuses:
        monkeypatch.setattr(spool, "put", lambda *given: False)
    vectors = Vectors(LENGTH, spare=1, spool=spool)
    vectors.window(OLD, OLD, NEXT, NOW)
    old = [taken(vectors, NOW, value) for value in (1, 2, 3)]
    vectors.window(OLD, OLD, LATER, NEXT)
    for value in (4, 5, 6):
        digest = digest_of(numbers(value))
        vectors.expect(header(NEXT, digest))
        assert vectors.judge(ORIGIN, NEXT, digest, NBYTES) is Verdict.TAKE
        vectors.take(digest, numbers(value))
    assert len(vectors) == (6 if refuses else 4)
    for digest, value in zip(old, (1, 2, 3), strict=True):
        assert vectors.has(digest)
        assert vectors.get(digest).tobytes() == numbers(value).tobytes()
    held = len(vectors)
    assert vectors.judge(ORIGIN, NOW, old[0], NBYTES) is Verdict.DISCARD
    assert vectors.expect(header(NOW, old[0]))
    assert vectors.expect(header(LATER, old[1]))
    assert len(vectors) == held, "who repeats itself fills no memory"
    vectors.window(LATER, LATER, LATER, LATER)
    assert [vectors.has(digest) for digest in old] == [False, True, False]
    assert vectors.get(old[0]) is vectors.get(old[2]) is None
    assert vectors.get(old[1]).tobytes() == numbers(2).tobytes()
    assert [spool.get(digest) is not None for digest in old] == [False, not refuses, False]


def test_what_the_disk_lost_of_others_vectors_counts_as_gone(tmp_path, monkeypatch):
    spool = Spool(tmp_path, np.dtype(np.float32), LENGTH, lambda why: None)
    vectors = Vectors(LENGTH, spare=0, spool=spool)
    vectors.window(OLD, OLD, NEXT, NOW)
    old = taken(vectors, NOW, 1)
    vectors.window(OLD, OLD, LATER, NEXT)
    vectors.expect(header(NEXT, digest_of(numbers(2))))
    vectors.judge(ORIGIN, NEXT, digest_of(numbers(2)), NBYTES)
    assert spool.get(old) is not None
    for lost in (None, numbers(9), numbers(1)[1:]):
        monkeypatch.setattr(spool, "get", lambda _, lost=lost: lost)
        assert vectors.get(old) is None


def test_ones_own_of_slots_that_were_left_are_read_from_disk_again_once_for_all_who_ask():
    own = {slot: numbers(value) for value, slot in enumerate((OLD, NOW, NEXT, LATER))}
    digests, disk, read = {slot: digest_of(vector) for slot, vector in own.items()}, dict(own), []

    def kept(slot):
        read.append(slot)
        return None if disk[slot] is None else disk[slot].copy()

    vectors = Vectors(LENGTH, kept=kept)
    for slot, vector in own.items():
        vectors.put(slot, digests[slot], vector)
    vectors.window(LATER, OLD, LATER, LATER)
    assert len(vectors) == 1
    assert vectors.get(digests[LATER]) is own[LATER]
    assert all(vectors.has(digest) for digest in digests.values())
    assert read == []
    first, second = vectors.get(digests[NOW]), vectors.get(digests[NOW])
    assert first.tobytes() == own[NOW].tobytes()
    assert first is second
    assert read == [NOW]
    del first, second
    for lost in (None, numbers(9), numbers(1)[1:]):
        disk[NOW] = lost
        assert vectors.get(digests[NOW]) is None, "what is on disk is not what was said"
    sent = vectors.get(digests[OLD])
    vectors.window(LATER, NEXT, LATER, LATER)
    assert sent.tobytes() == own[OLD].tobytes()
    assert not vectors.has(digests[OLD])
    assert not vectors.has(digests[NOW])
    assert vectors.get(digests[OLD]) is None, "though it is still on its way to somebody"
    assert read == [NOW] * 4 + [OLD]
