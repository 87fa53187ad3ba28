"""Keys and networks: what is made once, and never overwritten."""

import json
import stat
from pathlib import Path

import pytest

from p2pnode import identity
from p2pnode.config import NodeConfig
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity, certified_key
from p2pnode.storage.signer import DurableSigner
from tests.own_code import written

ADDRESSES = [part for i in range(5) for part in ("--address", f"n{i}=127.0.0.1:{7000 + i}")]


def test_keygen_makes_a_key_that_its_owner_alone_reads_and_never_overwrites_one(call, tmp_path):
    home = Home(tmp_path / "a" / "alice")
    code, out, _ = call("keygen", home.path, "--name", "alice", "--json")
    told = json.loads(out)
    assert code == 0
    assert Identity.load(home.key).public_key.hex() == told["public_key"]
    assert certified_key(home.certificate.read_text()).hex() == told["public_key"]
    assert stat.S_IMODE(home.key.stat().st_mode) == 0o600
    DurableSigner(Identity.load(home.key), home.journal).close()
    before = home.key.read_bytes()
    code, _, err = call("keygen", home.path)
    assert code == 2
    assert "exists; move it away first, a key is never overwritten" in err
    assert home.key.read_bytes() == before
    code, out, _ = call("keygen", tmp_path / "bob")
    assert Identity.load(Home(tmp_path / "bob").key).public_key.hex() in out
    assert call("keygen", "/proc/nowhere")[0] == 2


def test_members_on_their_own_machines_make_one_genesis_of_their_cards(call, tmp_path):
    cards = []
    for i, name in enumerate("abcde"):
        code, out, _ = call("keygen", tmp_path / name, "--name", name, "--address", f"10.0.0.{i}:7000", "--json")
        told = json.loads(out)
        assert (code, told["name"], told["address"]) == (0, name, f"10.0.0.{i}:7000")
        cards.append(told["card"])
        assert NodeConfig.load(Home(tmp_path / name).config).listen == "0.0.0.0:7000"
    file = tmp_path / "genesis.json"
    code, out, err = call("genesis", "new", *cards, "--out", file, "--f", 1, "--steps", 9)
    assert (code, err) == (0, "")
    genesis = Genesis.load(file)
    assert genesis.network.hex() in out
    assert [member.name for member in genesis.members] == list("abcde")
    assert (genesis.f, genesis.training.steps) == (1, 9)
    code, out, _ = call("genesis", "show", file, "--json")
    assert (code, json.loads(out)["network"]) == (0, genesis.network.hex())
    assert call("genesis", "new", *cards, "--out", file)[0] == 2
    code, _, err = call("genesis", "new", *cards[:4], "--out", tmp_path / "g", "--f", 1)
    assert code == 2
    assert "n ≥ 4f+1" in err
    assert not (tmp_path / "g").exists()


def test_a_key_is_sealed_and_unsealed_by_a_passphrase_that_is_no_argument(call, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "SEAL_MEMORY_BYTES", 8192)
    home, secret, wrong = Home(tmp_path / "alice"), tmp_path / "secret", tmp_path / "wrong"
    secret.write_text("right\n")
    wrong.write_text("wrong\n")
    assert call("keygen", home.path)[0] == 0
    clear, key = home.key.read_bytes(), Identity.load(home.key).public_key
    assert call("seal", home.path, "--passphrase-file", tmp_path / "none")[0] == 2
    assert home.key.read_bytes() == clear
    code, out, _ = call("seal", home.path, "--passphrase-file", secret)
    assert (code, out.split()[:2]) == (0, ["sealed", str(home.key)])
    assert stat.S_IMODE(home.key.stat().st_mode) == 0o600
    assert Identity.load(home.key, lambda: b"right").public_key == key
    sealed = home.key.read_bytes()
    for command, file, reason in (
        ("seal", secret, "it is sealed already. Remedy: `p2pnode unseal` it first"),
        ("unseal", wrong, "the passphrase is another. Remedy: try again"),
    ):
        code, _, err = call(command, home.path, "--passphrase-file", file)
        assert code == 2
        assert f"key {home.key}: {reason}" in err
        assert home.key.read_bytes() == sealed
    monkeypatch.setenv("P2PNODE_PASSPHRASE", "right")
    assert call("unseal", home.path)[0] == 0
    assert home.key.read_bytes() == clear


