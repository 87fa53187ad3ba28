"""Perturbations: a file is read or refused with a remedy, a seed draws the same again, and no broken promise passes."""

import tomllib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.errors import ConfigError
from p2pnode.perturbation import (
    DRAWN,
    DRAWN_S,
    KINDS,
    OF_LINKS,
    Perturbation,
    Perturbations,
    Recovered,
    Split,
    Subject,
    draw,
    verdict,
)

NET = Subject(("node0", "node1", "node2", "node3", "node4", "node5"), ("node6",), f=2, steps=100, links=True)

EVERYTHING = """
recover_s = 7.5

[[perturbation]]
kind = "kill"
nodes = ["node0", "node6"]
at_step = 10
for_s = 2

[[perturbation]]
kind = "slow"
nodes = ["node1"]
at_s = 0
for_s = 1.5
megabits = 0.5

[[perturbation]]
kind = "partition"
nodes = ["node0", "node1", "node2"]
at_step = 40
for_s = 0.0

[[perturbation]]
kind = "liar"
nodes = ["node5"]
at_step = 99
"""


def load(tmp_path, text):
    file = tmp_path / "p.toml"
    file.write_text(text)
    return Perturbations.load(file)


def test_a_file_is_read_checked_and_written_again_as_it_was(tmp_path):
    read = load(tmp_path, EVERYTHING).checked(NET, "p.toml")
    assert read.recover_s == 7.5
    assert [one.kind for one in read.perturbation] == ["kill", "slow", "partition", "liar"]
    assert read.perturbation[0] == Perturbation(kind="kill", nodes=("node0", "node6"), at_step=10, for_s=2.0)
    assert load(tmp_path, read.toml()) == read


def one(text):
    return f"[[perturbation]]\n{text}\n"


KILL = 'kind = "kill"\nnodes = ["node0"]\nat_step = 10\nfor_s = 1'
LIAR = 'kind = "liar"\nnodes = ["node0"]\nat_step = 10'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"p.toml: perturbation: field required. Remedy: write a table \[\[perturbation\]\]"),
        ("recover_s = 0\n" + one(KILL), r"recover_s = '0': .*Remedy: choose within how many seconds"),
        (one(KILL) + "[", r"p.toml: not TOML \(.*Remedy: mend that line"),
        (one(KILL.replace("kill", "krill")), r"perturbation.0.kind = 'krill': .*Remedy: choose one of kill, restart"),
        (one(KILL + "\nforce = 3"), r"perturbation.0.force = '3': .*Remedy: remove it, or mend its spelling"),
        (one(KILL.replace('["node0"]', "[]")), r"perturbation.0.nodes.*Remedy: write the names of nodes"),
        (
            one(KILL.replace("at_step = 10", "at_step = 0")),
            r"at_step = '0'.*Remedy: choose a step from 1",
        ),
        (
            one(KILL.replace("node0", "node7")),
            "0.nodes: no node is called 'node7'. Remedy: choose among",
        ),
        (one(KILL.replace('"node0"', '"node0", "node0"')), "a node is named twice. Remedy: name each once"),
        (one(KILL + "\nat_s = 1"), "at_step: its moment is given twice or not at all. Remedy: write either"),
        (one(KILL.replace("at_step = 10", "")), "at_step: its moment is given twice or not at all"),
        (
            one(KILL) + one(KILL.replace("10", "100")),
            "1.at_step: 100 is not before the last, 100. Remedy",
        ),
        (one(KILL.replace("for_s = 1", "")), "for_s: is missing. Remedy: choose how many seconds"),
        (one(KILL + "\nmegabits = 1"), "megabits: belongs to kind slow, and to no other. Remedy"),
        (one(KILL.replace("kill", "slow")), "megabits: belongs to kind slow"),
        (
            one(KILL.replace("kill", "partition").replace('"node0"', ", ".join(f'"{n}"' for n in NET.names))),
            "nobody is left for the other side. Remedy: name the nodes of one side",
        ),
        (one(LIAR + "\nfor_s = 1"), "for_s: who has lied once is a liar to the end. Remedy: leave it out"),
        (one(LIAR.replace("node0", "node6")), "node6 lies already. Remedy: choose an honest node"),
        (one(LIAR) + one(LIAR), "node0 lies already"),
        (one(LIAR) + one(LIAR.replace("0", "1", 1)), r"nodes: 3 would have lied, and f = 2 are tolerated. Remedy"),
    ],
)
def test_a_mistake_is_refused_with_key_reason_and_remedy(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told):
        load(tmp_path, text).checked(NET, "p")


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"perturb = .*none.toml': No such file.*Remedy: name a file, or random"):
        Perturbations.load(tmp_path / "none.toml")


