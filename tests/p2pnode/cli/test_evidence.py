"""A proof convinces whoever holds the genesis, and nothing else does."""

import json
import os

import pytest

from p2pnode.codec import encode_evidence
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity
from protocols.faults import Equivocation
from protocols.header import FLOAT32, Header, PeerId, SignedHeader, Slot

ADDRESSES = [part for i in range(5) for part in ("--address", f"n{i}=127.0.0.1:{7000 + i}")]


@pytest.fixture
def network(call, tmp_path):
    """A founded network and a proof against its third member."""
    call("init", tmp_path / "net", *ADDRESSES, "--f", 1)
    genesis = Genesis.load(tmp_path / "net" / "genesis.json")
    identity = Identity.load(Home(tmp_path / "net" / "n2").key)

    def signed(digest):
        header = Header(genesis.network, PeerId(2), Slot(7, 0, 1), FLOAT32, 10, digest)
        return SignedHeader(header, identity.sign(header.proposal().statement))

    file = tmp_path / "proof"
    file.write_bytes(encode_evidence(Equivocation.of(signed(bytes(32)), signed(bytes(31) + b"\x01"))))
    return tmp_path / "net" / "genesis.json", file


def test_a_proof_that_holds_names_the_accused_and_what_it_signed(call, network):
    genesis, file = network
    code, out, err = call("verify-evidence", file, "--genesis", genesis)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "n2 equivocated: it signed two vectors for step 7",
        "  " + bytes(32).hex(),
        "  " + (bytes(31) + b"\x01").hex(),
    ]
    told = json.loads(call("verify-evidence", file, "--genesis", genesis, "--json")[1])
    assert told == {"accused": "n2", "fault": "equivocated", "step": 7, "sub_round": 1}


def test_with_any_byte_changed_or_missing_it_proves_nothing(call, network):
    genesis, file = network
    proof = file.read_bytes()
    for place in range(len(proof)):
        file.write_bytes(proof[:place] + bytes([proof[place] ^ 0x01]) + proof[place + 1 :])
        code, out, err = call("verify-evidence", file, "--genesis", genesis)
        assert (code, out) == (1, ""), f"byte {place}"
        assert "proves nothing" in err
    for wrong in (proof[:-1], proof + b"\0", b"", os.urandom(300)):
        file.write_bytes(wrong)
        assert call("verify-evidence", file, "--genesis", genesis)[0] == 1


def test_in_another_network_it_proves_nothing(call, network, tmp_path):
    _, file = network
    call("init", tmp_path / "other", *ADDRESSES, "--f", 1)
    code, _, err = call("verify-evidence", file, "--genesis", tmp_path / "other" / "genesis.json")
    assert code == 1
    assert "proves nothing" in err


def test_a_file_that_is_missing_is_a_mistake_in_the_settings(call, network, tmp_path):
    genesis, file = network
    code, _, err = call("verify-evidence", tmp_path / "none", "--genesis", genesis)
    assert code == 2
    assert "give an evidence file" in err
    code, _, err = call("verify-evidence", file, "--genesis", tmp_path / "none")
    assert code == 2
    assert "make one with `p2pnode init`" in err
