"""Tasks: the models of the papers, and one initialisation for all processes."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from p2pnode.errors import ConfigError
from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.partition import partition
from p2pnode.learning.task import BUILDERS, Task, accuracy, build, digits_network, lenet, seeded
from p2pnode.learning.trainer import Trainer

CPU = torch.device("cpu")
DIGEST_SCRIPT = "from test_task import digest; print(digest())"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits():
    return build("digits", None)


def flat(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def digest():
    """Of the initial model, one node's part and its first step: what all processes must agree on."""
    torch.set_num_threads(1)
    task = build("digits", None)
    part = partition(task.data.train_y, 3, 7, 42, 0.5)
    stepped = Trainer(task, part, 42, 3, 32, 0.9, 0.5, 0, "cpu").step(5)
    parts = (flat(task.model(42)), part, stepped)
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in parts)).hexdigest()


def test_every_task_of_the_catalogue_can_be_built_and_no_other():
    assert list(BUILDERS) == list(TASKS)
    with pytest.raises(ConfigError, match=r"task = 'cifar': no such task\. Remedy: choose one of digits, mnist"):
        build("cifar", None)


@pytest.mark.parametrize("name", ["mnist", "mnist-mlp", "fashion-mnist"])
def test_a_task_with_files_asks_for_its_folder(name):
    with pytest.raises(ConfigError, match="data_dir"):
        build(name, None)


def test_lenet_has_the_published_dimension_and_shapes():
    module = lenet()
    assert sum(parameter.numel() for parameter in module.parameters()) == 431_080
    assert module(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_lenet_computes_what_the_published_layers_compute():
    module = lenet()
    conv1, conv2, fc1, fc2 = (layer for layer in module if isinstance(layer, nn.Conv2d | nn.Linear))
    x, y = torch.randn(6, 1, 28, 28), torch.arange(6)
    h = functional.max_pool2d(functional.relu(conv1(x)), 2)
    h = functional.max_pool2d(functional.relu(conv2(h)), 2)
    published = functional.log_softmax(fc2(functional.relu(fc1(h.flatten(1)))), dim=1)
    slopes = torch.autograd.grad(functional.nll_loss(published, y), list(module.parameters()))
    ours = torch.autograd.grad(functional.cross_entropy(module(x), y), list(module.parameters()))
    assert torch.allclose(functional.log_softmax(module(x), dim=1), published, atol=1e-6)
    assert all(torch.allclose(mine, theirs, atol=1e-6) for mine, theirs in zip(ours, slopes, strict=True))


def test_the_dimension_is_the_models(digits):
    assert digits.dimension == len(flat(digits.model(0))) == 4_810
    assert len(flat(digits_network())) == 4_810


def test_the_initial_model_depends_on_the_seed_alone(digits):
    first = flat(digits.model(7))
    torch.manual_seed(99)
    assert torch.equal(first, flat(digits.model(7)))
    assert not torch.equal(first, flat(digits.model(8)))
    assert len(flat(digits.model(2**200))) == len(first)


def test_making_a_model_leaves_global_randomness_alone(digits):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    digits.model(7)
    assert torch.equal(torch.rand(3), expected)


def test_another_process_has_the_same_start_part_and_step():
    done = subprocess.run(
        [sys.executable, "-c", DIGEST_SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[3]}", "PYTHONHASHSEED": "77"},
    )
    assert done.stdout.strip() == digest()


def test_threads_that_are_seeded_at_once_do_not_disturb_each_other():
    def drawn(seed):
        with seeded(np.random.SeedSequence(seed), CPU):
            return [torch.rand(1).item() for _ in range(50)]

    alone = [drawn(seed) for seed in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(drawn, range(200))) == alone


def test_seeded_randomness_is_restored_even_after_an_error():
    def draw_and_fail():
        with seeded(np.random.SeedSequence(1), CPU):
            torch.rand(1)
            raise KeyError("within")

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(KeyError, match="within"):
        draw_and_fail()
    assert torch.equal(torch.rand(3), expected)


def test_accuracy_counts_the_rows_whose_largest_output_is_at_the_label():
    outputs = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert float(accuracy(outputs, torch.tensor([1, 0, 0, 0]))) == 0.75


def test_a_plug_in_adds_a_task_by_a_builder(digits, monkeypatch):
    monkeypatch.setitem(
        BUILDERS,
        "linear",
        lambda _: Task("linear", lambda: nn.Linear(64, 10), digits.loss, digits.metric, digits.data),
    )
    assert build("linear", None).dimension == 650
