"""What a testnet does around its nodes: no earlier run is lost, no port is shared, and a stall says why."""

import asyncio
import socket
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from p2pnode import testnet
from p2pnode.admin import AdminServer
from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError
from p2pnode.home import Home
from p2pnode.testnet import NodeView, Plan, disagreement, free_ports, make_way
from tests.loopback import PATIENCE_S

TRAINING = {"task": "digits", "steps": 10, "local_batch": 4, "momentum": 0.9, "lr": 0.1}


def plan(out, nodes=5, byzantine=1, stall_s=60.0):
    values = {"f": 1, "training": TRAINING}
    return Plan(out, values, nodes, byzantine, ("silent",), None, stall_s)


def a_testnet(out, **more):
    """A testnet whose spawner is thought to run."""

    async def make():
        net = testnet.Testnet(plan(out, **more), time.time(), lambda nodes: None)
        net._spawner = SimpleNamespace(returncode=None)
        net._moved = (0, time.monotonic())
        return net

    return asyncio.run(make())


def tree(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_text() for path in folder.rglob("*")}


@pytest.mark.parametrize(("evaluations", "every"), [(20, 1), (3, 3), (0, 0)])
def test_nodes_measure_their_model_as_often_as_is_planned(tmp_path, evaluations, every):
    async def found():
        testnet.Testnet(planned, time.time(), lambda nodes: None)._found()

    planned = replace(plan(tmp_path / "net"), evaluations=evaluations)
    asyncio.run(found())
    assert NodeConfig.load(Home(tmp_path / "net" / "node0").config).evaluate_every == every


# Folders.


def test_an_earlier_run_is_moved_aside_whole(tmp_path):
    folder = tmp_path / "net"
    for run in range(3):
        make_way(folder)
        assert not folder.exists()
        (folder / "node0").mkdir(parents=True)
        (folder / "genesis.json").write_text(f"run {run}")
        (folder / "node0" / "pid").write_text("99999\n")  # of a process that was killed
    assert {path.name for path in tmp_path.iterdir()} == {"net", "net.1", "net.2"}
    assert (tmp_path / "net.1" / "genesis.json").read_text() == "run 0"
    assert (tmp_path / "net.2" / "genesis.json").read_text() == "run 1"
    assert (tmp_path / "net" / "genesis.json").read_text() == "run 2"


