"""Nodes that run elsewhere: forked into the command that runs them there, which ends as they do and passes on stops."""

import json
import subprocess
import sys
import time

import pytest


@pytest.fixture
def spawner():
    with subprocess.Popen(
        [sys.executable, "-m", "p2pnode.spawner"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


def order(spawner, name, home, script):
    home.mkdir()
    command = ["sh", "-c", script]
    spawner.stdin.write(json.dumps({"name": name, "home": str(home), "command": command}) + "\n")
    spawner.stdin.flush()


def report(spawner):
    return json.loads(spawner.stdout.readline())


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 2", 2), ("kill -9 $$", -9), ("exit 137", -9)])
def test_how_a_command_ends_is_how_its_node_ended(spawner, tmp_path, script, code):
    order(spawner, "a", tmp_path / "a", f"echo last words; {script}")
    assert report(spawner)["name"] == "a"
    assert report(spawner) == {"name": "a", "exit": code}
    assert (tmp_path / "a" / "output.txt").read_text() == "last words\n"


def test_a_command_is_told_to_stop_when_the_orders_end(spawner, tmp_path):
    order(spawner, "a", tmp_path / "a", "trap 'echo stopped; exit 0' TERM; echo up; while true; do sleep 0.05; done")
    assert report(spawner)["name"] == "a"
    output = tmp_path / "a" / "output.txt"
    while not output.exists() or not output.read_text():
        time.sleep(0.01)
    spawner.stdin.close()
    assert report(spawner) == {"name": "a", "exit": 0}
    assert output.read_text() == "up\nstopped\n"
