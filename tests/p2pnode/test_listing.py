"""Listings: complete, true, narrow, and made without torch."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from p2pnode import listing
from p2pnode.aggregation import RULES
from p2pnode.byzantine import ATTACKS
from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.task import build, lenet, perceptron
from p2pnode.recipe import RECIPES

TABLES = {"rules": RULES, "attacks": ATTACKS, "recipes": RECIPES, "tasks": TASKS}


@pytest.mark.parametrize("what", TABLES)
def test_every_name_is_listed_within_100_columns(what):
    entries = listing.rows(what)
    assert [entry["name"] for entry in entries if not entry.get("before_a_rule")] == list(TABLES[what])
    console = Console(file=io.StringIO(), width=100)
    console.print(listing.table(what, entries))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    for name in TABLES[what]:
        assert any(line.split()[:1] == [name] for line in lines)
    assert "…" not in console.file.getvalue()


def test_a_rule_is_listed_with_its_bound_over_each_broadcast_and_what_it_wants():
    by_name = {entry["name"]: entry for entry in listing.rows("rules")}
    assert by_name["trimmed-mean"]["bounds"] == {
        "plain": "n ≥ 5f+1",
        "signed-echo": "n ≥ 4f+1",
        "reliable": "n ≥ 3f+1",
    }
    assert by_name["trimmed-mean"]["inputs_min"] == "2f+1"
    assert by_name["nearest-neighbour"]["inputs_min"] == "f+1"
    assert by_name["mean"]["inputs_min"] == "1"
    assert "own" in by_name["nearest-neighbour"]["wants"]
    assert "cwtm" in by_name["trimmed-mean"]["aliases"]


def test_a_rule_is_listed_with_its_constants_and_parameters_where_it_has_any():
    by_name = {entry["name"]: entry for entry in listing.rows("rules")}
    kappa = by_name["trimmed-mean"]["kappa"]
    assert (kappa["n"], kappa["f"]) == (26, 5)
    assert kappa["value"] == RULES["trimmed-mean"].kappa(26, 5)
    assert by_name["bulyan"]["inputs_min"] == "4f+3"
    assert by_name["clip"]["parameters"][0]["name"] == "c"
    assert by_name["nnm"]["before_a_rule"]
    assert by_name["mean"]["kappa"] is None, "infinity is no JSON"


def test_an_attack_is_listed_with_its_parameter_and_aliases():
    by_name = {entry["name"]: entry for entry in listing.rows("attacks")}
    assert "search" in by_name["alie"]["parameter"]
    assert "a-little-is-enough" in by_name["alie"]["aliases"]
    assert by_name["silent"]["parameter"] is None


def test_a_recipe_is_listed_with_its_exchanges_in_order():
    by_name = {entry["name"]: entry for entry in listing.rows("recipes")}
    assert by_name["jungle-rb"]["exchanges"] == [
        {"what": "gradient", "broadcast": "reliable", "rule": "trimmed-mean"},
        {"what": "model", "broadcast": "reliable", "rule": "trimmed-mean"},
    ]
    assert by_name["jungle-rb"]["batch_grows"]
    assert by_name["trimmed"]["nodes_min"] == {"1": 5, "2": 9, "3": 13}
    assert by_name["dsgd"]["nodes_min"] == {"1": None, "2": None, "3": None}
    assert by_name["learn"]["placement"] == "update"


def test_the_parameters_of_tasks_are_those_of_their_models():
    for name in ("digits", "regression"):
        assert TASKS[name].parameters == build(name, None).dimension
    images = {"mnist": lenet, "mnist-mlp": perceptron, "fashion-mnist": lenet}
    for name, network in images.items():
        assert TASKS[name].parameters == sum(parameter.numel() for parameter in network().parameters())


def test_neither_torch_nor_a_plug_in_is_imported(tmp_path):
    """A broken plug-in is listed, and spoils nothing."""
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[p2pnode.rules]\nbad = broken:x\n[p2pnode.tasks]\nworse = broken:y\n")
    script = (
        "import sys; from p2pnode import listing\n"
        "print([entry['name'] for what in ('rules', 'tasks') for entry in listing.rows(what) if entry['origin']])\n"
        "for what in ('rules', 'attacks', 'recipes', 'tasks'): listing.table(what, listing.rows(what))\n"
        "print([name for name in ('torch', 'broken') if name in sys.modules])\n"
    )
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = subprocess.run([sys.executable, "-c", path + script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["['bad', 'worse']", "[]"]
