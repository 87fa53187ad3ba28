"""What `testnet` refuses before anything begins, and what it says."""

import json

import pytest

from p2pnode.cli import testnet


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--nodes", 8, "--byzantine", 2], ["n ≥ 4f+1", "n=8 tolerates f=1", "n ≥ 9", "choose f=1"]),
        (["--recipe", "monna", "--nodes", 5], ["n ≥ 5f+1", "n ≥ 6"]),
        (["--recipe", "dsgd", "--f", 1], ["f = 1", "mean", "choose f=0"]),
        (["--nodes", 3, "--byzantine", 3], ["byzantine = 3", "one at least is honest", "choose fewer"]),
        (["--attack", "sing-flip"], ["attack = 'sing-flip'", "did you mean 'sign-flip'?", "alie"]),
        (["--attack", ""], ["attack = ''", "choose from alie"]),
        (["--recipe", "trimed"], ["recipe = 'trimed'", "did you mean 'trimmed'?", "dsgd"]),
        (["--rule", "medain"], ["medain", "median"]),
        (["--broadcast", "gossip"], ["broadcast = 'gossip'", "plain, signed-echo"]),
        (["--task", "cifar"], ["task = 'cifar'", "digits, mnist, mnist-mlp, fashion-mnist"]),
        (["--task", "mnist"], ["data-dir is missing", "--data-dir FOLDER"]),
        (["--steps", 0], ["training.steps = '0'", "greater than or equal to 1", "choose at least 1"]),
        (["--lr", "nan"], ["training.lr = 'nan'", "choose a positive step size"]),
        (["--momentum", 1], ["training.momentum = '1.0'", "choose 0 ≤ momentum < 1"]),
        (["--sub-rounds", 65], ["recipe.sub_rounds = '65'", "choose from 1 to 64"]),
        (["--wire", "float8"], ["recipe.wire = 'float8'", "choose one of float32, bfloat16, float16"]),
        (
            ["--staleness", 1, "--recipe", "jungle-rb"],
            ["staleness = 1: jungle-rb exchanges more", "as trimmed or monna"],
        ),
        (["--seed", -1], ["seed = '-1'", "choose an integer from 0"]),
        (["--engine", "virtual"], ["engine = 'virtual'", "choose one of processes, netns, containers"]),
        (["--link-mbit", 10], ["link-mbit = 10", "processes has no such links", "--engine netns"]),
        (["--link-delay", 20, "--engine", "containers"], ["link-delay = 20", "--engine netns"]),
        (["--perturb", "random", "--engine", "containers"], ["containers cannot be hurt", "choose another engine"]),
        (["--image", "p2pnode"], ["image = 'p2pnode'", "add --engine containers"]),
        (["--perturb", "none.toml"], ["perturb = 'none.toml'", "No such file", "name a file, or random"]),
        (["--perturb-seed", 3], ["perturb-seed = 3: nothing is drawn", "add --perturb random"]),
    ],
)
def test_a_wrong_testnet_is_refused_with_reason_and_remedy_before_a_socket_opens(
    call, no_sockets, monkeypatch, tmp_path, arguments, wanted
):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("testnet", *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith(("refused ", "note "))
    for part in wanted:
        assert part in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_more_liars_than_the_recipe_tolerates_are_allowed_and_said(call, no_sockets, monkeypatch):
    """Attacks on the baseline are what one wants to see."""
    monkeypatch.setattr(testnet, "_watched", lambda plan, *_, quiet, page: {"f": plan.values["f"], "n": plan.nodes})
    code, out, err = call("testnet", "--recipe", "dsgd", "--attack", "sign-flip", "--json")
    assert (code, json.loads(out)) == (0, {"f": 0, "n": 7})
    assert "note" in err
    assert "byzantine = 1, and the recipe tolerates f = 0" in err


PARTITION = '[[perturbation]]\nkind = "partition"\nnodes = ["node0"]\nat_step = 5\nfor_s = 1\n'


def test_what_an_engine_cannot_do_to_its_nodes_is_refused_before_anything_starts(call, no_sockets, tmp_path):
    (tmp_path / "p.toml").write_text(PARTITION)
    code, out, err = call("testnet", "--out", tmp_path / "net", "--perturb", tmp_path / "p.toml")
    assert (code, out) == (2, "")
    assert "p.toml: perturbation.0.kind: partition needs hosts of their own" in err
    assert "Remedy: add --engine netns" in err
    assert not (tmp_path / "net").exists()


def test_what_is_drawn_follows_from_the_seed_and_is_printed_as_the_file_that_does_it_again(
    call, no_sockets, monkeypatch, tmp_path
):
    done = []
    monkeypatch.setattr(testnet, "_watched", lambda plan, drawn, *_, quiet, page: done.append(drawn) or {})
    drawn = []
    for more in (["--seed", 7], ["--perturb-seed", 7], ["--seed", 7, "--perturb-seed", 8]):
        code, _, err = call("testnet", "--perturb", "random", "--json", *more)
        assert code == 0
        drawn.append(err.partition("perturb.toml:\n")[2])
    assert done[0] == done[1] != done[2]
    assert drawn[0] == drawn[1] != drawn[2]
    (tmp_path / "p.toml").write_text(drawn[0])
    assert call("testnet", "--perturb", tmp_path / "p.toml", "--json")[0] == 0
    assert done[3] == done[0]


@pytest.mark.parametrize(("failures", "code"), [([], 0), (["node0 did not step again", "node1 [is] accused"], 1)])
def test_each_broken_promise_of_a_perturbed_testnet_is_said_and_is_an_exit_code(call, monkeypatch, failures, code):
    monkeypatch.setattr(testnet, "_watched", lambda *_, quiet, page: {"failures": failures})
    ended, out, err = call("testnet", "--json")
    assert (ended, json.loads(out)) == (code, {"failures": failures})
    assert [line for line in err.splitlines() if "broken" in line] == [f"broken {one}" for one in failures]
