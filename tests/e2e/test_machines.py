"""Five machines by hand, as the guide says: every command of its section on that, each on a host of its own."""

import json
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from p2pnode.hosts import Hosts
from tests.machines import needs_hosts

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
PATIENCE_S = 120
NAMES = "abcde"


@pytest.fixture(scope="module")
def commands():
    """The commands of the guide's section on them, by their first two words, in order."""
    _, _, after = GUIDE.read_text().partition("\n## Nodes on machines of their own\n")
    section, _, _ = after.partition("\n## ")
    lines = re.findall(r"^    (\S.*(?:\\\n.*)*)", section, re.MULTILINE)
    return {" ".join(line.split()[:2]): line.replace("\\\n", " ") for line in lines}


class Machine:
    """One of five, with a folder and an address of its own."""

    def __init__(self, hosts, folder, index):
        self.name = NAMES[index]
        self.folder = folder / self.name
        self.folder.mkdir()
        self._namespace, self._address = hosts.namespace(index), hosts.address(index)

    def start(self, line, *more):
        """Type a command of the guide that is for machine `a` at 10.0.0.1."""
        line = line.replace("10.0.0.1", self._address).replace("--name a", f"--name {self.name}")
        words = [re.sub(r"^a(?=/|$)", self.name, word) for word in shlex.split(line)]
        if words[0] == "p2pnode":
            words[:1] = [sys.executable, "-m", "p2pnode"]
        return subprocess.Popen(
            ["ip", "netns", "exec", self._namespace, *words, *more],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, line, *more):
        process = self.start(line, *more)
        told, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, told


def test_the_guide_names_every_command_that_is_tried_here(commands):
    assert list(commands) == [
        "p2pnode keygen",
        "p2pnode genesis",
        "cp genesis.json",
        "p2pnode doctor",
        "p2pnode run",
        "p2pnode status",
        "docker build",
        "docker run",
        "p2pnode init",
    ]


@needs_hosts
def test_five_machines_follow_the_guide_and_learn(tmp_path, commands):
    guide = GUIDE.read_text()
    new, show = re.findall(r"^    (p2pnode genesis .*)$", guide, re.MULTILINE)[:2]
    with Hosts(5) as hosts, ExitStack() as running:
        machines = [Machine(hosts, tmp_path, index) for index in range(5)]
        first = machines[0]
        (first.folder / "cards").mkdir()
        for machine in machines:
            code, told = machine.type(commands["p2pnode keygen"])
            assert code == 0, told
            card = machine.folder / machine.name / "card.json"
            assert str(card.relative_to(machine.folder)) in told
            (first.folder / "cards" / f"{machine.name}.json").write_bytes(card.read_bytes())
        cards = [f"cards/{name}.json" for name in NAMES]
        code, told = first.type(new.replace("cards/*.json", " ".join(cards)).replace("--steps 500", "--steps 30"))
        assert code == 0, told
        network = re.search(r"network +(\w+)", told)[1]
        for machine in machines:
            if machine is not first:
                (machine.folder / "genesis.json").write_bytes((first.folder / "genesis.json").read_bytes())
            assert machine.type(commands["cp genesis.json"])[0] == 0
            code, told = machine.type(show)
            assert (code, network in told) == (0, True)
            code, told = machine.type(commands["p2pnode doctor"], "--patience", "0.5")
            assert code == 0, told
        nodes = []
        for machine in machines:
            nodes.append(machine.start(commands["p2pnode run"]))
            running.callback(nodes[-1].kill)
        code, told = first.type(commands["p2pnode status"])
        assert code == 0 or "no node answers" in told
        for machine, node in zip(machines, nodes, strict=True):
            told, _ = node.communicate(timeout=PATIENCE_S)
            assert node.returncode == 0, told
            result = json.loads((machine.folder / machine.name / "result.json").read_text())
            assert result["steps"] == 30
            assert result["accuracy"] > 0.8