def test_an_empty_or_missing_folder_is_used_as_it_is(tmp_path):
    make_way(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    make_way(tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_what_is_no_testnet_is_left_alone(tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    before = tree(tmp_path)
    for path in (folder, tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"holds something else than a testnet. Remedy: choose another folder"):
            make_way(path)
    assert tree(tmp_path) == before


def test_a_folder_that_cannot_be_looked_at_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"File name too long. Remedy: choose another folder"):
        make_way(tmp_path / ("n" * 256))


def test_a_folder_in_which_a_node_runs_is_left_alone(tmp_path):
    folder = tmp_path / "net"
    (folder / "node0").mkdir(parents=True)
    (folder / "genesis.json").write_text("x")
    with Home(folder / "node0").occupied():
        before = tree(tmp_path)
        with pytest.raises(ConfigError, match="runs this node; stop it first"):
            make_way(folder)
        assert tree(tmp_path) == before
    make_way(folder)
    assert (tmp_path / "net.1").exists()


# Ports.


def test_ports_are_free_and_differ():
    ports = free_ports(40)
    assert len(set(ports)) == 40
    held = [socket.create_server(("127.0.0.1", port)) for port in ports]
    try:
        assert not set(ports) & set(free_ports(200))
    finally:
        for each in held:
            each.close()


def test_too_few_ports_are_said(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        monkeypatch.setattr(testnet, "_PORTS", range(port, port + 1))
        with pytest.raises(testnet.TestnetFailed, match=f"fewer than 1 free ports between {port} and"):
            free_ports(1)


# Disagreement.


def views(folder, models):
    nodes = []
    for i, each in enumerate(models):
        home = Home(folder / f"m{i}")
        home.path.mkdir()
        save_file({"model": np.array(each, np.float32)}, home.checkpoint)
        nodes.append(NodeView(f"m{i}", home, honest=True))
    return nodes


def test_disagreement_is_the_largest_distance_relative_to_either_norm(tmp_path):
    assert disagreement(views(tmp_path, [[3, 4], [3, 4], [3, 4]])) == 0
    (tmp_path / "b").mkdir()
    assert disagreement(views(tmp_path / "b", [[10, 0], [10, 0], [0, 5]])) == pytest.approx(125**0.5 / 5)
    (tmp_path / "c").mkdir()
    assert disagreement(views(tmp_path / "c", [[3e38, 3e38], [-3e38, -3e38]])) == pytest.approx(2), "no overflow"


# Asking.


def test_a_node_that_answers_nothing_holds_up_nobody_s_answer(tmp_path, monkeypatch):
    """A process that is stopped takes every connection, and answers none: here for ever."""
    monkeypatch.setattr(testnet, "_POLL_TIMEOUT_S", 1e6)
    asked = []

    async def work():
        net = testnet.Testnet(replace(plan(tmp_path, nodes=2, byzantine=0), poll_s=0.01), time.time(), len)
        stopped = await asyncio.start_server(lambda reader, writer: asked.append(writer), "127.0.0.1", 0)
        status = {"step": 0, "finished": False}
        server = AdminServer("127.0.0.1:0", lambda: status)
        await server.start()
        net.nodes[0].asked_at = server.address
        net.nodes[1].asked_at = f"127.0.0.1:{stopped.sockets[0].getsockname()[1]}"
        began = net.nodes[1].heard_at
        async with net._asking() as ask:
            for step in (3, 4):
                status["step"] = step
                while net.nodes[0].step < step:
                    await asyncio.wait_for(ask(), PATIENCE_S)
        assert net.nodes[0].heard_at > began
        assert (net.nodes[1].heard_at, net.nodes[1].status) == (began, {})
        assert len(asked) == 1, "asked once, until it answers"
        stopped.close()
        await server.stop()

    asyncio.run(work())


# Giving up.


def say(node, step, waits_for=()):
    node.status = {"step": step, "waits_for": list(waits_for), "finished": False}


def test_a_stall_is_given_up_and_says_who_waits_for_whom(tmp_path):
    net = a_testnet(tmp_path, stall_s=5.0)
    for node in net.nodes[:4]:
        say(node, 3)
    net._check()
    say(net.nodes[0], 4, ["node4", "node2"])
    say(net.nodes[1], 4, ["node4"])
    net.nodes[4].exit = -9
    net._check()
    net._check()  # no step, but not for long
    net._moved = (net._moved[0], time.monotonic() - 6)
    with pytest.raises(testnet.TestnetFailed) as failure:
        net._check()
    assert str(failure.value) == (
        "no step in 5 s: node0 waits at step 4 for node4, node2; node1 waits at step 4 for node4; node4 ended"
    )


def test_any_honest_step_is_progress_and_a_liars_is_none(tmp_path):
    net = a_testnet(tmp_path, stall_s=5.0)
    for step in range(4):
        say(net.nodes[2], step)
        net._moved = (net._moved[0], time.monotonic() - 6)
        net._check()
    say(net.nodes[4], 100)
    net._moved = (net._moved[0], time.monotonic() - 6)
    with pytest.raises(testnet.TestnetFailed, match="no step in 5 s"):
        net._check()


def test_an_honest_node_that_fails_ends_the_run_with_its_last_words(tmp_path):
    net = a_testnet(tmp_path)
    home = net.nodes[1].home
    home.path.mkdir()
    net.nodes[4].exit = 3  # a liar may
    net._check()
    net.nodes[1].exit = 1
    for wanted in ("does not say why", "the log's end", "the output's end"):
        with pytest.raises(testnet.TestnetFailed, match=f"node1 failed with exit code 1: .*{wanted}"):
            net._check()
        if "log" not in wanted:
            home.log.write_text("first\nthe log's end\n")
        if "log" in wanted:
            home.output.write_text("x\nthe output's end\n\n")


def test_a_killed_node_is_borne_and_all_of_them_are_not(tmp_path):
    net = a_testnet(tmp_path)
    net.nodes[0].exit = -9
    net._check()
    for node in net.honest:
        node.exit = -9
    with pytest.raises(testnet.TestnetFailed, match="every honest node was killed"):
        net._check()


def test_a_killed_spawner_ends_the_run(tmp_path):
    net = a_testnet(tmp_path)
    net._spawner.returncode = -9
    with pytest.raises(testnet.TestnetFailed, match="the process that starts the nodes was killed"):
        net._check()


@given(st.integers(1, 12), st.data())
def test_the_last_nodes_are_the_liars(tmp_path_factory, nodes, data):
    byzantine = data.draw(st.integers(0, nodes - 1))
    net = a_testnet(tmp_path_factory.getbasetemp() / "never", nodes=nodes, byzantine=byzantine)
    assert [node.name for node in net.honest] == [f"node{i}" for i in range(nodes - byzantine)]
    assert len(net.nodes) == nodes


def test_what_no_theorem_covers_is_refused_before_a_process_starts_or_a_run_is_moved(tmp_path, monkeypatch):
    async def never(*args, **kwargs):
        raise AssertionError("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", never)
    out = tmp_path / "net"
    out.mkdir()
    (out / "genesis.json").write_text("an earlier run")

    async def work():
        await testnet.Testnet(plan(out, nodes=4), time.time(), lambda nodes: None).run()

    with pytest.raises(ConfigError, match="n ≥ 5"):
        asyncio.run(work())
    assert tree(tmp_path) == {"net": False, "net/genesis.json": "an earlier run"}
