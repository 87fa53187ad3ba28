"""The examples as their first lines say: each a network of real processes with a liar among them, that learns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from p2pnode.testnet import free_ports

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300.0
"""For what takes ten seconds on an idle machine; only a failing test waits so long."""


def call(*arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=ROOT,
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
