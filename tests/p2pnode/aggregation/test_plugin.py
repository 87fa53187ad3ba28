"""Rules of other distributions, in a folder on the path: used as built-in ones are, and never in their place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

MODULE = """
from p2pnode.aggregation.rule import Inputs, Rule
from protocols.committee import Bound

_BOUNDS = dict.fromkeys(("plain", "signed-echo", "reliable"), Bound(6, 1, "a test"))

def rule(**changes):
    return Rule(**(dict(
        name="first-kept", aliases=(), kernel="kept.kernels:first", arguments=("f", "own"), inputs_min=Inputs(1, 1),
        bounds=_BOUNDS, source="a test", summary="what stands first") | changes))

RULE = rule(CHANGES)
"""
KERNELS = """
def first(vectors, f, own):
    assert f == 1
    return vectors[0] + vectors[own]
"""


@pytest.fixture
def call(tmp_path):
    """Runs Python code with a distribution `kept` on the path: (standard output, last line of standard error)."""

    def run(code, entry="first-kept = kept:RULE", changes=""):
        info = tmp_path / "kept-0.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kept\nVersion: 0.3\n")
        (info / "entry_points.txt").write_text(f"[p2pnode.rules]\n{entry}\n")
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "__init__.py").write_text(MODULE.replace("CHANGES", changes))
        (tmp_path / "kept" / "kernels.py").write_text(KERNELS)
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path
        )
        return done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]

    return run


FIND = "from p2pnode.aggregation.rules import find; print(find({!r}).name)"


def test_it_mixes_as_a_built_in_rule_does(call):
    code = (
        "import torch; from p2pnode.aggregation import aggregate\n"
        "print(aggregate('First_Kept', torch.tensor([[1.0], [2.0]]), f=1, own=1).tolist())"
    )
    assert call(code) == ("[3.0]", "")


def test_the_theorem_guard_takes_its_bounds(call):
    code = (
        "from p2pnode.recipe import choose; from protocols.committee import Committee\n"
        "print(choose('trimmed', Committee(7, 1), rule='first-kept').exchanges[0].rule)\n"
        "choose('trimmed', Committee(6, 1), rule='first-kept')"
    )
    out, error = call(code)
    assert out == "first-kept"
    assert "first-kept over signed-echo needs n ≥ 6f+1: n=6 tolerates f=0" in error


@pytest.mark.parametrize("name", ["median", "cwtm"])
def test_it_may_not_have_a_built_in_name(call, name):
    """Else one name would mean two things on two machines. The built-in rule is found all the same."""
    code = f"from p2pnode.aggregation.rules import find; print(find({name!r}).kernel); find('other')"
    out, error = call(code, entry=f"{name} = kept:RULE")
    assert out.startswith("coordinate:")
    assert f"kept 0.3 offers a rule '{name}', which is built in. Remedy: " in error


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ("aliases=('krummer', 'cwmed')", "'cwmed', which is built in"),
        ("name='other'", "it calls itself 'other'"),
        ("kernel='kernels:first'", "kernel = 'kernels:first' is not of the form package.module:function"),
        ("kernel='kept.kernels'", "is not of the form"),
        ("arguments=('g',)", "there are f, own, centre, seed, keep"),
        ("bounds={}", "bounds are for none, and must be for plain, signed-echo, reliable"),
    ],
)
def test_a_mistake_in_it_is_told_before_a_network_starts(call, changes, wanted):
    _, error = call(FIND.format("first-kept"), changes=changes)
    assert error.startswith("p2pnode.errors.ConfigError: p2pnode.rules: ")
    assert "kept 0.3" in error
    assert wanted in error
    assert "Remedy: " in error


def test_what_is_no_rule_is_told(call):
    _, error = call(FIND.format("first-kept"), entry="first-kept = kept:rule")
    assert "'first-kept', of kept 0.3, is no Rule" in error
