"""The command as a user types it: real processes, sockets, files and signals; judged only by what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pnode.testnet import free_ports

COMMAND = (sys.executable, "-m", "p2pnode")
PATIENCE_S = 60.0

CHOSEN = ["nodes", "byzantine", "f", "recipe", "exchanges", "task", "attack", "seed", "steps"]
SPEED = ["seconds", "startup_seconds", "steps_per_second"]
LEARNED = ["accuracy_min", "accuracy_mean", "disagreement", "honest", "evidence"]
HONEST = ["name", "accuracy", "loss", "steps", "bytes_sent", "bytes_received", "peak_rss_mib", "exit"]


@contextmanager
def command(*arguments, **options):
    """A running command, that is over when the block is."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=PATIENCE_S)


def finish(process):
    """(exit code, standard output, standard error) of a command that ends by itself."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def call(*arguments):
    with command(*arguments) as process:
        return finish(process)


def running_testnet(out, *arguments):
    return command("testnet", "--json", "--out", out, *arguments)


def summary_of(process, out):
    code, told, err = finish(process)
    assert code == 0, err
    summary = json.loads(told)
    assert summary == json.loads((out / "summary.json").read_text())
    return summary


def until(true, what, seconds=PATIENCE_S):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def log_of(home):
    path = home / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def linked(home):
    """Who a link to was opened, by its log."""
    path = home / "log.jsonl"
    return {said["peer"] for said in log_of(home) if said["event"] == "connected"} if path.exists() else set()


def steps_taken(home):
    """By the files it leaves for each step: cheaper than asking."""
    return max((int(file.name[:20]) for file in (home / "outbox").glob("*.safetensors")), default=0)


def pid_of(home):
    return int((home / "pid").read_text())


def alive(pid):
    """Whether this process runs: one that ended and was not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def accused(home):
    """Whom this node holds a proof against, or saw a fault of."""
    return {said["peer"] for said in log_of(home) if said["event"] == "fault"}


def by_name(summary):
    return {node["name"]: node for node in summary["honest"]}


def test_the_default_attack_is_survived_and_proven(tmp_path):
    out = tmp_path / "net"
    with running_testnet(out, "--steps", 50) as process:
        summary = summary_of(process, out)
    assert list(summary) == CHOSEN + SPEED + LEARNED
    assert [list(node) for node in summary["honest"]] == [HONEST] * 6
    told = {key: summary[key] for key in CHOSEN}
    assert told == {
        "nodes": 7,
        "byzantine": 1,
        "f": 1,
        "recipe": "trimmed",
        "exchanges": [
            {"what": "model", "broadcast": "signed-echo", "gathered": 6, "rule": "trimmed-mean", "sub_rounds": 1}
        ],
        "task": "digits",
        "attack": "alie,equivocate",
        "seed": 0,
        "steps": 50,
    }
    accuracies = [node["accuracy"] for node in summary["honest"]]
    assert summary["accuracy_min"] == min(accuracies) >= 0.9
    assert summary["accuracy_mean"] == pytest.approx(sum(accuracies) / 6)
    assert 0 <= summary["disagreement"] < 0.1
    assert 0 < summary["startup_seconds"] < summary["seconds"]
    assert summary["steps_per_second"] > 0
    for node in summary["honest"]:
        assert (node["steps"], node["exit"]) == (50, 0)
        assert node["bytes_sent"] > 50 * 6 * 4 * 1000
        assert node["bytes_received"] > 50 * 5 * 4 * 1000
    _each_proof_convinces_anyone(summary["evidence"], out)
    for i in range(6):
        _what_was_seen_is_kept(json.loads((out / f"node{i}" / "history.json").read_text()), f"node{i}")


def _what_was_seen_is_kept(told, name):
    assert told["name"] == name
    steps = [step["step"] for step in told["steps"]]
    assert steps == list(range(50))
    assert told["measured"][-1]["step"] == 50
    assert [proof["accused"] for proof in told["evidence"]] == ["node6"]
    views = [view for step in told["steps"] if (view := step["exchanges"][0])["looked"]]
    assert views
    assert all(view["distance"][told["members"].index(name)] is not None for view in views)
    assert all(6 - view["distance"][:6].count(None) >= 5 for view in views)


