"""The examples as their first lines say: each a network of real processes with a liar among them, that learns."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from p2pnode.testnet import free_ports

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300.0
"""For what takes ten seconds on an idle machine; only a failing test waits so long."""


def call(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("example", "steps", "parameters", "accuracy"),
    [("own_cnn", 16, 13_802, 0.6), ("tiny_transformer", 12, 70_976, 0.15)],
)
def test_an_example_learns_in_a_network_with_a_liar(tmp_path, example, steps, parameters, accuracy):
    out, task = tmp_path / "net", f"examples/{example}.py:task"
    told = call(
        "-m", "p2pnode", "testnet", "--task", task, "--nodes", 5, "--steps", steps, "--out", out, "--json",
        "--stall", PATIENCE_S,
    )  # fmt: skip
    summary = json.loads(told)
    assert [(node["steps"], node["exit"]) for node in summary["honest"]] == [(steps, 0)] * 4
    assert summary["accuracy_min"] > accuracy
    assert {proof["accused"] for proof in summary["evidence"]} == {"node4"}
    assert json.loads((out / "genesis.json").read_text())["training"]["model"]["parameters"] == parameters


def test_the_ten_lines_of_the_example_run_a_node(tmp_path):
    address = f"a=127.0.0.1:{free_ports(1)[0]}"
    init = ("-m", "p2pnode", "init", tmp_path / "net", "--task", "examples/own_cnn.py:CNN", "--steps", 20)
    call(*init, "--address", address)
    lines = call("examples/own_cnn.py", tmp_path / "net" / "a").splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [f"step {step} of 20" for step in range(1, 21)]
    said, accuracy, *_ = lines[-1].replace(",", "").split()
    assert said == "accuracy"
    assert float(accuracy) > 0.25, "the tenth of a guess is left behind"


class Silenced(ast.NodeTransformer):
    """Leaves out what is said for people."""

    def visit_Expr(self, node):
        return None if isinstance(node.value, ast.Constant) else node


def code_of(text):
    return ast.dump(Silenced().visit(ast.parse(text)))


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("own-attack", "own_attack.py"),
        ("own-rule", "own_rule/middle/__init__.py"),
        ("own-rule", "own_rule/middle/kernel.py"),
    ],
)
def test_a_page_shows_the_example_that_is_run(page, file):
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
    assert code_of((ROOT / "examples" / file).read_text()) in map(code_of, shown)


def test_the_attack_of_ones_own_makes_liars_of_real_nodes(tmp_path):
    attack, out = "examples/own_attack.py:exaggerate", tmp_path / "net"
    told = call(
        "-m", "p2pnode", "testnet", "--attack", attack, "--nodes", 5, "--steps", 8, "--out", out, "--json",
        "--stall", PATIENCE_S,
    )  # fmt: skip
    summary = json.loads(told)
    assert (summary["attack"], [node["steps"] for node in summary["honest"]]) == (attack, [8] * 4)
    lines = [json.loads(line) for line in (out / "node4" / "log.jsonl").read_text().splitlines()]
    assert [line["attacks"] for line in lines if line["event"] == "this node is Byzantine"] == [attack]
    assert not [line for line in lines if line["level"] == "error"]


def test_the_attack_of_ones_own_spoils_a_mean_and_not_a_trimmed_mean(tmp_path):
    sweep = ("-m", "p2pnode", "simulate", "--train", "--nodes", 5, "--attack", "examples/own_attack.py:exaggerate")
    sweep += ("--recipe", "trimmed", "--schedule", "random", "--seeds", 1, "--steps", 40, "--json")
    defended = json.loads(call(*sweep))
    spoilt = json.loads(call(*sweep, "--rule", "mean", "--f", 0, "--beyond-the-bound"))
    assert defended["accuracy_min"] > 0.8 > 0.5 > spoilt["accuracy_min"]


def test_the_rule_of_ones_own_is_installed_listed_and_mixes(tmp_path):
    """As `pip install` lays it out; its metadata are those of its pyproject.toml."""
    project = tomllib.loads((ROOT / "examples/own_rule/pyproject.toml").read_text())["project"]
    info = tmp_path / "p2pnode_middle-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in offered.items())
        for group, offered in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points))
    shutil.copytree(ROOT / "examples/own_rule/middle", tmp_path / "middle")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    network = ("-m", "p2pnode", "simulate", "--train", "--recipe", "trimmed", "--rule", "middle", "--attack", "alie")
    network += ("--schedule", "random", "--seeds", 1, "--steps", 20, "--json")
    assert json.loads(call(*network, "--nodes", 5, PYTHONPATH=path))["accuracy_min"] > 0.6
    code = """
import torch
from p2pnode.aggregation import mix
from p2pnode.listing import rows
assert {"name": "middle", "origin": "p2pnode-middle 0.1.0"} in rows("rules")
print(mix("middle", torch.tensor([[1.0], [2.0], [3.0], [7.0], [99.0]]), f=1).vector.tolist())
"""
    assert call("-c", code, PYTHONPATH=path) == "[4.5]\n"
