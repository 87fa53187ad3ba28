"""What there is to choose from, and what a network will cost."""

import json

import pytest

from p2pnode.cli import planning


@pytest.mark.parametrize("what", planning.LISTS)
def test_lists_are_for_people_and_machines(call, what):
    code, out, _ = call("list", what)
    assert code == 0
    names = [entry["name"] for entry in json.loads(call("list", what, "--json")[1])]
    assert len(names) >= 3
    assert all(name in out for name in names)


def test_a_list_that_there_is_not_is_refused(call):
    code, out, err = call("list", "rulez")
    assert (code, out) == (2, "")
    assert "refused list 'rulez': no such list. Remedy: choose one of rules, attacks, recipes, tasks" in err


def test_plan_foretells_a_network_by_measuring_this_machine(call):
    code, out, _ = call("plan", "--nodes", 5, "--byzantine", 1, "--link", "1Gbit", "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["parameters"], told["exchanges"][0]["needs"]) == (4810, "n ≥ 4f+1")
    assert told["seconds"] >= 8 * told["bytes"] / 1e9
    code, out, _ = call("plan", "--nodes", 5, "--byzantine", 1)
    assert code == 0
    assert "without a defence" in out


def test_plan_refuses_before_it_measures(call, no_sockets):
    for wrong, remedy in (
        (("--nodes", 4), "use n ≥ 5 nodes"),
        (("--nodes", 2, "--byzantine", 2), "choose fewer"),
        (("--link", "fast"), "write 100Mbit or 1Gbit"),
        (("--vectors", "carrier-pigeon"), "choose tls or plain"),
    ):
        code, _, err = call("plan", *wrong)
        assert (code, remedy in err) == (2, True), err