def test_a_key_can_be_sealed_when_it_is_made(call, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "SEAL_MEMORY_BYTES", 8192)
    monkeypatch.setenv("P2PNODE_PASSPHRASE", "right")
    home = Home(tmp_path / "alice")
    code, out, _ = call("keygen", home.path, "--seal", "--json")
    assert code == 0
    key = Identity.load(home.key, lambda: b"right")
    assert key.public_key.hex() == json.loads(out)["public_key"]
    DurableSigner(key, home.journal).close()
    monkeypatch.setenv("P2PNODE_PASSPHRASE", "")
    assert call("keygen", tmp_path / "bob", "--seal")[0] == 2
    assert not (tmp_path / "bob").exists()


def test_init_founds_what_run_can_start_from(call, tmp_path):
    net = tmp_path / "net"
    code, out, err = call("init", net, *ADDRESSES, "--f", 1, "--steps", 9, "--lr", 0.25, "--seed", 4)
    assert (code, err) == (0, "")
    genesis = Genesis.load(net / "genesis.json")
    assert (genesis.f, genesis.seed, genesis.training.steps, genesis.training.lr) == (1, 4, 9, 0.25)
    assert genesis.network.hex() in out
    for i in range(5):
        assert str(net / f"n{i}") in out
        assert NodeConfig.load(Home(net / f"n{i}").config).listen == f"127.0.0.1:{7000 + i}"
    code, out, _ = call("init", tmp_path / "other", *ADDRESSES, "--json")
    told = json.loads(out)
    assert (code, told["homes"]) == (0, [str(tmp_path / "other" / f"n{i}") for i in range(5)])
    assert Genesis.load(Path(told["genesis"])).network.hex() == told["network"]
    call("init", tmp_path / "third", *ADDRESSES, "--wire", "bfloat16", "--staleness", 1)
    plan = Genesis.load(tmp_path / "third" / "genesis.json").plan
    assert (plan.wire, plan.staleness) == ("bfloat16", 1)
    before = (net / "genesis.json").read_bytes()
    code, _, err = call("init", net, *ADDRESSES)
    assert code == 2
    assert "holds a genesis already. Remedy: choose another folder" in err
    assert (net / "genesis.json").read_bytes() == before


def test_cards_and_a_task_of_ones_own_make_a_genesis_with_its_start_beside_it(call, tmp_path):
    code, out = written(tmp_path, "code_of_cards"), tmp_path / "genesis.json"
    assert call("keygen", tmp_path / "a", "--name", "a", "--task", f"{code}:task")[0] == 0
    assert NodeConfig.load(Home(tmp_path / "a").config).task == f"{code}:task"
    card = Home(tmp_path / "a").card
    status, told, err = call("genesis", "new", card, "--task", f"{code}:Net", "--out", out, "--json")
    assert status == 0, err
    assert json.loads(told)["model"]["parameters"] == 74
    assert out.with_name("start.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--address", "127.0.0.1:7000"], "no name in it. Remedy: write NAME=HOST:PORT"),
        (["--address", "a=localhost"], "address = 'localhost'"),
        (["--address", "A=h:1"], "use lower-case letters"),
        (["--address", "a=h:1", "--address", "a=h:2"], "2 members share the name a"),
        (["--address", "a=h:1", "--address", "b=h:1"], "2 members share the address h:1"),
        ([*ADDRESSES, "--f", "2"], "n=5 tolerates f=1; f=2 needs n ≥ 9"),
        ([*ADDRESSES, "--task", "mnist"], "data-dir is missing"),
    ],
)
def test_a_wrong_network_is_refused_and_nothing_written(call, tmp_path, arguments, wanted):
    code, _, err = call("init", tmp_path / "net", *arguments)
    assert code == 2
    assert wanted in err
    assert "emedy" in err
    assert not (tmp_path / "net").exists()
