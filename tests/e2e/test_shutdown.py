"""A real process that is told to stop: in the middle of its work, waiting, beside a peer that hangs."""

import gzip
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from p2pnode.home import Home
from p2pnode.init import Place, found
from p2pnode.process import EXIT_GOOD
from p2pnode.storage.checkpoint import load_checkpoint
from p2pnode.storage.vectors import digest_of
from p2pnode.testnet import free_ports

PATIENCE_S = 60.0

STOP_S = 5.0
BUSY = 3
"""Times as long may it take on a machine that does other work, too."""


def images(count, draw):
    pixels = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return struct.pack(">4I", 0x0803, count, 28, 28) + pixels.tobytes()


def labels(count):
    return struct.pack(">2I", 0x0801, count) + bytes(i % 10 for i in range(count))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Files as MNIST's, and as large a model; what they show is noise."""
    folder, draw = tmp_path_factory.mktemp("mnist"), np.random.default_rng(0)
    for name, count in (("train", 1000), ("t10k", 1000)):
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images(count, draw), 1))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels(count), 1))
    return folder


class Nodes:
    """Node processes, forked from one that has torch and the data loaded; each ends by signals or by itself."""

    def __init__(self, data_dir):
        self._spawner = subprocess.Popen(
            [sys.executable, "-m", "p2pnode.spawner"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._order(load={"task": "mnist", "source": None, "data_dir": str(data_dir)})
        assert self._report() == {"loaded": True}

    def start(self, home):
        self._order(name=home.path.name, home=str(home.path), attacks=[], liars=[])
        return self._report()["pid"]

    def exit_code(self):
        """Of the node that ends next."""
        return self._report()["exit"]

    def close(self):
        self._spawner.communicate(timeout=PATIENCE_S)

    def _order(self, **order):
        self._spawner.stdin.write(json.dumps(order).encode() + b"\n")
        self._spawner.stdin.flush()

    def _report(self):
        assert select.select([self._spawner.stdout], [], [], PATIENCE_S)[0], "nothing is reported"
        return json.loads(self._spawner.stdout.readline())


@pytest.fixture(scope="module")
def nodes(data_dir):
    nodes = Nodes(data_dir)
    yield nodes
    nodes.close()


@pytest.fixture
def homes(tmp_path, data_dir):
    """Of two members that need each other, or of one that needs nobody."""

    def make(count):
        settings = {"data_dir": str(data_dir), "threads": 1, "evaluate_every": 1, "checkpoint_every": 10}
        places = [Place(f"node{i}", f"127.0.0.1:{port}", settings) for i, port in enumerate(free_ports(count))]
        training = {"task": "mnist", "steps": 10**6, "local_batch": 8, "momentum": 0.9, "lr": 0.01}
        genesis = found(tmp_path / "net", places, {"f": 0, "recipe": {"name": "dsgd"}, "training": training})
        return genesis, [Home(tmp_path / "net" / place.name) for place in places]

    return make


def said(home, event):
    lines = home.log.read_text().splitlines(keepends=True) if home.log.exists() else []
    return [line for line in map(json.loads, (each for each in lines if each.endswith("\n"))) if line["event"] == event]


def spoken(home):
    return max((int(file.name[:20]) for file in home.outbox.glob("*.safetensors")), default=-1)


def until(true, what):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.02)


def stop(nodes, pid, number):
    """Send a signal; the exit code that follows, which must not take long."""
    began = time.monotonic()
    os.kill(pid, number)
    code = nodes.exit_code()
    seconds = time.monotonic() - began
    print(f"{signal.Signals(number).name}: ended after {seconds:.2f} s")
    assert seconds < BUSY * STOP_S
    return code


def test_a_node_in_the_middle_of_its_work_keeps_its_last_step_and_goes_on_from_it(nodes, homes):
    genesis, (home,) = homes(1)
    for run, number in enumerate((signal.SIGTERM, signal.SIGINT)):
        before = spoken(home)
        pid = nodes.start(home)
        until(lambda before=before: spoken(home) >= before + 7, "a few steps")
        assert stop(nodes, pid, number) == EXIT_GOOD
        kept = load_checkpoint(home.checkpoint, genesis.network)
        assert kept.step == said(home, "node stops")[run]["step"] > before
        assert spoken(home) in (kept.step - 1, kept.step), "no step was taken after it"
        assert not home.pid.exists()
    first, again = said(home, "node starts")
    assert again["step"] == said(home, "node stops")[0]["step"]
    assert again["model_step"] == again["step"]
    assert again["model"] != first["model"]
    pid = nodes.start(home)
    until(lambda: len(said(home, "node starts")) == 3, "the third start")
    assert said(home, "node starts")[2]["model"] == digest_of(kept.tensors["model"]).hex()
    assert stop(nodes, pid, signal.SIGTERM) == EXIT_GOOD


def test_a_node_that_waits_for_its_peers_or_beside_one_that_hangs_ends_too(nodes, homes):
    genesis, (home, other) = homes(2)
    pid = nodes.start(home)
    until(lambda: said(home, "late"), "the wait for the other")
    assert stop(nodes, pid, signal.SIGTERM) == EXIT_GOOD
    assert load_checkpoint(home.checkpoint, genesis.network).step == 0
    pid, hanging = nodes.start(home), nodes.start(other)
    until(lambda: spoken(home) >= 3, "a few steps")
    os.kill(hanging, signal.SIGSTOP)
    assert stop(nodes, pid, signal.SIGTERM) == EXIT_GOOD
    kept = load_checkpoint(home.checkpoint, genesis.network)
    assert kept.step == said(home, "node stops")[-1]["step"] >= 3
    os.kill(hanging, signal.SIGCONT)
    assert stop(nodes, hanging, signal.SIGTERM) == EXIT_GOOD
