"""Whose code a task is: the owner's, never a genesis'; and the model is the network's, or the node refuses to run."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from p2pnode.assignment import assigned, enrolled, propose
from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError
from p2pnode.genesis import Genesis
from p2pnode.learning import weights
from p2pnode.learning.own import built_own
from p2pnode.learning.task import build
from tests.loopback import found_network
from tests.own_code import found_own, modules_as_before, written  # noqa: F401  one is a fixture

pytestmark = pytest.mark.usefixtures("modules_as_before")


@pytest.fixture
def code(tmp_path):
    return f"{written(tmp_path)}:task"


@pytest.fixture
def of_code(code, tmp_path):
    genesis, (home, *_) = found_own(tmp_path / "net", 2, code)
    return genesis, home, NodeConfig.load(home.config)


def rewritten(genesis, **training):
    values = genesis.model_dump()
    return Genesis.checked({**values, "training": {**values["training"], **training}}, "test")


def test_the_owners_code_is_run_and_begins_with_the_networks_weights(of_code, code):
    genesis, home, config = of_code
    assert (genesis.training.task, genesis.training.model.parameters) == ("net", 74)
    assert config.task == code
    task = assigned(home, genesis, config)
    assert weights.fingerprint(task.model(genesis.seed)).start == genesis.training.model.start
    assert enrolled(home, genesis, config, 1).evaluate().samples == 400


def test_the_weights_that_lie_in_the_home_count_whatever_the_code_would_begin_with(of_code, code):
    genesis, home, config = of_code
    other = replace(built_own(code, None), factory=lambda: zeroed(built_own(code, None).factory()))
    assert assigned(home, genesis, config, other).model(0).layers[0].weight.any()
    home.start.unlink()
    assert assigned(home, genesis, config).model(0).layers[0].weight.any(), "the seed draws the same again"
    with pytest.raises(
        ConfigError, match=rf"begins with other weights .* Remedy: copy start.safetensors .*{home.start}"
    ):
        assigned(home, genesis, config, other)


def zeroed(module):
    with torch.no_grad():
        module.layers[0].weight.zero_()
    return module


def test_weights_that_somebody_changed_in_the_home_are_refused(of_code):
    genesis, home, config = of_code
    tensors, about = weights.read(home.start)
    tensors["layers.0.bias"] += 1e-3
    module = assigned(home, genesis, config).model(0)
    weights.write(home.start, weights.fill(module, tensors, "test"), about)
    with pytest.raises(ConfigError, match="begins with other weights"):
        assigned(home, genesis, config)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda module: module.layers.append(nn.Linear(2, 2)), "80 parameters are exchanged, in .*genesis.json 74"),
        (lambda module: module.layers[0].bias.requires_grad_(False), "66 parameters are exchanged"),
        (lambda module: setattr(module, "more", module.layers[0]), "names, shapes or dtypes of its weights differ"),
    ],
)
def test_another_model_is_refused_with_what_differs(of_code, code, change, reason):
    genesis, home, config = of_code

    def other():
        module = built_own(code, None).factory()
        change(module)
        return module

    with pytest.raises(ConfigError, match=rf"model: it is another than the genesis': {reason}.* Remedy: "):
        assigned(home, genesis, config, replace(built_own(code, None), factory=other))


def test_the_settings_of_a_node_reach_its_training(of_code):
    genesis, home, config = of_code
    plain = enrolled(home, genesis, config, 0).step(0)
    halved = 1e-1  # BatchNorm sees half the batch
    for change, close in (({"autocast": True}, 1e-2), ({"pieces": 2}, halved), ({"device": "cpu,cpu"}, halved)):
        step = enrolled(home, genesis, config.model_copy(update=change), 0).step(0)
        assert not torch.equal(step, plain)
        assert torch.allclose(step, plain, atol=close)


def test_a_genesis_that_names_code_runs_none(of_code, tmp_path):
    genesis, home, config = of_code
    bare = config.model_copy(update={"task": None})
    trap = written(tmp_path, "a_trap_of_others")
    trap.write_text("raise SystemExit('it ran')\n")
    values = genesis.model_dump()
    for name in (f"{trap}:task", "a_trap_of_others:task", f"{trap}"):
        values["training"]["task"] = name
        if ":" in name:
            with pytest.raises(ConfigError, match=r"training.task.* Remedy: "):
                Genesis.checked(values, "test")
        for model in (None, genesis.training.model):
            training = genesis.training.model_copy(update={"task": name, "model": model})
            with pytest.raises(ConfigError, match=r"no such task|names a task of somebody's own"):
                assigned(home, genesis.model_copy(update={"training": training}), bare)
    assert "a_trap_of_others" not in sys.modules


def test_a_task_of_anothers_own_asks_the_owner_for_its_code(of_code):
    genesis, home, config = of_code
    with pytest.raises(ConfigError, match=r"task = 'net': .* names a task of somebody's own.* Remedy: add task = "):
        assigned(home, genesis, config.model_copy(update={"task": None}))


def test_code_of_another_task_than_the_genesis_is_refused(of_code):
    genesis, home, config = of_code
    with pytest.raises(ConfigError, match=r"task = 'net': .*genesis.json is of 'digits'. Remedy: "):
        assigned(home, rewritten(genesis, task="digits"), config)
    with pytest.raises(ConfigError, match=r"task = 'digits': .*genesis.json is of 'net'. Remedy: "):
        assigned(home, genesis, config, build("digits", None))


def test_a_network_may_begin_with_given_weights(code, tmp_path):
    module = built_own(code, None).model(7)
    weights.write(tmp_path / "w", module, {})
    proposal = propose(code, None, 0, tmp_path / "w")
    assert proposal.model["start"] == weights.fingerprint(module).start != propose(code, None, 0, None).model["start"]
    digits = propose("digits", None, 0, None)
    assert (digits.source, digits.model["parameters"]) == (None, 4810)
    with pytest.raises(ConfigError, match=r"it lacks 0.weight"):
        propose("digits", None, 0, tmp_path / "w")


def test_networks_of_before_are_named_as_they_were(tmp_path):
    genesis, (home,) = found_network(tmp_path, 1)
    told = json.loads(home.genesis.read_text())
    del told["training"]["model"]
    assert Genesis.checked(told, "test").network == genesis.network
    pinned = rewritten(genesis, model={"parameters": 4810, "layout": "0" * 64, "start": "0" * 64})
    assert pinned.network != genesis.network
