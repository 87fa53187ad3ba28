"""What was learned, written and measured: from a home, and from the file that was written of it."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError, P2PNodeError
from p2pnode.genesis import Genesis
from p2pnode.learning.own import built_own
from p2pnode.learning.task import build
from p2pnode.process import run_node
from p2pnode.product import of_file, of_home
from tests.loopback import found_network
from tests.own_code import found_own, written


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return f"{written(tmp_path_factory.mktemp('code'), 'code_of_a_product')}:task"


@pytest.fixture(scope="module")
def home(code, tmp_path_factory):
    """Of a network of one that has learned."""
    _, (home,) = found_own(tmp_path_factory.mktemp("net") / "net", 1, code, linger_s=0.1)
    assert run_node(home) == 0
    return home


def test_a_home_is_worth_what_its_node_found(home):
    told, result = of_home(home).measured(), json.loads(home.result.read_text())
    assert told == {
        "model": str(home.path),
        "task": "net",
        "step": 12,
        "parameters": 74,
        "accuracy": result["accuracy"],
        "loss": pytest.approx(result["loss"]),
        "samples": 400,
    }
    assert result["accuracy"] > 0.8


def test_what_is_exported_is_the_model_for_plain_torch_and_for_us(home, code, tmp_path):
    product, out = of_home(home), tmp_path / "w.safetensors"
    genesis = Genesis.load(home.genesis)
    assert product.export(out) == {
        "weights": str(out),
        "task": "net",
        "step": 12,
        "network": genesis.network.hex(),
    }
    task = built_own(code, None)
    module = task.factory()
    module.load_state_dict(load_file(out), strict=True)
    module.eval()
    features, labels = task.data.test(0, 400)
    loss = functional.cross_entropy(module(features), labels).item()
    of_it = of_file(out, code, None, "cpu")
    assert of_it.measured() == product.measured() | {"model": str(out), "loss": pytest.approx(loss)}
    assert (of_it.step, of_it.network) == (12, genesis.network.hex())


def test_a_file_names_its_task_where_everybody_has_its_code(tmp_path):
    _, (home,) = found_network(tmp_path, 1, steps=2, linger_s=0.1)
    assert run_node(home) == 0
    of_home(home).export(tmp_path / "w")
    told = of_file(tmp_path / "w", None, None, "cpu").measured()
    assert (told["task"], told["samples"]) == ("digits", 360)


def test_a_file_runs_no_code_that_it_names(home, tmp_path, code):
    of_home(home).export(tmp_path / "w")
    with pytest.raises(ConfigError, match=r"w: task = 'net': no such task.*or name your own code by --task"):
        of_file(tmp_path / "w", None, None, "cpu")
    from p2pnode.learning import weights

    weights.write(tmp_path / "trap", built_own(code, None).factory(), {"task": f"{tmp_path}/trap.py:task"})
    (tmp_path / "trap.py").write_text("raise SystemExit('it ran')\n")
    with pytest.raises(ConfigError, match="no such task"):
        of_file(tmp_path / "trap", None, None, "cpu")
    weights.write(tmp_path / "mute", build("digits", None).model(0), {})
    with pytest.raises(ConfigError, match=r"mute: does not say of what task it is. Remedy: add --task"):
        of_file(tmp_path / "mute", None, None, "cpu")
    assert of_file(tmp_path / "mute", "digits", None, "cpu").step is None


def test_a_home_without_a_checkpoint_has_learned_nothing(code, tmp_path):
    _, (home,) = found_own(tmp_path / "net", 1, code)
    with pytest.raises(P2PNodeError, match=r"checkpoint.safetensors: it is not there. Remedy: run the node"):
        of_home(home)
    home.checkpoint.write_bytes(b"damaged")
    with pytest.raises(P2PNodeError, match=r"checkpoint.safetensors: it is damaged.* Remedy: "):
        of_home(home)


def test_code_may_be_named_for_a_home_that_names_none(home, code, monkeypatch):
    config = NodeConfig.load(home.config).model_copy(update={"task": None})
    monkeypatch.setattr(NodeConfig, "load", lambda _: config)
    with pytest.raises(ConfigError, match="names a task of somebody's own"):
        of_home(home)
    assert torch.equal(of_home(home, code).trainer.vector, of_home(home, code).trainer.vector)
