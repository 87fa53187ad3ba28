"""A network that is hurt on purpose, as a user types it: real processes, and the verdict in what is printed."""

import json
import subprocess
import sys

from p2pnode.home import NetworkFolder
from p2pnode.perturbation import Perturbations
from tests.machines import can_make_hosts

PERTURBATIONS = """
recover_s = 60.0  # on a machine that does other work, too

[[perturbation]]
kind = "kill"
nodes = ["node0"]
at_step = 5
for_s = 0.2

[[perturbation]]
kind = "pause"
nodes = ["node1", "node2"]
at_s = 0.1
for_s = 0.3
"""

SPLIT = """
[[perturbation]]
kind = "partition"
nodes = ["node0", "node1"]
at_step = 15
for_s = 0.5
"""

SWAP = """
[[perturbation]]
kind = "liar"
nodes = ["node4"]
at_step = 20
"""


def test_nodes_are_hurt_as_the_file_says_and_heal_and_all_is_in_the_summary(tmp_path):
    """On hosts of their own where this machine can make them; elsewhere without what needs links."""
    netns = can_make_hosts()
    file, out = tmp_path / "p.toml", tmp_path / "net"
    file.write_text(PERTURBATIONS + (SPLIT if netns else "") + SWAP)
    words = ["--out", out, "--perturb", file, "--engine", "netns" if netns else "processes", "--json"]
    words += ["--nodes", "5", "--byzantine", "0", "--f", "1", "--attack", "equivocate", "--steps", "120"]
    done = subprocess.run(
        [sys.executable, "-m", "p2pnode", "testnet", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    assert Perturbations.load(NetworkFolder(out).perturbations) == Perturbations.load(file)
    assert summary["failures"] == []
    told = {one["kind"]: one["outcome"] for one in summary["perturbations"]}
    assert list(told) == ["kill", "pause", *(["partition"] if netns else []), "liar"]
    for outcome in told.values():
        assert 0 <= outcome["first_s"] <= outcome["seconds"] <= 60
        assert outcome["missing"] == []
    if netns:
        assert told["partition"]["split"] == {"sides": [2, 3], "quorum": 4, "stepped": []}
    assert [(node["name"], node["exit"]) for node in summary["honest"]] == [(f"node{i}", 0) for i in range(4)]
    assert {row["accused"] for row in summary["evidence"]} <= {"node4"}
    assert summary["accuracy_min"] >= 0.85
    starts = [(out / f"node{i}" / "log.jsonl").read_text().count('"node starts"') for i in range(5)]
    assert starts == [2, 1, 1, 1, 2]