def test_the_page_of_a_testnet_tells_of_all_its_nodes_while_it_runs(tmp_path):
    out = tmp_path / "net"
    with running_testnet(out, "--nodes", 2, "--byzantine", 0, "--steps", 100_000, "--page") as process:
        word, address = process.stderr.readline().split()
        assert word == "page"
        assert address.startswith("http://127.0.0.1:")

        def asked(path):
            with urllib.request.urlopen(address + path, timeout=PATIENCE_S) as answer:
                return answer.read().decode()

        assert "<title>p2pnode</title>" in asked("")
        until(lambda: all(node["status"].get("step", 0) > 2 for node in json.loads(asked("status"))["nodes"]), "steps")
        told = json.loads(asked("history?node=node1&since=1"))
        assert told["name"] == "node1"
        assert told["steps"][0]["step"] == 1


def _each_proof_convinces_anyone(evidence, out):
    assert evidence
    assert {(row["accused"], row["fault"]) for row in evidence} == {("node6", "equivocated")}
    assert all(accused(out / f"node{i}") <= {"node6"} for i in range(6))
    genesis = out / "genesis.json"
    for row in evidence[:2]:
        code, told, _ = call("verify-evidence", row["file"], "--genesis", genesis, "--json")
        assert (code, json.loads(told)["accused"]) == (0, "node6")
    proof = Path(evidence[0]["file"]).read_bytes()
    changed = out / "changed"
    for place in (len(proof) // 2, len(proof) - 1):
        changed.write_bytes(proof[:place] + bytes([proof[place] ^ 1]) + proof[place + 1 :])
        code, _, err = call("verify-evidence", changed, "--genesis", genesis)
        assert code == 1
        assert "proves nothing" in err


def test_what_breaks_plain_averaging_does_not_break_the_trimmed_mean(tmp_path):
    """And the lie is really among what both mix, so that the comparison says something."""
    accuracies = {}
    for recipe in ("dsgd", "trimmed"):
        out = tmp_path / recipe
        with running_testnet(out, "--nodes", 5, "--recipe", recipe, "--attack", "sign-flip", "--steps", 40) as process:
            accuracies[recipe] = summary_of(process, out)["accuracy_min"]
        for i in range(4):
            mixed = json.loads((out / f"node{i}" / "result.json").read_text())["mixed"]
            assert mixed["node4"] >= 10, f"of {recipe} for node{i}"
            assert mixed[f"node{i}"] == 40
    assert accuracies["dsgd"] < 0.6
    assert accuracies["trimmed"] >= 0.9


@pytest.mark.parametrize("attack", ["nan,random", "silent"])
def test_a_liar_stops_no_honest_node(tmp_path, attack):
    out = tmp_path / "net"
    with running_testnet(out, "--nodes", 5, "--attack", attack, "--steps", 24) as process:
        summary = summary_of(process, out)
    assert [(node["steps"], node["exit"]) for node in summary["honest"]] == [(24, 0)] * 4
    assert summary["accuracy_min"] > 0.8
    assert summary["evidence"] == []
    for i in range(4):
        assert accused(out / f"node{i}") <= {"node4"}


def test_seven_of_nine_finish_when_one_lies_and_one_is_killed(tmp_path):
    out = tmp_path / "net"
    with running_testnet(out, "--nodes", 9, "--byzantine", 1, "--f", 2, "--attack", "silent", "--steps", 24) as process:
        until(lambda: steps_taken(out / "node3") >= 8, "a few steps")
        os.kill(pid_of(out / "node3"), signal.SIGKILL)
        summary = summary_of(process, out)
    nodes = by_name(summary)
    killed = nodes.pop("node3")
    assert killed["exit"] == -9
    assert killed["accuracy"] is None
    assert 0 < killed["steps"] < 24
    assert {(node["steps"], node["exit"]) for node in nodes.values()} == {(24, 0)}
    assert summary["accuracy_min"] > 0.8


def test_a_node_that_is_killed_and_started_again_finishes_with_the_others(tmp_path):
    """It is left behind, and joins in; it signs nothing twice, and nobody accuses it, although it lost its memory."""
    out = tmp_path / "net"
    back = out / "node2"
    with running_testnet(out, "--nodes", 5, "--byzantine", 0, "--f", 1, "--steps", 130) as process:
        until(lambda: steps_taken(back) >= 5, "a few steps")
        os.kill(pid_of(back), signal.SIGKILL)
        fallen = steps_taken(back)
        until(lambda: steps_taken(out / "node0") >= fallen + 70, "more steps than peers remember")
        slow = pid_of(out / "node3")
        os.kill(slow, signal.SIGSTOP)  # three of five wait for a fourth: from now on for the killed one, in each step
        with command("run", back, "--json") as again:
            until(lambda: {"left behind", "finished"} <= {said["event"] for said in log_of(back)}, "a jump and the end")
            os.kill(slow, signal.SIGCONT)
            summary = summary_of(process, out)
            code, _, err = finish(again)
            assert code == 0, err
    result = json.loads((back / "result.json").read_text())
    assert result["accuracy"] >= 0.9
    assert 40 < result["steps"] < 130, "the steps that nobody could tell it of any more are not its own"
    assert log_of(back)[-1]["step"] == 130
    assert {node["steps"] for name, node in by_name(summary).items() if name != "node2"} == {130}
    assert summary["evidence"] == []
    assert all(accused(out / f"node{i}") == set() for i in range(5))


@pytest.mark.parametrize("end", ["interrupt the command", "kill the command", "kill the spawner"])
def test_no_node_outlives_its_testnet(tmp_path, end):
    out = tmp_path / "net"
    homes = [out / f"node{i}" for i in range(4)]
    with running_testnet(out, "--nodes", 4, "--byzantine", 0, "--steps", 100_000) as process:
        until(lambda: all((home / "outbox").exists() and steps_taken(home) > 3 for home in homes), "a running network")
        pids = [pid_of(home) for home in homes]
        spawner = parent_of(pids[0])
        assert parent_of(spawner) == process.pid
        assert all(map(alive, pids))
        if end == "interrupt the command":
            process.send_signal(signal.SIGINT)
        else:
            os.kill(process.pid if end == "kill the command" else spawner, signal.SIGKILL)
        until(lambda: not any(map(alive, [*pids, spawner])), f"the end of {pids}", 15)
        code, _, err = finish(process)
    if end == "interrupt the command":
        assert code == 1
        assert f"every node was stopped; {out} holds what they saved" in err
    if end == "kill the spawner":
        assert code == 1
        assert "the process that starts the nodes was killed" in err
    else:
        for home in homes:
            assert log_of(home)[-1]["event"] == "node stops", "in good order"
            assert (home / "checkpoint.safetensors").exists()
            assert not (home / "pid").exists()


def test_a_network_founded_and_run_by_hand(tmp_path):
    ports = free_ports(4)
    names = [f"hand{i}" for i in range(4)]
    addresses = [
        part for name, port in zip(names, ports, strict=True) for part in ("--address", f"{name}=127.0.0.1:{port}")
    ]
    code, told, err = call("init", tmp_path / "net", *addresses, "--steps", 20)
    assert code == 0, err
    assert all(name in told for name in names)
    homes = [tmp_path / "net" / name for name in names]
    with (
        command("run", homes[0], "--json") as first,
        command("run", homes[1], "--json") as second,
        command("run", homes[2], "--json") as third,
    ):
        # n − f of them are needed, so nothing is over before the last one is there.
        until(lambda: linked(homes[0]) == {"hand1", "hand2"}, "two links")
        code, told, err = call("status", homes[0], "--json")
        status = json.loads(told)
        assert (code, status["name"], status["step"], status["steps"]) == (0, "hand0", 0, 20)
        assert sorted(status["connected"]) == ["hand1", "hand2"]
        with command("run", homes[3], "--json") as fourth:
            for process, home in zip((first, second, third, fourth), homes, strict=True):
                code, told, err = finish(process)
                assert code == 0, err
                said = [json.loads(line) for line in told.splitlines()]
                assert {line["node"] for line in said} == {home.name}
                assert said[-1]["event"] == "node stops"
                assert said == log_of(home)[-len(said) :]
                assert json.loads((home / "result.json").read_text())["steps"] == 20
                assert not (home / "pid").exists()
    code, _, err = call("status", homes[0])
    assert code == 1
    assert f"start it with `p2pnode run {homes[0]}`" in err
