"""A small task of a user's own, as code in a file, and networks whose genesis is of it."""

import sys
from pathlib import Path

import pytest

from p2pnode.assignment import propose
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.init import Place, found
from p2pnode.testnet import free_ports
from tests.loopback import SETTINGS

CODE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
import p2pnode

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)

def data():
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x.sum(1) > 0).long())

task = p2pnode.task(Net, data, nn.CrossEntropyLoss(), steps=20, lr=0.5)
"""


@pytest.fixture
def modules_as_before(monkeypatch):
    """What a user's code adds to Python's path and modules is gone after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def written(folder: Path, name: str = "code_of_somebody") -> Path:
    """The file of it, in the folder."""
    file = folder / f"{name}.py"
    file.write_text(CODE)
    return file


def found_own(
    folder: Path, nodes: int, text: str, f: int = 0, *, steps: int = 12, **settings
) -> tuple[Genesis, list[Home]]:
    """The homes of a network on free ports that learns the task, or the model, of that name."""
    proposal = propose(text, None, 0, None)
    settings = {**SETTINGS, "task": proposal.source, **settings}
    places = [Place(f"node{i}", f"127.0.0.1:{port}", settings) for i, port in enumerate(free_ports(nodes))]
    training = {"task": proposal.defaults.name, "steps": steps, "local_batch": 16, "momentum": 0.9, "lr": 0.5}
    values = {"f": f, "recipe": {}, "training": {**training, "model": proposal.model}}
    genesis = found(folder, places, values, proposal.start)
    return genesis, [Home(folder / place.name) for place in places]
