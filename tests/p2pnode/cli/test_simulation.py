"""Simulations: what is summed up, and what comes with a violation."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

BROKEN = ("--recipe", "reliable", "--nodes", 4, "--byzantine", 2, "--f", 1, "--beyond-the-bound")
"""Where two liars of four are silent no broadcast of an honest member, which even seeds have, is delivered."""


@pytest.fixture
def no_runs(monkeypatch):
    """Whoever runs a simulation fails the test."""

    def refused(*args, **kwargs):
        raise AssertionError("begun although it is refused")

    monkeypatch.setattr("p2pnode.simulation.sweep.run_all", refused)


def test_simulations_are_summed_up_for_machines(call):
    code, out, err = call("simulate", "--seeds", 5, "--recipe", "trimmed", "--nodes", 5, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert (told["recipe"], told["nodes"], told["byzantine"], told["f"]) == ("trimmed", 5, 1, 1)
    assert (told["runs"], told["violations"], told["broken"]) == (5, 0, [])
    assert told["deliveries"] > told["messages"] > 100 > told["wall_seconds"] > 0
    assert told["bytes"] > 10 * told["messages"]
    assert told["virtual_seconds"] > 100
    assert len(bytes.fromhex(told["trace_digest"])) == 16
    again = json.loads(call("simulate", "--seeds", 5, "--recipe", "trimmed", "--nodes", 5, "--json")[1])
    assert again | {"wall_seconds": 0} == told | {"wall_seconds": 0}
    other = call("simulate", "--seeds", 5, "--first-seed", 1, "--recipe", "trimmed", "--nodes", 5, "--json")[1]
    assert json.loads(other)["trace_digest"] != told["trace_digest"]


def test_simulations_are_summed_up_for_people(call):
    code, out, err = call("simulate", "--seeds", 3, "--recipe", "reliable")
    told = json.loads(call("simulate", "--seeds", 3, "--recipe", "reliable", "--json")[1])
    assert (code, err) == (0, "")
    assert "reliable: 4 nodes, 1 lying, f = 1" in out
    rows = {cells[1].strip(): cells[2].strip() for line in out.splitlines() if len(cells := line.split("│")) == 4}
    assert rows["runs"] == "3"
    assert rows["violations"] == "0"
    assert rows["deliveries"] == f"{told['deliveries']:,}"
    assert rows["messages"].startswith(f"{told['messages']:,} ({told['messages'] / told['quiet_messages']:.2f} of ")
    assert rows["bytes"].startswith(f"{told['bytes']:,} ({told['bytes'] / told['quiet_bytes']:.2f} of ")
    assert rows["virtual time"] == f"{told['virtual_seconds']:,.0f} s"
    assert rows["trace digest"] == told["trace_digest"]
    assert "accuracy" not in rows
    assert "time  n0" not in out


def test_a_violation_comes_with_the_command_that_shows_it_again_and_a_diagram(call):
    code, out, _ = call("simulate", *BROKEN, "--attack", "silent", "--seeds", 13)
    assert code == 1
    told = json.loads(call("simulate", *BROKEN, "--attack", "silent", "--seeds", 13, "--json")[1])
    assert told["violations"] == len(told["broken"]) == 7
    lines = out.splitlines()
    for one in told["broken"][:5]:
        place = lines.index(f"seed {one['seed']}: {one['found']}")
        assert lines[place + 1] == f"  {one['replay']}"
    assert "and 2 more" in lines
    assert f"seed {told['broken'][5]['seed']}: " not in out
    begin = lines.index("seed 0, the end of it:")
    assert lines[begin + 1].split() == ["time", "n0", "n1", "n2", "n3"]
    assert any("▶" in line and "Proposal 0/0/0 of n0" in line for line in lines[begin:])
    assert lines[-1] == told["broken"][0]["found"]


def test_for_machines_a_violation_is_an_exit_code_and_no_diagram(call):
    code, out, err = call("simulate", *BROKEN, "--attack", "silent", "--seeds", 1, "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["violations"] == 1


def test_a_good_run_is_drawn_where_that_is_asked_for(call):
    code, out, _ = call(
        "simulate", "--recipe", "signed-echo", "--byzantine", 0, "--seeds", 2, "--first-seed", 3, "--show"
    )
    assert code == 0
    assert "seed 3, the end of it:" in out
    assert "◀" in out
    assert out.splitlines()[-1] == "every guarantee held"


def _loads_torch(worker):
    """Whether this process is a worker that is about to be ready, and no longer the copy of its parent."""
    process = Path(f"/proc/{worker}")
    return b"spawn_main" in (process / "cmdline").read_bytes() and "libtorch" in (process / "maps").read_text()


@contextmanager
def _simulating(seeds, ctrl_c):
    """A simulation whose workers are about to be ready; `ctrl_c` is what it does at first where a signal comes."""
    command = [sys.executable, "-m", "p2pnode", "simulate", "--recipe", "reliable", "--seeds", str(seeds), "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, ctrl_c),
    ) as ran:
        children = Path(f"/proc/{ran.pid}/task/{ran.pid}/children")
        while not any(map(_loads_torch, children.read_text().split())):
            time.sleep(0.01)
        yield ran


looks_in_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for its processes in /proc")


@looks_in_proc
def test_ctrl_c_ends_a_simulation_and_its_workers_without_a_word():
    """Also where the workers are not ready yet: it reaches all processes of a terminal, and none shows where it was."""
    with _simulating(100000, signal.SIG_DFL) as ran:
        os.killpg(ran.pid, signal.SIGINT)
        out, err = ran.communicate(timeout=300)
    assert (ran.returncode, out, err) == (130, b"", b"")


@looks_in_proc
def test_a_simulation_in_the_background_does_not_hear_ctrl_c():
    """A shell has what it starts in the background ignore it; the workers must not hear it alone."""
    with _simulating(500, signal.SIG_IGN) as ran:
        for _ in range(20):  # before they are ready, and after
            os.killpg(ran.pid, signal.SIGINT)
            time.sleep(0.1)
        out, err = ran.communicate(timeout=300)
    assert (ran.returncode, err) == (0, b"")
    assert json.loads(out)["runs"] == 500


def test_real_models_are_trained_where_that_is_asked_for(call):
    arguments = ("simulate", "--train", "--recipe", "trimmed", "--nodes", 5, "--steps", 8, "--seeds", 1)
    code, out, _ = call(*arguments, "--attack", "sign-flip", "--json")
    assert code == 0
    assert json.loads(out)["accuracy_min"] > 0.2
    assert "accuracy" in call(*arguments, "--byzantine", 0)[1]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--nodes", 3], ["n ≥ 3f+1", "use n ≥ 4 nodes", "choose f=0"]),
        (["--byzantine", 2, "--f", 1], ["byzantine = 2", "--beyond-the-bound"]),
        (["--nodes", 3, "--byzantine", 3], ["byzantine = 3", "choose fewer"]),
        (["--f", 4], ["f = 4", "smaller f"]),
        (["--attack", "sing-flip"], ["attack = 'sing-flip'", "did you mean 'sign-flip'?", "twins"]),
        (["--schedule", "storm"], ["schedule = 'storm'", "power-cut"]),
        (["--recipe", "trimed"], ["recipe = 'trimed'", "did you mean 'trimmed'?"]),
        (
            ["--recipe", "reliabel"],
            ["recipe = 'reliabel'", "did you mean 'reliable'?", "redundant, plain, signed-echo"],
        ),
        (["--recipe", "reliable", "--rule", "median"], ["leave out --rule"]),
        (["--sub-rounds", 0], ["choose from 1 to 64"]),
        (["--wire", "float8"], ["wire = 'float8'", "choose one of float32, bfloat16, float16"]),
        (["--train", "--task", "cifar"], ["task = 'cifar'", "digits, mnist, mnist-mlp, fashion-mnist"]),
        (["--train", "--task", "mnist"], ["data-dir is missing", "--data-dir FOLDER"]),
    ],
)
def test_a_wrong_simulation_is_refused_with_reason_and_remedy_before_it_runs(call, no_runs, arguments, wanted):
    code, out, err = call("simulate", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("refused ")
    assert "Remedy: " in err
    for part in wanted:
        assert part in err
