"""The command line: exit codes, messages that help, and nothing begun that is refused."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from p2pnode import cli, identity, process
from p2pnode.codec import encode_evidence
from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError, P2PNodeError
from p2pnode.experiment import engine
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity, certified_key
from p2pnode.storage.signer import DurableSigner
from p2pnode.testnet import free_ports
from protocols.faults import Equivocation
from protocols.header import FLOAT32, Header, PeerId, SignedHeader, Slot
from tests import trials
from tests.own_code import written

ADDRESSES = [part for i in range(5) for part in ("--address", f"n{i}=127.0.0.1:{7000 + i}")]


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command line as `python -m p2pnode` does: (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["p2pnode", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.run(0.0)
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture
def no_sockets(monkeypatch):
    """Whoever opens a socket of the network or starts a process fails the test."""

    class LocalSocket(socket.socket):
        def __init__(self, family=socket.AF_INET, *args, **kwargs):
            assert family == socket.AF_UNIX, "begun although it is refused"  # the event loop has one of its own
            super().__init__(family, *args, **kwargs)

    def refused(*args, **kwargs):
        raise AssertionError("begun although it is refused")

    monkeypatch.setattr(socket, "socket", LocalSocket)
    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--nodes", 8, "--byzantine", 2], ["n ≥ 4f+1", "n=8 tolerates f=1", "n ≥ 9", "choose f=1"]),
        (["--recipe", "monna", "--nodes", 5], ["n ≥ 5f+1", "n ≥ 6"]),
        (["--recipe", "dsgd", "--f", 1], ["f = 1", "mean", "choose f=0"]),
        (["--nodes", 3, "--byzantine", 3], ["byzantine = 3", "one at least is honest", "choose fewer"]),
        (["--attack", "sing-flip"], ["attack = 'sing-flip'", "did you mean 'sign-flip'?", "alie"]),
        (["--attack", ""], ["attack = ''", "choose from alie"]),
        (["--recipe", "trimed"], ["recipe = 'trimed'", "did you mean 'trimmed'?", "dsgd"]),
        (["--rule", "medain"], ["medain", "median"]),
        (["--broadcast", "gossip"], ["broadcast = 'gossip'", "plain, signed-echo"]),
        (["--task", "cifar"], ["task = 'cifar'", "digits, mnist, mnist-mlp, fashion-mnist"]),
        (["--task", "mnist"], ["data-dir is missing", "--data-dir FOLDER"]),
        (["--steps", 0], ["training.steps = '0'", "greater than or equal to 1", "choose at least 1"]),
        (["--lr", "nan"], ["training.lr = 'nan'", "choose a positive step size"]),
        (["--momentum", 1], ["training.momentum = '1.0'", "choose 0 ≤ momentum < 1"]),
        (["--sub-rounds", 65], ["recipe.sub_rounds = '65'", "choose from 1 to 64"]),
        (["--wire", "float8"], ["recipe.wire = 'float8'", "choose one of float32, bfloat16, float16"]),
        (
            ["--staleness", 1, "--recipe", "jungle-rb"],
            ["staleness = 1: jungle-rb exchanges more", "as trimmed or monna"],
        ),
        (["--seed", -1], ["seed = '-1'", "choose an integer from 0"]),
        (["--engine", "virtual"], ["engine = 'virtual'", "choose one of processes, netns, containers"]),
        (["--link-mbit", 10], ["link-mbit = 10", "processes has no such links", "--engine netns"]),
        (["--link-delay", 20, "--engine", "containers"], ["link-delay = 20", "--engine netns"]),
        (["--perturb", "random", "--engine", "containers"], ["containers cannot be hurt", "choose another engine"]),
        (["--image", "p2pnode"], ["image = 'p2pnode'", "add --engine containers"]),
        (["--perturb", "none.toml"], ["perturb = 'none.toml'", "No such file", "name a file, or random"]),
        (["--perturb-seed", 3], ["perturb-seed = 3: nothing is drawn", "add --perturb random"]),
    ],
)
def test_a_wrong_testnet_is_refused_with_reason_and_remedy_before_a_socket_opens(
    call, no_sockets, monkeypatch, tmp_path, arguments, wanted
):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("testnet", *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith(("refused ", "note "))
    for part in wanted:
        assert part in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_more_liars_than_the_recipe_tolerates_are_allowed_and_said(call, no_sockets, monkeypatch):
    """Attacks on the baseline are what one wants to see."""
    monkeypatch.setattr(cli, "_watch_testnet", lambda plan, _, quiet, page: {"f": plan.values["f"], "n": plan.nodes})
    code, out, err = call("testnet", "--recipe", "dsgd", "--attack", "sign-flip", "--json")
    assert (code, json.loads(out)) == (0, {"f": 0, "n": 7})
    assert "note" in err
    assert "byzantine = 1, and the recipe tolerates f = 0" in err


PARTITION = '[[perturbation]]\nkind = "partition"\nnodes = ["node0"]\nat_step = 5\nfor_s = 1\n'


def test_what_an_engine_cannot_do_to_its_nodes_is_refused_before_anything_starts(call, no_sockets, tmp_path):
    (tmp_path / "p.toml").write_text(PARTITION)
    code, out, err = call("testnet", "--out", tmp_path / "net", "--perturb", tmp_path / "p.toml")
    assert (code, out) == (2, "")
    assert "p.toml: perturbation.0.kind: partition needs hosts of their own" in err
    assert "Remedy: add --engine netns" in err
    assert not (tmp_path / "net").exists()


def test_what_is_drawn_follows_from_the_seed_and_is_printed_as_the_file_that_does_it_again(
    call, no_sockets, monkeypatch, tmp_path
):
    done = []
    monkeypatch.setattr(cli, "_watch_testnet", lambda plan, drawn, quiet, page: done.append(drawn) or {})
    drawn = []
    for more in (["--seed", 7], ["--perturb-seed", 7], ["--seed", 7, "--perturb-seed", 8]):
        code, _, err = call("testnet", "--perturb", "random", "--json", *more)
        assert code == 0
        drawn.append(err.partition("perturb.toml:\n")[2])
    assert done[0] == done[1] != done[2]
    assert drawn[0] == drawn[1] != drawn[2]
    (tmp_path / "p.toml").write_text(drawn[0])
    assert call("testnet", "--perturb", tmp_path / "p.toml", "--json")[0] == 0
    assert done[3] == done[0]


@pytest.mark.parametrize(("failures", "code"), [([], 0), (["node0 did not step again", "node1 [is] accused"], 1)])
def test_each_broken_promise_of_a_perturbed_testnet_is_said_and_is_an_exit_code(call, monkeypatch, failures, code):
    monkeypatch.setattr(cli, "_watch_testnet", lambda plan, perturbations, quiet, page: {"failures": failures})
    ended, out, err = call("testnet", "--json")
    assert (ended, json.loads(out)) == (code, {"failures": failures})
    assert [line for line in err.splitlines() if "broken" in line] == [f"broken {one}" for one in failures]


def test_exit_codes(call, monkeypatch):
    for error, code, word in ((ConfigError("a [b] c"), 2, "refused"), (P2PNodeError("d [e] f"), 1, "failed")):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(cli, "_watch_testnet", fail)
        assert call("testnet") == (code, "", f"{word} {error}\n")
    assert call("testnet", "--nodes", "many")[0] == 2
    assert call("frobnicate")[0] == 2
    assert call("--help")[0] == 0


def test_as_a_module_too(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "p2pnode", "testnet", "--nodes", "8", "--byzantine", "2", "--out", tmp_path / "net"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "n ≥ 4f+1" in done.stderr
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["testnet"],
        ["keygen"],
        ["init"],
        ["run"],
        ["status"],
        ["top"],
        ["verify-evidence"],
        ["simulate"],
        ["doctor"],
        ["genesis"],
        ["export"],
        ["evaluate"],
    ],
)
def test_every_command_explains_itself(command):
    for flag in ("--help", "-h"):
        told = CliRunner().invoke(cli.app, [*command, flag])
        assert told.exit_code == 0
        assert len(told.output.splitlines()) > 8


def test_it_tells_its_version(call):
    code, out, err = call("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"p2pnode \d+\.\d+\.\d+\n", out)


def test_help_has_examples():
    assert "p2pnode testnet --recipe dsgd --attack sign-flip" in CliRunner().invoke(cli.app, ["testnet", "-h"]).output
    assert "p2pnode init lan --f 1 --address a=" in CliRunner().invoke(cli.app, ["init", "-h"]).output
    simulate = CliRunner().invoke(cli.app, ["simulate", "-h"]).output
    assert "\n   p2pnode simulate --nodes 13 --byzantine 3 --attack equivocate --seeds 20" in simulate
    assert "\n   p2pnode simulate --recipe reliable --byzantine 2 --f 1 --beyond-the-bound" in simulate


# Keys and networks.


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


def test_a_sealed_home_runs_with_a_file_that_holds_its_passphrase(call, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "SEAL_MEMORY_BYTES", 8192)
    (tmp_path / "secret").write_text("right")
    monkeypatch.setattr(process, "run_node", lambda home, *_, ask, **__: int(ask() != b"right"))
    assert call("run", tmp_path, "--passphrase-file", tmp_path / "secret")[0] == 0


def test_a_liar_is_told_with_whom_it_lies(call, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run_node", lambda home, attacks, liars, *_, **__: [*attacks, *liars] != list("abc"))
    monkeypatch.setattr(cli, "check_attacks", lambda attacks: None)
    assert call("run", tmp_path, "--attack", "a", "--liars", "b, c")[0] == 0


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


def test_ones_own_task_is_founded_run_measured_and_exported(call, tmp_path):
    code, out = written(tmp_path, "code_by_command"), tmp_path / "net"
    address = f"a=127.0.0.1:{free_ports(1)[0]}"
    status, told, err = call("init", out, "--task", f"{code}:task", "--address", address, "--steps", 5, "--json")
    assert status == 0, err
    home = Home(out / "a")
    training = Genesis.load(home.genesis).training
    assert (training.task, training.steps, training.lr, training.model.parameters) == ("net", 5, 0.5, 74)
    assert NodeConfig.load(home.config).task == f"{code}:task"
    status, told, err = call("genesis", "show", home.genesis)
    assert "model    net, 74 parameters" in told
    assert "to be start.safetensors in each home" in told
    assert call("run", home.path, "--json")[0] == 0
    status, told, err = call("export", home.path, tmp_path / "w", "--json")
    assert (status, json.loads(told)["step"]) == (0, 5)
    measured = [
        json.loads(call("evaluate", what, *more, "--json")[1])
        for what, more in ((home.path, ()), (tmp_path / "w", ("--task", f"{code}:task")))
    ]
    assert measured[0]["accuracy"] == measured[1]["accuracy"] == json.loads(home.result.read_text())["accuracy"]
    assert "test samples" in call("evaluate", home.path)[1]
    net = ("--task", f"{code}:Net", "--address", address, "--steps", 3)
    started = call("init", tmp_path / "next", *net, "--start", tmp_path / "w")
    assert started[0] == 0
    after = Home(tmp_path / "next" / "a")
    assert Genesis.load(after.genesis).training.model.start != training.model.start
    assert NodeConfig.load(after.config).task is None, "a model alone, for p2pnode.fit"
    status, _, err = call("run", after.path)
    assert (status, "or by p2pnode.fit" in err) == (2, True)
    assert call("run", after.path, "--task", f"{code}:task", "--json")[0] == 0
    assert json.loads(after.result.read_text())["accuracy"] > measured[0]["accuracy"] - 0.05, (
        "it began where that ended"
    )


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
        (("testnet", "--task", "{code}:Net"), "it is a model alone. Remedy: name a p2pnode.task"),
        (("testnet", "--task", "{code}:nothing"), "there is no nothing in"),
        (("testnet", "--task", "{code}"), "name the task too, as FILE.py:NAME"),
        (("testnet", "--start", "nowhere"), "nowhere: No such file or directory. Remedy: name a safetensors file"),
        (("simulate", "--train", "--task", "{code}:task"), "no such task"),
        (("evaluate", "nowhere"), "nowhere: No such file"),
        (("evaluate", ".", "--data-dir", "."), "data-dir: .* names it. Remedy: leave it out"),
        (("export", "nowhere", "out"), "nowhere/node.toml: No such file"),
    ],
)
def test_a_wrong_task_of_ones_own_is_refused(call, no_sockets, tmp_path, monkeypatch, arguments, wanted):
    monkeypatch.chdir(tmp_path)
    code = written(tmp_path, "code_that_is_refused")
    status, _, err = call(*(part.format(code=code) for part in arguments))
    assert status == 2
    assert re.search(wanted, " ".join(err.split())), err


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


# Simulations.

BROKEN = ("--recipe", "reliable", "--nodes", 4, "--byzantine", 2, "--f", 1, "--beyond-the-bound")
"""Where two liars of four are silent no broadcast of an honest member, which even seeds have, is delivered."""


@pytest.fixture
def no_runs(monkeypatch):
    """Whoever runs a simulation fails the test."""

    def refused(*args, **kwargs):
        raise AssertionError("begun although it is refused")

    monkeypatch.setattr("p2pnode.simulation.sweep.run_all", refused)


def test_simulations_are_summed_up_for_machines(call):
    code, out, err = call("simulate", "--seeds", 5, "--recipe", "trimmed", "--nodes", 5, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert (told["recipe"], told["nodes"], told["byzantine"], told["f"]) == ("trimmed", 5, 1, 1)
    assert (told["runs"], told["violations"], told["broken"]) == (5, 0, [])
    assert told["deliveries"] > told["messages"] > 100 > told["wall_seconds"] > 0
    assert told["bytes"] > 10 * told["messages"]
    assert told["virtual_seconds"] > 100
    assert len(bytes.fromhex(told["trace_digest"])) == 16
    again = json.loads(call("simulate", "--seeds", 5, "--recipe", "trimmed", "--nodes", 5, "--json")[1])
    assert again | {"wall_seconds": 0} == told | {"wall_seconds": 0}
    other = call("simulate", "--seeds", 5, "--first-seed", 1, "--recipe", "trimmed", "--nodes", 5, "--json")[1]
    assert json.loads(other)["trace_digest"] != told["trace_digest"]


def test_simulations_are_summed_up_for_people(call):
    code, out, err = call("simulate", "--seeds", 3, "--recipe", "reliable")
    told = json.loads(call("simulate", "--seeds", 3, "--recipe", "reliable", "--json")[1])
    assert (code, err) == (0, "")
    assert "reliable: 4 nodes, 1 lying, f = 1" in out
    rows = {cells[1].strip(): cells[2].strip() for line in out.splitlines() if len(cells := line.split("│")) == 4}
    assert rows["runs"] == "3"
    assert rows["violations"] == "0"
    assert rows["deliveries"] == f"{told['deliveries']:,}"
    assert rows["messages"].startswith(f"{told['messages']:,} ({told['messages'] / told['quiet_messages']:.2f} of ")
    assert rows["bytes"].startswith(f"{told['bytes']:,} ({told['bytes'] / told['quiet_bytes']:.2f} of ")
    assert rows["virtual time"] == f"{told['virtual_seconds']:,.0f} s"
    assert rows["trace digest"] == told["trace_digest"]
    assert "accuracy" not in rows
    assert "time  n0" not in out


def test_a_violation_comes_with_the_command_that_shows_it_again_and_a_diagram(call):
    code, out, _ = call("simulate", *BROKEN, "--attack", "silent", "--seeds", 13)
    assert code == 1
    told = json.loads(call("simulate", *BROKEN, "--attack", "silent", "--seeds", 13, "--json")[1])
    assert told["violations"] == len(told["broken"]) == 7
    lines = out.splitlines()
    for one in told["broken"][:5]:
        place = lines.index(f"seed {one['seed']}: {one['found']}")
        assert lines[place + 1] == f"  {one['replay']}"
    assert "and 2 more" in lines
    assert f"seed {told['broken'][5]['seed']}: " not in out
    begin = lines.index("seed 0, the end of it:")
    assert lines[begin + 1].split() == ["time", "n0", "n1", "n2", "n3"]
    assert any("▶" in line and "Proposal 0/0/0 of n0" in line for line in lines[begin:])
    assert lines[-1] == told["broken"][0]["found"]


def test_for_machines_a_violation_is_an_exit_code_and_no_diagram(call):
    code, out, err = call("simulate", *BROKEN, "--attack", "silent", "--seeds", 1, "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["violations"] == 1


def test_a_good_run_is_drawn_where_that_is_asked_for(call):
    code, out, _ = call(
        "simulate", "--recipe", "signed-echo", "--byzantine", 0, "--seeds", 2, "--first-seed", 3, "--show"
    )
    assert code == 0
    assert "seed 3, the end of it:" in out
    assert "◀" in out
    assert out.splitlines()[-1] == "every guarantee held"


def _loads_torch(worker):
    """Whether this process is a worker that is about to be ready, and no longer the copy of its parent."""
    process = Path(f"/proc/{worker}")
    return b"spawn_main" in (process / "cmdline").read_bytes() and "libtorch" in (process / "maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for its processes in /proc")
def test_ctrl_c_ends_a_simulation_and_its_workers_without_a_word():
    """Also where the workers are not ready yet: it reaches all processes of a terminal, and none shows where it was."""
    command = [sys.executable, "-m", "p2pnode", "simulate", "--recipe", "reliable", "--seeds", "100000", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as ran:
        children = Path(f"/proc/{ran.pid}/task/{ran.pid}/children")
        while not any(map(_loads_torch, children.read_text().split())):
            time.sleep(0.01)
        os.killpg(ran.pid, signal.SIGINT)
        out, err = ran.communicate(timeout=300)
    assert (ran.returncode, out, err) == (130, b"", b"")


def test_real_models_are_trained_where_that_is_asked_for(call):
    arguments = ("simulate", "--train", "--recipe", "trimmed", "--nodes", 5, "--steps", 8, "--seeds", 1)
    code, out, _ = call(*arguments, "--attack", "sign-flip", "--json")
    assert code == 0
    assert json.loads(out)["accuracy_min"] > 0.2
    assert "accuracy" in call(*arguments, "--byzantine", 0)[1]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--nodes", 3], ["n ≥ 3f+1", "use n ≥ 4 nodes", "choose f=0"]),
        (["--byzantine", 2, "--f", 1], ["byzantine = 2", "--beyond-the-bound"]),
        (["--nodes", 3, "--byzantine", 3], ["byzantine = 3", "choose fewer"]),
        (["--f", 4], ["f = 4", "smaller f"]),
        (["--attack", "sing-flip"], ["attack = 'sing-flip'", "did you mean 'sign-flip'?", "twins"]),
        (["--schedule", "storm"], ["schedule = 'storm'", "power-cut"]),
        (["--recipe", "trimed"], ["recipe = 'trimed'", "did you mean 'trimmed'?"]),
        (
            ["--recipe", "reliabel"],
            ["recipe = 'reliabel'", "did you mean 'reliable'?", "redundant, plain, signed-echo"],
        ),
        (["--recipe", "reliable", "--rule", "median"], ["leave out --rule"]),
        (["--sub-rounds", 0], ["choose from 1 to 64"]),
        (["--wire", "float8"], ["wire = 'float8'", "choose one of float32, bfloat16, float16"]),
        (["--train", "--task", "cifar"], ["task = 'cifar'", "digits, mnist, mnist-mlp, fashion-mnist"]),
        (["--train", "--task", "mnist"], ["data-dir is missing", "--data-dir FOLDER"]),
    ],
)
def test_a_wrong_simulation_is_refused_with_reason_and_remedy_before_it_runs(call, no_runs, arguments, wanted):
    code, out, err = call("simulate", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("refused ")
    assert "Remedy: " in err
    for part in wanted:
        assert part in err


# Evidence.


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


# Experiments and listings.


@pytest.fixture
def learned(monkeypatch):
    """Trials that need no training."""
    conduct = engine.conduct
    monkeypatch.setattr(engine, "conduct", partial(conduct, perform=trials.learned))


def test_an_experiment_ends_in_a_table_and_plots(call, learned, tmp_path):
    (tmp_path / "x.toml").write_text(trials.RULES)
    code, out, err = call("experiment", tmp_path / "x.toml", "--out", tmp_path / "out", "--workers", 2)
    assert code == 0, err
    for part in ("rules", "trimmed-mean", "sign-flip", "reference: recipe dsgd", "results.jsonl", "heatmap.png"):
        assert part in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.jsonl", "heatmap.png", "curves.png"}


def test_an_experiment_tells_machines_all(call, learned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").write_text(trials.RULES)
    code, out, _ = call("experiment", "x.toml", "--json")
    told = json.loads(out)
    assert (code, told["name"], told["trials"], told["failed"], len(told["cells"])) == (0, "rules", 14, 0, 7)
    assert told["plots"] == ["runs/rules/heatmap.png", "runs/rules/curves.png"]


def test_an_experiment_in_which_a_trial_failed_exits_1(call, monkeypatch, tmp_path):
    (tmp_path / "x.toml").write_text(trials.RULES)
    monkeypatch.setattr(engine, "conduct", partial(engine.conduct, perform=trials.failing))
    code, out, _ = call("experiment", tmp_path / "x.toml", "--out", tmp_path / "out")
    assert code == 1
    assert "rule median, attack sign-flip, seed 1: ValueError: lost the way" in out


def test_an_interrupted_experiment_says_how_to_go_on(call, monkeypatch, tmp_path):
    (tmp_path / "x.toml").write_text(trials.RULES)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "conduct", interrupted)
    code, out, err = call("experiment", tmp_path / "x.toml", "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert "interrupted" in err
    assert "the same command goes on" in err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["experiment", "gone.toml"], ["gone.toml: No such file", "name an experiment file"]),
        (["experiment", "x.toml", "--engine", "spark"], ["engine = 'spark'", "local, ray"]),
        (["list", "rulez"], ["list 'rulez'", "rules, attacks, recipes, tasks"]),
    ],
)
def test_a_wrong_experiment_or_list_is_refused(call, monkeypatch, tmp_path, arguments, wanted):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").write_text(trials.RULES)
    code, _, err = call(*arguments)
    assert code == 2
    assert err.startswith("refused ")
    for part in [*wanted, "Remedy: "]:
        assert part in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("what", cli.LISTS)
def test_lists_are_for_people_and_machines(call, what):
    code, out, _ = call("list", what)
    assert code == 0
    names = [entry["name"] for entry in json.loads(call("list", what, "--json")[1])]
    assert len(names) >= 3
    assert all(name in out for name in names)


def test_plan_foretells_a_network_by_measuring_this_machine(call):
    code, out, _ = call("plan", "--nodes", 5, "--byzantine", 1, "--link", "1Gbit", "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["parameters"], told["exchanges"][0]["needs"]) == (4810, "n ≥ 4f+1")
    assert told["seconds"] >= 8 * told["bytes"] / 1e9
    code, out, _ = call("plan", "--nodes", 5, "--byzantine", 1)
    assert code == 0
    assert "without a defence" in out


def test_plan_refuses_before_it_measures(call, no_sockets):
    for wrong, remedy in (
        (("--nodes", 4), "use n ≥ 5 nodes"),
        (("--nodes", 2, "--byzantine", 2), "choose fewer"),
        (("--link", "fast"), "write 100Mbit or 1Gbit"),
        (("--vectors", "carrier-pigeon"), "choose tls or plain"),
    ):
        code, _, err = call("plan", *wrong)
        assert (code, remedy in err) == (2, True), err
