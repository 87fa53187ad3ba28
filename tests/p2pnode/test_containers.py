"""Nodes in containers: which engine and image, what a container may do, and what is removed; the engine is played."""

import itertools
import os
import subprocess
import sys

import pytest

from p2pnode import containers
from p2pnode.containers import Containers, ContainersFailed
from p2pnode.errors import ConfigError

ENGINE = """#!/bin/sh
echo "$(basename "$0") $*" >> "{said}"
case "$1 $2" in
version*) {version} ;;
"image inspect") [ "$3" = p2pnode ] || {{ echo "no such image" >&2; exit 1; }} ;;
"network create") {create} ;;
"network ls") cat "{folder}/networks" 2>/dev/null || true ;;
"ps --all") cat "{folder}/containers" 2>/dev/null || true ;;
esac
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Puts an engine of that name on the path, and gives what it was told."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(containers, "TOOLS", ("one", "other"))
    said = tmp_path / "said"

    def install(name="one", version="true", create="true"):
        tool = tmp_path / name
        tool.write_text(ENGINE.format(said=said, folder=tmp_path, version=version, create=create))
        tool.chmod(0o755)
        return lambda: [line for line in said.read_text().splitlines() if " version" not in line]

    return install


def dead_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_without_an_engine_one_is_told_what_to_do(engine):
    with pytest.raises(
        ConfigError, match=r"one is not installed; other is not installed. Remedy: install one or other"
    ):
        Containers()
    engine("one", version="echo 'Is the daemon running?' >&2; exit 1")
    with pytest.raises(ConfigError, match=r"need an engine: Is the daemon running\?; other is not installed"):
        Containers()


def test_the_first_engine_that_answers_is_taken(engine):
    engine("one", version="exit 1")
    told = engine("other")
    with Containers():
        pass
    assert {line.split()[0] for line in told()} == {"other"}


def test_without_the_image_one_is_told_to_build_it_and_it_is_never_fetched(engine, tmp_path):
    engine()
    with pytest.raises(ConfigError, match=r"image = 'other': one has none.*Remedy: one build -t other FOLDER"):
        Containers("other")
    assert "--pull=never" in Containers().command("a", tmp_path, None, "127.0.0.1:1")


def test_a_container_has_its_home_its_data_and_nothing_else(engine, tmp_path, monkeypatch):
    engine()
    monkeypatch.chdir(tmp_path)
    made = Containers()
    command = made.command("node0", made_home := tmp_path / "node0", "/data", "127.0.0.1:20001")
    mine = f"p2pnode-{os.getpid()}"
    assert command[:2] == ["one", "run"]
    assert command[-3:] == ["p2pnode", "run", "/home/node"]
    assert [word for word in command if word.startswith("--volume")] == [
        f"--volume={made_home}:/home/node",
        "--volume=/data:/data:ro",
    ]
    assert {"--rm", "--read-only", "--cap-drop=ALL", "--publish=127.0.0.1:20001:7001"} <= set(command)
    pairs = dict(itertools.pairwise(command))
    assert (pairs["--user"], pairs["--network"]) == (f"{os.getuid()}:{os.getgid()}", mine)
    assert (pairs["--name"], pairs["--network-alias"]) == (f"{mine}-node0", "node0")
    assert pairs["--label"] == f"p2pnode.testnet={os.getpid()}"
    place = made.place("node0", {"threads": 1})
    assert (place.address, place.listen) == ("node0:7000", "0.0.0.0:7000")
    assert place.settings == {"threads": 1, "admin": "0.0.0.0:7001"}


def test_a_liar_is_the_same_image_told_to_lie_and_with_whom(engine, tmp_path):
    engine()
    made = Containers()
    honest = made.command("node1", tmp_path, None, "127.0.0.1:1")
    assert made.command("node1", tmp_path, None, "127.0.0.1:1", ["alie", "equivocate"], ["node1", "node2"]) == [
        *honest,
        *("--attack", "alie,equivocate", "--liars", "node1,node2"),
    ]


@pytest.mark.parametrize(("version", "user"), [("echo Podman", 1000), ("echo Podman", 0), ("echo Docker", 1000)])
def test_users_are_not_renumbered(engine, tmp_path, monkeypatch, version, user):
    engine(version=version)
    monkeypatch.setattr(containers.os, "geteuid", lambda: user)
    command = Containers().command("a", tmp_path, None, "127.0.0.1:1")
    assert ("--userns=keep-id" in command) is (version == "echo Podman" and user != 0)


def test_all_that_was_started_is_removed_at_the_end(engine, tmp_path):
    told = engine()
    mine = f"p2pnode-{os.getpid()}"

    def interrupted():
        with Containers():
            (tmp_path / "containers").write_text(f"{mine}-node0\n{mine}-node1\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert told()[-4:] == [
        f"one ps --all --filter label=p2pnode.testnet={os.getpid()} --format {{{{.Names}}}}",
        f"one rm --force {mine}-node0",
        f"one rm --force {mine}-node1",
        f"one network rm {mine}",
    ]


def test_what_a_killed_testnet_left_is_removed_and_what_another_runs_is_not(engine, tmp_path):
    told, dead, alive = engine(), dead_process(), os.getppid()
    names = [f"p2pnode-{dead}-node0", f"p2pnode-{alive}-node0", "p2pnode-of-mine", "postgres"]
    (tmp_path / "containers").write_text("\n".join(names))
    (tmp_path / "networks").write_text(f"p2pnode-{dead}\np2pnode-{alive}\n")
    Containers().__enter__()
    removed = [line for line in told() if " rm " in line]
    assert removed == [f"one rm --force p2pnode-{dead}-node0", f"one network rm p2pnode-{dead}"]


def test_what_the_engine_refuses_is_said(engine):
    engine(create="echo 'no subnet is left' >&2; exit 125")
    with pytest.raises(ContainersFailed, match=r"network create .*: no subnet is left"), Containers():
        pass
