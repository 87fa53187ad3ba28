"""Beginnings of vectors: who goes on with them, and what is left of them when they turn out to be wrong."""

from dataclasses import dataclass, field

import pytest

from p2pnode.storage.unfinished import Unfinished

A, B, C = 1, 2, 3
D, E = b"d" * 32, b"e" * 32


@dataclass
class Beginning:
    filled: int
    senders: set[int] = field(default_factory=set)


@pytest.fixture
def unfinished():
    return Unfinished()


def test_any_peer_goes_on_where_it_stopped_and_nowhere_else(unfinished):
    part = Beginning(100)
    unfinished.keep(A, D, part)
    assert unfinished.offset(D, A) == unfinished.offset(D, B) == 100
    assert unfinished.offset(E, A) == 0
    assert unfinished.offsets(B) == [(D, 100)]
    assert [unfinished.resume(D, B, offset) for offset in (99, 101, 0)] == [None] * 3
    assert unfinished.resume(E, B, 100) is None
    assert unfinished.resume(D, B, 100) is part
    assert part.senders == {A, B}
    assert unfinished.offset(D, A) == 0, "who goes on with it has it"
    assert unfinished.resume(D, A, 100) is None
    assert len(unfinished) == 0


def test_of_each_peer_that_was_lost_one_beginning_is_kept(unfinished):
    for number in range(100):
        unfinished.keep(A, bytes([number]) * 32, Beginning(1 + number))
        unfinished.keep(B, bytes([number + 100]) * 32, Beginning(1 + number))
    assert len(unfinished) == 2
    assert unfinished.offsets(C) == [(bytes([99]) * 32, 100), (bytes([199]) * 32, 100)]


@pytest.mark.parametrize("longer_first", [True, False])
def test_of_two_beginnings_of_one_vector_the_longer_is_kept(unfinished, longer_first):
    for peer, filled in sorted(((A, 10), (B, 20)), reverse=longer_first):
        unfinished.keep(peer, D, Beginning(filled))
    assert len(unfinished) == 1
    assert unfinished.offset(D, C) == 20


def test_what_did_not_fit_together_is_put_together_from_several_no_more(unfinished):
    unfinished.spoil(D)
    unfinished.keep(A, D, Beginning(10))
    assert (unfinished.offset(D, A), unfinished.offset(D, B)) == (10, 0)
    assert unfinished.offsets(B) == []
    assert unfinished.resume(D, B, 10) is None
    assert unfinished.resume(D, A, 10).senders == {A}
    unfinished.drop(D)
    unfinished.keep(A, D, Beginning(10))
    assert unfinished.offset(D, B) == 10, "what came whole after all is forgotten"


def test_what_nobody_wants_any_more_is_forgotten(unfinished):
    for peer, digest in ((A, D), (B, E)):
        unfinished.keep(peer, digest, Beginning(10))
        unfinished.spoil(digest)
    unfinished.forget(lambda digest: digest == E)
    assert len(unfinished) == 1
    assert unfinished.offset(E, B) == 10
    assert unfinished._spoiled == {E}
    unfinished.drop(E)
    assert len(unfinished) == 0
    assert unfinished._spoiled == set()
