"""One node: what is examined, run, asked and watched."""

import json
import os

import pytest

from p2pnode import identity, process
from p2pnode.cli import node
from p2pnode.home import Home

ADDRESSES = [part for i in range(5) for part in ("--address", f"n{i}=127.0.0.1:{7000 + i}")]


def test_doctor_tells_a_home_that_runs_from_one_that_does_not(call, tmp_path):
    call("init", tmp_path / "net", *ADDRESSES, "--f", 1)
    home = tmp_path / "net" / "n0"
    code, out, _ = call("doctor", home, "--patience", 0.2, "--json")
    assert code == 0
    assert {finding["verdict"] for finding in json.loads(out)} == {"good", "note"}
    Home(home).key.chmod(0o644)
    code, out, _ = call("doctor", home, "--patience", 0.2)
    assert code == 1
    assert "chmod 600" in out


def test_a_sealed_home_runs_with_a_file_that_holds_its_passphrase(call, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "SEAL_MEMORY_BYTES", 8192)
    (tmp_path / "secret").write_text("right")
    monkeypatch.setattr(process, "run_node", lambda home, *_, ask, **__: int(ask() != b"right"))
    assert call("run", tmp_path, "--passphrase-file", tmp_path / "secret")[0] == 0


def test_a_liar_is_told_with_whom_it_lies(call, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run_node", lambda home, attacks, liars, *_, **__: [*attacks, *liars] != list("abc"))
    monkeypatch.setattr(node, "check_attacks", lambda attacks: None)
    assert call("run", tmp_path, "--attack", "a", "--liars", "b, c")[0] == 0


def test_run_refuses_what_is_no_home(call, tmp_path):
    code, _, err = call("run", tmp_path / "none")
    assert code == 2
    assert "make a home with `p2pnode init`" in err
    call("init", tmp_path / "net", *ADDRESSES)
    code, _, err = call("run", tmp_path / "net" / "n0", "--attack", "slander")
    assert code == 2
    assert "attack = 'slander'" in err
    with Home(tmp_path / "net" / "n0").occupied():
        code, _, err = call("run", tmp_path / "net" / "n0")
    assert code == 2
    assert f"process {os.getpid()} runs this node; stop it first" in err


def test_what_is_shown_of_a_log_is_chosen_and_what_there_is_not_refused(call, tmp_path, monkeypatch):
    seen = []

    def run_node(*_, console, shown, **__):
        seen.append((console, shown))
        return 0

    monkeypatch.setattr(process, "run_node", run_node)
    call("run", tmp_path)
    call("run", tmp_path, "--json", "--log-level", "error")
    call("run", tmp_path, "--log-format", "json", "--log-level", "warning")
    assert seen == [("people", "info"), ("json", "error"), ("json", "warning")]
    for option, choices in (("level", "info, warning, error"), ("format", "text, json")):
        code, _, err = call("run", tmp_path, f"--log-{option}", "loud")
        assert code == 2
        assert f"log-{option} = 'loud': no such {option}. Remedy: choose one of {choices}" in err


@pytest.mark.parametrize("address", [None, "127.0.0.1:1", "nonsense", ""])
def test_status_of_a_node_that_does_not_run_fails_with_the_remedy(call, tmp_path, address):
    if address is not None:
        (tmp_path / "admin").write_text(address)
    code, out, err = call("status", tmp_path)
    assert (code, out) == (1, "")
    assert f"start it with `p2pnode run {tmp_path}`" in err
    assert "Traceback" not in err
    code, _, err = call("status", tmp_path / "none")
    assert code == 1
    assert f"{tmp_path}/none: no such folder. Remedy: name the home of a node" in err


def test_top_tells_that_there_is_no_home_or_no_node(call, tmp_path):
    code, _, err = call("top", tmp_path)
    assert code == 2
    assert f"{tmp_path}: neither a home nor a folder of homes. Remedy: " in err
    (tmp_path / "node.toml").touch()
    code, out, err = call("top", tmp_path, "--once", "--every", 0.1)
    assert (code, out) == (1, "")
    assert "no node answers; start one with `p2pnode run HOME`" in err
