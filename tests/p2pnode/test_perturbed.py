"""A testnet that is hurt: who stepped again is told from who did not, and the verdict is in its summary."""

import asyncio
import signal
import time
from types import SimpleNamespace

import pytest

from p2pnode import perturbed, testnet
from p2pnode.perturbation import Perturbation, Perturbations, Recovered, Split
from p2pnode.perturbed import Disturbed, Perturbed, spoken, subject
from p2pnode.testnet import Plan

TRAINING = {"task": "digits", "steps": 50, "local_batch": 4, "momentum": 0.9, "lr": 0.1}


def plan(out, nodes=3, byzantine=1, stall_s=20.0, hosts=None):
    return Plan(out, {"f": 1, "training": TRAINING}, nodes, byzantine, ("silent",), None, stall_s, hosts=hosts)


def speak(node, step):
    node.home.outbox.mkdir(parents=True, exist_ok=True)
    (node.home.outbox / f"{step:020d}-0-0.safetensors").write_bytes(b"")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(perturbed, "POLL_S", 0.002)


def of(kind, *nodes, **more):
    return Perturbation(kind=kind, nodes=nodes, **{"at_step": 1, "for_s": 0.0, **more})


class Links:
    """Hosts that note what is done to them."""

    def __init__(self, meanwhile=lambda: None):
        self.done = []
        self._meanwhile = meanwhile

    def cut(self, one, other):
        asyncio.get_running_loop().call_soon(self._meanwhile)
        self.done.append(("cut", *one, other))

    def heal(self, one, other):
        self.done.append(("heal", *one, other))

    def slow(self, host, megabits):
        self.done.append(("slow", host, megabits))

    def restore(self, host):
        self.done.append(("restore", host))


def a_testnet(out, *perturbations, **more):
    said = []
    net = Perturbed(
        plan(out, **more),
        time.time(),
        lambda nodes: None,
        Perturbations(recover_s=0.3, perturbation=perturbations or (of("kill", "node0"),)),
        said.append,
    )
    net.said = said
    net._spawner = SimpleNamespace(returncode=None)
    net._moved = (0, time.monotonic())
    return net


def test_a_node_that_never_spoke_has_spoken_in_no_step(tmp_path):
    async def work():
        net = a_testnet(tmp_path)
        assert spoken(net.nodes[0].home) == -1
        speak(net.nodes[0], 7)
        speak(net.nodes[0], 12)
        assert spoken(net.nodes[0].home) == 12

    asyncio.run(work())


def test_recovery_is_a_new_step_of_every_healthy_node(tmp_path):
    async def work():
        net = a_testnet(tmp_path)
        for node in net.nodes:
            speak(node, 4)
        waiting = asyncio.create_task(net._until_stepped(5.0))
        await asyncio.sleep(0)
        speak(net.nodes[2], 9)  # a liar's steps are none
        net.nodes[1].home.path.mkdir(exist_ok=True)
        net.nodes[1].home.result.write_text("{}")  # it is done, and has no more steps to take
        await asyncio.sleep(0.02)
        assert not waiting.done()
        speak(net.nodes[0], 5)  # it was in this step already
        await asyncio.sleep(0.02)
        assert not waiting.done()
        speak(net.nodes[0], 6)
        outcome = await waiting
        assert outcome.missing == ()
        assert 0 <= outcome.first_s <= outcome.seconds < 5

    asyncio.run(work())


def test_who_does_not_step_again_within_the_limit_is_named(tmp_path):
    async def work():
        net = a_testnet(tmp_path)
        for node in net.nodes:
            speak(node, 4)
        assert await net._until_stepped(0.01) == Recovered(None, None, ("node0", "node1"))
        waiting = asyncio.create_task(net._until_stepped(0.1))
        await asyncio.sleep(0)
        speak(net.nodes[0], 9)
        outcome = await waiting
        assert (outcome.first_s is not None, outcome.seconds, outcome.missing) == (True, None, ("node1",))

    asyncio.run(work())


def test_perturbations_begin_in_order_each_when_every_healthy_node_is_there_and_none_after_the_end(tmp_path):
    async def work():
        done = []
        net = a_testnet(tmp_path, *(of("kill", f"node{i}", at_step=10 * (i + 1)) for i in range(3)))

        async def do(one):
            assert net._acting
            assert not net._all_over()
            done.append(one)

        net._do = do
        disturbing = asyncio.create_task(net._disturb())
        for step in range(10):
            speak(net.nodes[0], step)
            speak(net.nodes[1], step)
        await asyncio.sleep(0.02)
        assert done == []
        speak(net.nodes[0], 12)
        await asyncio.sleep(0.02)
        assert done == [], "node1 is not there"
        speak(net.nodes[1], 10)
        await asyncio.sleep(0.02)
        assert [one.nodes for one in done] == [("node0",)]
        for node in net.honest:
            speak(node, 22)
        await asyncio.sleep(0.05)
        assert [one.nodes for one in done] == [("node0",), ("node1",)]
        for node in net.honest:
            speak(node, 49)
            node.home.result.write_text("{}")
        await disturbing
        assert len(done) == len(net.recovered) == 2
        assert not net._acting
        assert net.said[0].startswith("kill of node0: all stepped again")

    asyncio.run(work())


