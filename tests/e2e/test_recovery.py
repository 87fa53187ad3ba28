"""What a network goes on from when everything of it was lost at once but its disks."""

import asyncio
import json

from p2pnode.perturbation import RECOVER_S
from p2pnode.perturbed import spoken
from p2pnode.soak import ALL, NODES, Disturbance, Soak, _values
from p2pnode.testnet import Plan

STEPS = 100
CHECKPOINT, KILLED = 50, 62
"""The first checkpoint's step as nodes are set up, and one some steps later, at which all are killed."""
PATIENCE_S = 60.0

BUSY = 3
"""Times as long may it take on a machine that does other work, too."""


class OnceKept(Soak):
    """Disturbed when every node has kept what it had learned, and learned on."""

    async def _disturb(self):
        await self._wait(lambda: all(spoken(node.home) >= KILLED for node in self.nodes), "some steps")
        await super()._disturb()


def log_of(node):
    return [json.loads(line) for line in node.home.log.read_text().splitlines()]


def test_a_network_of_which_all_are_killed_at_once_learns_on_from_what_each_had_kept(tmp_path):
    """SIGKILL to seven processes in the middle of their work; then each begins again by itself, in its old home."""

    async def work():
        names = tuple(f"node{i}" for i in range(NODES))
        plan = Plan(tmp_path / "net", _values(7, STEPS), NODES, 0, (), None, PATIENCE_S, evaluations=0)
        net = OnceKept(plan, iter([Disturbance(ALL, names, 0.0, 0.0, 0)]), PATIENCE_S, lambda line: None)
        return net, await net.run()

    net, summary = asyncio.run(work())
    [recovered] = net.recovered
    print(f"learning went on after {recovered.first_s} s, all stepped again after {recovered.seconds} s")
    assert recovered.first_s <= BUSY * RECOVER_S
    assert net.lost == []
    for node in net.nodes:
        first, again = (said for said in log_of(node) if said["event"] == "node starts")
        assert (first["step"], first["model_step"]) == (0, 0)
        assert again["step"] >= KILLED
        assert again["model_step"] >= CHECKPOINT
        assert again["model"] != first["model"]
    assert [(node["steps"] > 0, node["exit"]) for node in summary["honest"]] == [(True, 0)] * NODES
    assert summary["accuracy_min"] >= 0.9
    assert summary["disagreement"] < 0.1
    assert summary["evidence"] == []
    assert "fault" not in {said["event"] for node in net.nodes for said in log_of(node)}
