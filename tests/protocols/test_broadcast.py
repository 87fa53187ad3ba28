"""What each kind of broadcast says of itself."""

import pytest

from protocols.errors import UsageError
from protocols.header import Slot
from protocols.plain import Plain
from protocols.reliable import Reliable
from protocols.signed_echo import SignedEcho
from tests.ideal import digest, party

KINDS = Plain, SignedEcho, Reliable


def test_a_total_broadcast_is_consistent_and_a_consistent_one_need_not_be_total():
    assert [(kind.consistent, kind.total) for kind in KINDS] == [(False, False), (True, False), (True, True)]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_origin_starts_and_once_even_where_it_is_refused(kind):
    with pytest.raises(UsageError, match="only member 0 starts"):
        kind(party(1), Slot(0), 0).start(digest("a"))
    before = kind(party(0), Slot(0), 0)
    before.start(digest("a"))
    after = kind(before.party, Slot(0), 0)
    assert after.start(digest("b")) == []
    for origin in (before, after):
        with pytest.raises(UsageError, match="and once"):
            origin.start(digest("a"))
