"""The owner's own code: found by the name that the owner writes, run once, and what is wrong with it told."""

import sys

import pytest

from p2pnode.errors import ConfigError
from p2pnode.learning.source import anywhere, names_code, summon
from tests.own_code import modules_as_before  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("modules_as_before")


def test_a_file_is_run_once_and_imports_what_stands_beside_it(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("runs = []\n")
    mine = tmp_path / "mine.py"
    mine.write_text("from neighbour_of_mine import runs\nruns.append(__name__)\nmain = __name__ == '__main__'\n")
    assert summon(f"{mine}:runs") == ["mine"]
    assert summon(f"{mine}:main") is False
    assert summon(f"{tmp_path}/./mine.py:runs") == ["mine"], "once, whatever is asked for, and however"


def test_its_folder_takes_the_place_of_no_other_module(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys.py").write_text("raise AssertionError('the wrong one')\n")
    (tmp_path / "own.py").write_text("import colorsys\nsaid = colorsys.rgb_to_hsv(1, 1, 1)\n")
    (tmp_path / "random.py").write_text("mine = 1\n")
    assert summon(f"{tmp_path / 'own.py'}:said") == (0, 0, 1)
    import random

    assert summon(f"{tmp_path / 'random.py'}:mine") == 1
    assert sys.modules["random"] is random


def test_a_module_is_named_without_a_file():
    assert summon("collections.abc:Mapping").__name__ == "Mapping"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nowhere/at_all.py:x", r"nowhere/at_all.py does not run: FileNotFoundError.* Remedy: "),
        ("no_such_module_here:x", r"no_such_module_here does not run: ModuleNotFoundError.* Remedy: "),
        ("collections:nothing", r"there is no nothing in collections. Remedy: "),
        ("collections:", r"names no code. Remedy: write FILE.py:NAME or MODULE:NAME"),
        (":name", r"names no code"),
        ("a.py:b()", r"names no code"),
    ],
)
def test_what_names_no_code_is_refused(text, reason):
    with pytest.raises(ConfigError, match=reason):
        summon(text)


def test_a_file_that_fails_is_told_with_its_cause_and_leaves_no_module(tmp_path):
    (tmp_path / "broken_of_mine.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=r"broken_of_mine.py does not run: ZeroDivisionError"):
        summon(f"{tmp_path / 'broken_of_mine.py'}:x")
    assert "broken_of_mine" not in sys.modules


def test_a_name_of_code_holds_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert anywhere("sub/mine.py:x") == f"{tmp_path}/sub/mine.py:x"
    assert anywhere("package.module:x") == "package.module:x"
    assert names_code("mine.py:x")
    assert not names_code("digits")
