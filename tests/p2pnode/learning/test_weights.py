"""Weights by name: what a digest of them tells apart, and what is put into a module."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from p2pnode.errors import ConfigError
from p2pnode.learning import weights
from p2pnode.learning.weights import fill, fingerprint, packed, read, write


class Net(nn.Module):
    """Tied, frozen, rounded, normalised, and with a constant."""

    def __init__(self, width=4, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.head = nn.Embedding(5, width), nn.Linear(width, 5, bias=False)
        self.head.weight = self.embed.weight
        self.norm, self.frozen = nn.BatchNorm1d(width), nn.Linear(width, width).requires_grad_(False)
        self.short = nn.Linear(width, 2, dtype=torch.bfloat16)
        self.register_buffer("table", torch.ones(3))


def change(edit):
    module = Net()
    with torch.no_grad():
        edit(module)
    return fingerprint(module)


def untie(module):
    module.head.weight = nn.Parameter(module.embed.weight.clone())


def test_a_fingerprint_counts_what_is_exchanged():
    assert fingerprint(Net()).parameters == 20 + 8 + 10


@pytest.mark.parametrize(
    "edit",
    [
        lambda module: module.embed.weight[0].add_(1e-3),
        lambda module: module.frozen.bias.add_(1),
        lambda module: module.short.bias.add_(1),
        lambda module: module.table.add_(1),
    ],
    ids=["trained", "frozen", "rounded", "constant"],
)
def test_other_numbers_are_another_start_of_the_same_model(edit):
    mine, other = fingerprint(Net()), change(edit)
    assert mine.layout == other.layout
    assert mine.start != other.start


@pytest.mark.parametrize(
    "edit",
    [
        untie,
        lambda module: module.frozen.requires_grad_(True),
        lambda module: module.short.float(),
        lambda module: setattr(module, "other", module.frozen),
        lambda module: setattr(module, "table", torch.ones(1, 3)),
    ],
    ids=["untied", "thawed", "of another dtype", "of another name", "of another shape"],
)
def test_another_model_has_another_layout(edit):
    assert fingerprint(Net()).layout != change(edit).layout


def test_running_statistics_are_each_nodes_own():
    assert change(lambda module: module.norm.running_mean.add_(5)) == fingerprint(Net())


def test_what_is_written_is_a_state_dict_that_plain_torch_loads(tmp_path):
    module = Net(seed=1)
    write(tmp_path / "w.safetensors", module, {"task": "net"})
    other = Net(seed=2)
    other.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
    assert fingerprint(other) == fingerprint(module)
    tensors, about = read(tmp_path / "w.safetensors")
    assert about == {"task": "net"}
    assert fingerprint(fill(Net(seed=3), tensors, "w")) == fingerprint(module)


def test_weights_take_the_dtype_of_the_module_and_tied_ones_any_of_their_names(tmp_path):
    module, given = Net(seed=2), {name: tensor.clone() for name, tensor in Net(seed=1).state_dict().items()}
    del given["head.weight"]
    del given["norm.running_mean"]
    given["short.weight"] = given["short.weight"].float()
    assert fingerprint(fill(module, given, "w")) == fingerprint(Net(seed=1))
    assert module.head.weight is module.embed.weight


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda given: given.pop("table"), "w: it lacks table. Remedy: "),
        (lambda given: given.update(more=torch.ones(1), most=torch.ones(1)), "w: the model has no more and 1 more"),
        (lambda given: given.update(table=torch.ones(4)), "w: of another shape is table"),
    ],
)
def test_weights_of_another_model_are_refused_whole(edit, reason):
    module, given = Net(seed=2), dict(Net(seed=1).state_dict())
    edit(given)
    with pytest.raises(ConfigError, match=reason):
        fill(module, given, "w")
    assert fingerprint(module) == fingerprint(Net(seed=2))


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    (tmp_path / "w").write_bytes(b"no weights")
    for name, reason in (("w", "no safetensors file"), ("none", "No such file"), (".", "Is a directory")):
        with pytest.raises(ConfigError, match=f"{reason}.* Remedy: "):
            read(tmp_path / name)
    (tmp_path / "w").write_bytes(packed(nn.Linear(1, 1), {})[:-1])
    with pytest.raises(ConfigError, match="no safetensors file"):
        weights.read(tmp_path / "w")
