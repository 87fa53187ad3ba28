from dataclasses import replace

import pytest

from protocols.faults import Equivocation
from protocols.header import SignedHeader, Slot
from tests.ideal import JUNK, NETWORK, digest, proof, signed, verify

ONE, OTHER = signed(1, digest("a")), signed(1, digest("b"))


def test_a_proof_convinces_whoever_holds_the_genesis():
    assert proof(ONE, OTHER).holds(NETWORK, verify)
    assert proof(ONE, OTHER).accused == 1


def test_a_proof_has_one_order():
    assert proof(ONE, OTHER) == proof(OTHER, ONE)
    backwards = Equivocation(proof(ONE, OTHER).second, proof(ONE, OTHER).first)
    assert not backwards.holds(NETWORK, verify)


@pytest.mark.parametrize(
    "other",
    [
        ONE,
        signed(2, digest("b")),
        signed(1, digest("b"), Slot(1)),
        SignedHeader(OTHER.header, JUNK),
        SignedHeader(OTHER.header, ONE.signature),
        SignedHeader(replace(OTHER.header, network=b"m" * 32), OTHER.signature),
    ],
    ids=["the same header", "another member", "another slot", "no signature", "another signature", "another network"],
)
def test_nothing_less_than_two_headers_of_one_slot_is_a_proof(other):
    assert not proof(ONE, other).holds(NETWORK, verify)


def test_a_proof_of_another_network_means_nothing_here():
    assert not proof(ONE, OTHER).holds(b"m" * 32, verify)
