"""A task of one's own, from its founding to the weights that come out."""

import json
import re

import pytest

from p2pnode.config import NodeConfig
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.testnet import free_ports
from tests.own_code import written


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
