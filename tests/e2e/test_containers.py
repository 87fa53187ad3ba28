"""A testnet in real containers: it learns, convicts the liar, and leaves no container, however it ends."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2pnode.containers import IMAGE, Containers
from p2pnode.errors import ConfigError

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0

SOURCE = """
import hashlib, pathlib, p2pnode, protocols
files = sorted(f for p in (p2pnode, protocols) for f in pathlib.Path(p.__file__).parent.rglob("*.py"))
print(hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest())
"""


@pytest.fixture(scope="module")
def engine():
    """The engine's command, where there is one with an image of this very source."""
    try:
        tool = Containers()._tool
    except ConfigError as error:
        pytest.skip(str(error))
    command = [tool, "run", "--rm", "--pull=never", "--network=none", "--entrypoint=python", IMAGE, "-c", SOURCE]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    files = sorted(f for p in ("p2pnode", "protocols") for f in (ROOT / p).rglob("*.py"))
    if told.stdout.strip() != hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest():
        pytest.skip(f"the image {IMAGE} is not of this source: build it anew ({told.stderr.strip()[-200:]})")
    return tool


def running_testnet(out, *arguments):
    command = [sys.executable, "-m", "p2pnode", "testnet", "--json", "--engine", "containers", "--out", str(out)]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left(engine, pid):
    """The containers and networks of this process."""
    mine = ["--filter", f"label=p2pnode.testnet={pid}", "--format"]
    lists = ([engine, "ps", "--all", *mine, "{{.Names}}"], [engine, "network", "ls", *mine, "{{.Name}}"])
    return [subprocess.run(each, capture_output=True, text=True, check=True).stdout.split() for each in lists]


def until(true, what):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.1)


def test_five_containers_learn_and_convict_the_liar(engine, tmp_path):
    out = tmp_path / "net"
    with running_testnet(out, "--nodes", "5", "--steps", "15") as process:
        told, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    summary = json.loads(told)
    assert [(node["name"], node["steps"], node["exit"]) for node in summary["honest"]] == [
        (f"node{i}", 15, 0) for i in range(4)
    ]
    assert summary["accuracy_min"] > 0.6
    assert {(row["accused"], row["fault"]) for row in summary["evidence"]} == {("node4", "equivocated")}
    assert left(engine, process.pid) == [[], []]


@pytest.mark.parametrize("end", ["interrupted", "killed"])
def test_no_container_outlives_its_testnet(engine, tmp_path, end):
    out = tmp_path / "net"
    homes = [out / f"node{i}" for i in range(2)]
    with running_testnet(out, "--nodes", "2", "--byzantine", "0", "--steps", "100000") as process:
        until(lambda: all(len(list((home / "outbox").glob("*"))) > 1 for home in homes), "a running network")
        assert [len(names) for names in left(engine, process.pid)] == [2, 1]
        os.kill(process.pid, signal.SIGINT if end == "interrupted" else signal.SIGKILL)
        until(lambda: left(engine, process.pid)[0] == [], "the end of all containers")
        process.communicate(timeout=PATIENCE_S)
    for home in homes:
        last = json.loads((home / "log.jsonl").read_text().splitlines()[-1])
        assert last["event"] == "node stops", "in good order"
    if end == "killed":
        with Containers():
            pass
    assert left(engine, process.pid) == [[], []]
