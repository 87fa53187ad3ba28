"""Plug-ins from distributions that lie in a folder on the path, as installed ones do."""

import sys

import pytest

from p2pnode.errors import ConfigError
from p2pnode.plugins import discover, distribution_of, load

GROUP = "p2pnode.test"


@pytest.fixture(autouse=True)
def fresh():
    discover.cache_clear()
    yield
    discover.cache_clear()


def installed(folder, name, version, points, module=None):
    """A distribution in `folder`; its module is of the same name."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(f"{point}\n" for point in points))
    if module is not None:
        (folder / f"{name}.py").write_text(module)


def test_plug_ins_are_found_by_name_and_not_imported(tmp_path, monkeypatch):
    installed(tmp_path, "jester", "1.2", ["zeta = jester:zeta", "alpha = jester:alpha"], "alpha, zeta = 'a', 'z'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(discover(GROUP)) == ["alpha", "zeta"]
    assert distribution_of(discover(GROUP)["alpha"]) == "jester 1.2"
    assert "jester" not in sys.modules
    assert (load(GROUP, "alpha"), load(GROUP, "zeta")) == ("a", "z")


def test_of_two_distributions_with_one_name_the_first_on_the_path_has_it(tmp_path, monkeypatch):
    for folder, name in (("near", "early_jester"), ("far", "late_jester")):
        installed(tmp_path / folder, name, "1", [f"one = {name}:who"], f"who = '{name}'\n")
    monkeypatch.syspath_prepend(tmp_path / "far")
    monkeypatch.syspath_prepend(tmp_path / "near")
    assert load(GROUP, "one") == "early_jester"


def test_where_nothing_is_installed_there_is_nothing():
    assert discover("p2pnode.nothing") == {}
    with pytest.raises(ConfigError, match=r"p2pnode.nothing: no plug-in 'x'. Remedy: .*none is installed"):
        load("p2pnode.nothing", "x")


@pytest.mark.parametrize(
    ("target", "cause"),
    [("broken_jester:x", "ZeroDivisionError"), ("broken_jester_gone:x", "No module"), ("sys:nowhere", "nowhere")],
)
def test_a_plug_in_that_does_not_load_is_named_with_its_distribution_and_only_when_used(
    tmp_path, monkeypatch, target, cause
):
    installed(tmp_path, "broken_jester", "3", [f"bad = {target}"], "1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "bad" in discover(GROUP)
    with pytest.raises(ConfigError, match=rf"'bad' \({target}, of broken_jester 3\).*{cause}.*Remedy: .*broken_jester"):
        load(GROUP, "bad")
