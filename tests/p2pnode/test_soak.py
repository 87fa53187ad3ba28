"""What a soak does and judges: a schedule that a seed gives back, and no broken promise that passes for kept."""

import asyncio
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode import soak, testnet
from p2pnode.home import Home
from p2pnode.identity import Identity
from p2pnode.soak import (
    ALL,
    KINDS,
    Disturbance,
    Left,
    Memory,
    Recovered,
    Report,
    Soak,
    by_kind,
    failures,
    schedule,
    tear,
)
from p2pnode.storage.checkpoint import Checkpoint, Outbox, save_checkpoint
from p2pnode.storage.signer import DurableSigner
from p2pnode.storage.vectors import digest_of
from p2pnode.testnet import Plan
from protocols.header import Claim, Slot

NETWORK = b"n" * 32
HONEST = [f"node{i}" for i in range(6)]
LIARS = ["node6"]


def first(count, seed):
    return list(itertools.islice(schedule(seed, HONEST, LIARS), count))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31))
def test_a_schedule_is_its_seeds_and_disturbs_one_honest_node_at_a_time_or_all(seed):
    disturbances = first(50, seed)
    assert disturbances == first(50, seed)
    assert disturbances != first(50, seed + 1)
    assert Counter(one.kind for one in disturbances) == {ALL: 10, **dict.fromkeys(KINDS, 8)}
    for one in disturbances:
        assert one.nodes == (*HONEST, *LIARS) if one.kind == ALL else len(one.nodes) == 1 and one.nodes[0] in HONEST
        assert soak.DOWN_S[0] <= one.down_s <= soak.DOWN_S[1]
        assert soak.PAUSE_S[0] <= one.pause_s <= soak.PAUSE_S[1]


KEPT = Report(
    seed=1,
    minutes=1,
    steps=100,
    recovered=[
        Recovered(Disturbance("kill", ("node0",), 1, 1, 1), 20.0, 25.0),
        Recovered(Disturbance(ALL, (*HONEST, *LIARS), 1, 1, 1), 10.0, 25.0),
    ],
    accuracy=dict.fromkeys(HONEST, 0.95),
    undisturbed=dict.fromkeys(HONEST, 0.97),
    accused=["node6", "node6"],
    memory=dict.fromkeys(HONEST + LIARS, (200.0, 210.0)),
)


def test_promises_that_are_kept_are_no_failures():
    assert failures(KEPT, HONEST, LIARS) == []


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"recovered": []}, "nothing was disturbed: the run was too short"),
        ({"lost": ["node0 began again at step 0"]}, "node0 began again at step 0"),
        (
            {"recovered": [Recovered(Disturbance(ALL, (*HONEST, *LIARS), 1, 1, 1), 10.5, 25.0)]},
            "learning went on 10.5 s after all were killed, not within 10 s",
        ),
        ({"accuracy": dict.fromkeys(HONEST[1:], 0.95)}, "node0 did not finish"),
        (
            {"accuracy": {**KEPT.accuracy, "node3": 0.91}},
            "node3 learned to 0.9100 only; the worst undisturbed node to 0.9700",
        ),
        ({"accused": ["node6", "node2"]}, "node2 is accused, and did not lie"),
        ({"accused": []}, "no liar was convicted"),
        (
            {"memory": {**KEPT.memory, "node6": (200.0, 260.0)}},
            "node6 took 260 MiB in the end, after 200 MiB in the beginning",
        ),
    ],
)
def test_a_broken_promise_is_told(broken, told):
    assert failures(replace(KEPT, **broken), HONEST, LIARS) == [told]


def test_memory_is_the_most_of_the_first_and_of_the_last_quarter():
    memory = Memory()
    for second in range(40):
        memory.note("a", second, 100 + second)
        memory.note("a", second + 0.5, 10)
    memory.note("b", 7, 3)
    assert memory.quarters() == {"a": (109, 139), "b": (3, 3)}


def test_disturbances_are_summed_up_by_kind():
    def took(kind, seconds):
        return Recovered(Disturbance(kind, ("node0",), 1, 1, 1), seconds / 2, seconds)

    told = by_kind([took("kill", 1.0), took(ALL, 9.0), took("kill", 3.0), took("kill", 5.0)])
    assert told == {
        "kill": {"count": 3, "median_s": 3.0, "most_s": 5.0},
        ALL: {"count": 1, "median_s": 9.0, "most_s": 9.0},
    }


def test_what_is_torn_is_what_a_crash_may_leave(tmp_path):
    """Nothing that was flushed is touched, and the node goes on."""
    home, identity = Home(tmp_path), Identity.generate()
    DurableSigner.begin(identity, home.journal)
    for size in range(1, 50):
        before = home.journal.read_bytes()
        tear(home, size)
        assert len(home.journal.read_bytes()) == len(before) + size
        signer = DurableSigner(identity, home.journal)
        assert home.journal.read_bytes() == before
        assert signer.sign(Claim(size, f"place {size}", b"x"))
        signer.flush()
        signer.close()