@pytest.mark.parametrize(
    ("side", "speaks", "stepped"),
    [
        (("node0", "node1"), {"node1": 6}, ()),  # what was said before the cut ends a step
        (("node0", "node1"), {"node1": 7}, ("node1",)),
        (("node0", "node1"), {"node3": 7, "node4": 9}, ("node3",)),  # node4 lies
        (("node0",), {"node3": 30}, ()),  # four are a quorum
        (("node0",), {"node3": 30, "node0": 7}, ("node0",)),
    ],
)
def test_who_steps_on_a_side_without_a_quorum_is_found(tmp_path, side, speaks, stepped):
    async def work():
        links = Links(lambda: [speak(net._by_name[name], step) for name, step in speaks.items()])
        net = a_testnet(tmp_path, nodes=5, hosts=links)
        exchange = SimpleNamespace(quorum=lambda committee: 4)
        net.genesis = SimpleNamespace(committee=None, plan=SimpleNamespace(exchanges=[exchange]))
        for node in net.nodes:
            speak(node, 5)
        split = await net._do(of("partition", *side))
        assert split == Split((len(side), 5 - len(side)), 4, stepped)
        ends = list(range(len(side))), list(range(len(side), 5))
        assert links.done == [("cut", *ends[0], ends[1]), ("heal", *ends[0], ends[1])]

    asyncio.run(work())


def test_who_is_disconnected_is_cut_off_from_each_once_and_healed_the_same(tmp_path):
    async def work():
        net = a_testnet(tmp_path, nodes=4, hosts=(links := Links()))
        assert await net._do(of("disconnect", "node1", "node3")) is None
        cuts = [("cut", 1, [0, 2, 3]), ("cut", 3, [0, 2])]
        assert links.done == [*cuts, *(("heal", *cut[1:]) for cut in cuts)]
        links.done.clear()
        await net._do(of("slow", "node2", megabits=0.5))
        assert links.done == [("slow", 2, 0.5), ("restore", 2)]

    asyncio.run(work())


def test_who_is_swapped_ends_in_good_order_and_is_started_as_a_liar_and_no_longer_healthy(tmp_path, monkeypatch):
    async def work():
        net = a_testnet(tmp_path, nodes=4)
        node, signals, orders = net.nodes[0], [], []
        node.pid = 4711

        def kill(pid, number):
            signals.append((pid, number))
            assert net._down == {"node0"}
            node.exit = 0

        monkeypatch.setattr(perturbed.os, "kill", kill)
        net._order = lambda **order: orders.append(order)
        await net._do(of("liar", "node0", for_s=None))
        assert signals == [(4711, signal.SIGTERM)]
        assert [(order["name"], order["attacks"], order["liars"]) for order in orders] == [
            ("node0", ["silent"], ["node0", "node3"])
        ]
        assert [other.name for other in net.honest] == ["node1", "node2"]
        assert (node.exit, net._down) == (None, set())

    asyncio.run(work())


def test_a_node_that_does_not_run_is_sent_no_signal(tmp_path):
    async def work():
        with pytest.raises(testnet.TestnetFailed, match="node0 does not run"):
            await a_testnet(tmp_path)._do(of("pause", "node0"))

    asyncio.run(work())


def test_a_standstill_that_is_wanted_is_no_stall_and_a_failure_ends_the_run(tmp_path):
    async def work():
        net = a_testnet(tmp_path, stall_s=0.0)
        net._acting = True
        for _ in range(2):
            net._check()
            await asyncio.sleep(0.01)
        net._acting = False
        net._check()
        await asyncio.sleep(0.01)
        with pytest.raises(testnet.TestnetFailed, match="no step in 0 s"):
            net._check()
        net._disturbing = asyncio.create_task(net._wait(lambda: False, "what never is"))
        await asyncio.wait([net._disturbing])
        with pytest.raises(testnet.TestnetFailed, match="not within 0 s: what never is"):
            net._check()

    asyncio.run(work())


def test_a_run_is_not_over_before_what_was_begun_is_judged(tmp_path):
    async def work():
        net = a_testnet(tmp_path)
        for node in net.honest:
            node.exit = 0
        for net._acting, net._down in ((True, set()), (False, {"node0"})):
            assert not net._all_over()
        net._down = set()
        assert net._all_over()

    asyncio.run(work())


def test_the_verdict_is_in_the_summary(tmp_path, monkeypatch):
    async def work():
        net = a_testnet(tmp_path, of("kill", "node0"), of("liar", "node1", for_s=None, at_step=9))
        net.recovered = [Recovered(0.1, 0.2)]
        net.nodes[1].honest = False
        evidence = [{"accused": name} for name in ("node0", "node1", "node2")]
        monkeypatch.setattr(Disturbed, "_sum_up", lambda self: {"evidence": evidence, "disagreement": 0.0, "f": 1})
        summary = net._sum_up()
        assert (summary["f"], summary["recover_s"]) == (1, 0.3)
        assert [one["outcome"] for one in summary["perturbations"]] == [
            {"first_s": 0.1, "seconds": 0.2, "missing": (), "split": None},
            None,
        ]
        assert summary["perturbations"][0]["nodes"] == ("node0",)
        assert summary["failures"] == [
            "liar of node1: its moment did not come before the last step. Remedy: choose more --steps",
            "node0 is accused, and did not lie",
        ]

    asyncio.run(work())


def test_a_plans_last_nodes_are_the_liars_of_its_subject(tmp_path):
    seen = subject(plan(tmp_path), links=True)
    assert (seen.honest, seen.liars, seen.f, seen.steps, seen.links) == (("node0", "node1"), ("node2",), 1, 50, True)