@pytest.mark.parametrize("kind", OF_LINKS)
def test_what_needs_links_is_refused_where_there_are_none(tmp_path, kind):
    text = one(KILL.replace("kill", kind) + ("\nmegabits = 1" if kind == "slow" else ""))
    assert load(tmp_path, text).checked(NET, "p")
    with pytest.raises(ConfigError, match=rf"p: perturbation.0.kind: {kind} needs hosts.*Remedy: add --engine netns"):
        load(tmp_path, text).checked(replace(NET, links=False), "p")


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**31), st.integers(3, 9), st.integers(0, 2), st.integers(2, 200), st.booleans())
def test_what_a_seed_draws_is_the_same_again_fits_the_network_and_can_be_done_from_its_file(
    seed, nodes, liars, steps, links
):
    names = tuple(f"node{i}" for i in range(nodes))
    net = Subject(names[: nodes - liars], names[nodes - liars :], f=2, steps=steps, links=links)
    drawn = draw(seed, net)
    assert drawn == draw(seed, net) == drawn.checked(net, "drawn")
    assert Perturbations.model_validate(tomllib.loads(drawn.toml())) == drawn
    assert min(DRAWN[0], steps - 1) <= len(drawn.perturbation) <= DRAWN[1]
    moments = [each.at_step for each in drawn.perturbation]
    assert moments == sorted(set(moments))
    assert all(each.for_s is None or DRAWN_S[0] <= each.for_s <= DRAWN_S[1] for each in drawn.perturbation)


def test_every_kind_that_fits_is_drawn_and_seeds_differ():
    drawn = [draw(seed, NET) for seed in range(40)]
    assert {each.kind for all_ in drawn for each in all_.perturbation} == {*KINDS, *OF_LINKS, "liar"}
    assert len({each.toml() for each in drawn}) == 40
    never_lying = [draw(seed, replace(NET, f=1, links=False)) for seed in range(40)]
    assert {each.kind for all_ in never_lying for each in all_.perturbation} == set(KINDS)


ASKED = Perturbations.model_validate(tomllib.loads(EVERYTHING))
KEPT = [
    Recovered(0.5, 1.0),
    Recovered(0.5, 7.5),
    Recovered(0.5, 1.0, (), Split((3, 4), 5, ())),
    Recovered(0.5, 1.0),
]


def judged(recovered=KEPT, accused=("node5", "node6"), disagreement=0.09):
    return verdict(ASKED, recovered, accused, ("node5", "node6"), disagreement)


def test_promises_that_are_kept_are_no_failures():
    assert judged() == []
    assert judged(accused=()) == []


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (
            {"recovered": [Recovered(0.5, None, ("node0", "node3")), *KEPT[1:]]},
            "kill of node0, node6: node0, node3 did not step again within 7.5 s",
        ),
        (
            {"recovered": [*KEPT[:2], Recovered(0.5, 1.0, (), Split((3, 4), 5, ("node4",))), KEPT[3]]},
            "partition of node0, node1, node2: node4 stepped where fewer than n−f were",
        ),
        (
            {"recovered": KEPT[:3]},
            "liar of node5: its moment did not come before the last step. Remedy: choose more --steps",
        ),
        ({"disagreement": 0.11}, "the nodes' models have gone apart: they disagree by 0.1100"),
        ({"accused": ("node6", "node1")}, "node1 is accused, and did not lie"),
    ],
)
def test_a_broken_promise_is_told(broken, told):
    assert judged(**broken) == [told]


def test_that_models_differ_is_held_against_a_network_that_was_split_only():
    assert verdict(ASKED, [KEPT[0], KEPT[0], KEPT[0], KEPT[0]], (), (), 1.0) == []