def test_what_a_node_kept_and_does_not_begin_again_with_is_lost(tmp_path):
    home = Home(tmp_path)
    assert Left.by(home, NETWORK) == Left(0, None, -1)
    model = np.ones(5, np.float32)
    save_checkpoint(home.checkpoint, NETWORK, Checkpoint(7, {"model": model}))
    Outbox(home.outbox, NETWORK).put(Slot(9), model, digest_of(model))
    left = Left.by(home, NETWORK)
    assert left == Left(7, digest_of(model).hex(), 9)
    assert left.lost(9, left.model) is None
    assert left.lost(10, left.model) is None
    assert left.lost(8, left.model) == "began again at step 8, though it had kept step 7 and spoken in step 9"
    assert left.lost(9, "other") == "began again with another model than the one it had kept of step 7"
    assert Left(0, None, -1).lost(0, "first") is None
    assert Left(7, "same", 3).lost(6, "same") is not None


def test_of_the_nodes_that_were_down_what_they_began_with_last_is_compared(net):
    nodes = net.nodes[:2]
    net._left = {node.name: Left(7, "kept", 7) for node in nodes}
    for node, models in zip(nodes, (["kept", "other"], ["other", "kept"]), strict=True):
        lines = [json.dumps({"event": "node starts", "step": 7, "model": model}) for model in models]
        node.home.log.write_text("\n".join([*lines, json.dumps({"event": "step", "step": 8, "of": 9}), ""]))
    net._look_for_losses()
    assert net.lost == ["node0 began again with another model than the one it had kept of step 7"]
    net._look_for_losses()
    assert len(net.lost) == 1


# With processes that stand for nodes.

STANDS_FOR_A_NODE = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with open(sys.argv[1], "wb", buffering=0) as file:
    print("up", flush=True)
    while True:
        file.seek(0)
        if file.write(bytes(20_000)) < 20_000:
            file.write(b"x")
"""


@pytest.fixture
def net(tmp_path):
    """A soak of which every node is a process that writes vectors, and whose steps never come but when told."""

    async def make():
        plan = Plan(tmp_path, {}, 3, 1, ("equivocate",), None, 20.0)
        return Soak(plan, iter(()), 0.0, lambda line: None)

    net, processes = asyncio.run(make()), {}

    def start(node):
        node.home.path.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", STANDS_FOR_A_NODE, str(node.home.path / "vector")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout.readline() == b"up\n"
        node.pid = process.pid
        processes[node.name] = process

    async def wait(true, what):
        deadline = time.monotonic() + 20
        while not true():
            assert time.monotonic() < deadline, what
            for node in net.nodes:
                code = processes[node.name].poll()
                node.exit = code if code is not None else node.exit
            await asyncio.sleep(0.01)

    net._start, net._wait, net.processes = start, wait, processes
    net.genesis = SimpleNamespace(network=NETWORK)
    for node in net.nodes:
        node.home.path.mkdir(parents=True)
        DurableSigner.begin(Identity.generate(), node.home.journal)
        start(node)
    yield net
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("kind", "code"),
    [("kill", -signal.SIGKILL), ("tear", -signal.SIGKILL), ("restart", 0), ("full", 1), ("freeze", None)],
)
def test_a_node_is_ended_as_its_disturbance_says_and_another_process_takes_its_place(net, kind, code):
    node, before = net.nodes[0], net.processes["node0"]
    journal = node.home.journal.read_bytes()
    asyncio.run(net._do(Disturbance(kind, ("node0",), 0.01, 0, 7)))
    assert before.poll() == code
    after = net.processes["node0"]
    assert (after is before) == (kind == "freeze")
    assert after.poll() is None
    assert node.exit is None
    assert resource.prlimit(after.pid, resource.RLIMIT_FSIZE)[0] == resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    assert node.home.journal.read_bytes() == journal + (journal[:7] if kind == "tear" else b"")
    assert all(net.processes[other.name].poll() is None for other in net.nodes[1:])


def test_a_node_that_does_not_end_as_it_should_fails_the_soak(net):
    node = net.nodes[0]
    net.processes["node0"].terminate()
    net.processes["node0"].wait()
    node.exit = 0
    with pytest.raises(testnet.TestnetFailed, match="node0 ended with exit code 0, not 1"):
        asyncio.run(net._start_again([node], 0, 1))


def test_only_who_is_disturbed_may_be_away(tmp_path):
    async def work():
        net = Soak(Plan(tmp_path, {}, 3, 1, ("equivocate",), None, 1.0), iter(()), 0.0, lambda line: None)
        net._spawner = SimpleNamespace(returncode=None)
        net._disturbing = asyncio.create_task(asyncio.sleep(60))
        net.nodes[1].exit = -9
        net._down = {"node1"}
        net._check()
        for node in net.honest:
            node.exit = -9
        assert not net._all_over(), "they come back"
        net.nodes[0].exit = None
        net._down = set()
        with pytest.raises(testnet.TestnetFailed, match="node1 ended by itself, with exit code -9"):
            net._check()
        net._disturbing.cancel()

    asyncio.run(work())


def test_a_network_that_does_not_recover_fails_the_soak(net):
    net.plan = replace(net.plan, stall_s=0.01)
    with pytest.raises(testnet.TestnetFailed, match=r"node0, node1 took no new step in 0.01 s after kill of node0"):
        asyncio.run(net._recovery(Disturbance("kill", ("node0",), 1, 1, 1)))


def test_memory_is_read_of_running_processes_only(net, tmp_path):
    mib = soak._resident_mib(net.nodes[0])
    assert 1 < mib < 1000
    net.nodes[0].pid = 2**22 + os.getpid()
    assert soak._resident_mib(net.nodes[0]) is None
