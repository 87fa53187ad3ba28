"""One's own model, data and loss as a task: taken as they are, or refused with a reason."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

from p2pnode.byzantine.labels import flipped
from p2pnode.errors import ConfigError
from p2pnode.learning import own
from p2pnode.learning.own import OwnData, Samples, accuracy_of_classes, assembled, built_own, task
from p2pnode.learning.trainer import Trainer

X, Y = torch.arange(12.0).view(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
ROWS = torch.tensor([4, 0])


class Lazy(Dataset):
    """Reads a sample at a time, and counts."""

    def __init__(self):
        self.read = 0

    def __len__(self):
        return 6

    def __getitem__(self, number):
        self.read += 1
        return X[number], int(Y[number])


class Many(Lazy):
    """Reads a batch at a time."""

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


def doubled(samples):
    return torch.stack([features for features, _ in samples]) * 2, torch.tensor([label for _, label in samples])


@pytest.mark.parametrize(
    "given",
    [
        (X, Y),
        TensorDataset(X, Y),
        Lazy(),
        Many(),
        Subset(TensorDataset(X, Y), range(6)),
        [(features, label) for features, label in zip(X, Y, strict=True)],
        DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True),
        DataLoader(Lazy(), batch_size=3, drop_last=True),
    ],
    ids=lambda given: type(given).__name__,
)
def test_samples_are_the_same_however_they_are_given(given):
    samples = Samples(given, "data")
    features, labels = samples.take(ROWS)
    assert torch.equal(features, X[ROWS])
    assert torch.equal(labels, Y[ROWS])
    assert len(samples) == 6
    assert torch.equal(samples.labels, Y)


def test_samples_are_read_when_they_are_needed_and_batches_made_as_the_loader_makes_them():
    lazy = Lazy()
    samples = Samples(DataLoader(lazy, collate_fn=doubled), "data")
    assert lazy.read == 1
    assert torch.equal(samples.take(ROWS)[0], 2 * X[ROWS])
    assert lazy.read == 3
    assert samples.draws
    assert not Samples((X, Y), "data").draws


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Endless(), "a Endless has no samples by number"),
        (DataLoader(Endless()), "a Endless has no samples by number"),
        (iter([1]), "no samples by number"),
        (None, "a NoneType has no samples by number"),
        (DataLoader(Lazy(), sampler=WeightedRandomSampler([1.0] * 6, 6)), "draws by a WeightedRandomSampler"),
        (TensorDataset(X[:0], Y[:0]), "there is no sample in it"),
        ([], "there is no sample in it"),
        (TensorDataset(X), r"a list of Tensor, no pair of tensors"),
        (TensorDataset(X, Y, Y), r"a list of Tensor, Tensor, Tensor, no pair"),
        ([{"text": X[0]}], "a dict, no pair of tensors"),
        (DataLoader(Lazy(), batch_size=None), "no pair of tensors"),
        (DataLoader(Lazy(), collate_fn=lambda samples: (X, Y)), "no pair of tensors .* with a row a sample"),
    ],
    ids=str,
)
def test_data_that_no_node_can_train_on_are_refused(given, reason):
    with pytest.raises(ConfigError, match=rf"(?s)^mine: .*{reason}.* Remedy: "):
        Samples(given, "mine")


def test_a_liar_turns_the_labels_of_ones_own_data_round_too():
    of = assembled("mine", nn.Identity, Lazy(), functional.cross_entropy)
    turned = flipped(of)
    assert torch.equal(turned.data.labels, 2 - Y)
    assert torch.equal(turned.data.train(ROWS)[1], 2 - Y[ROWS])
    assert torch.equal(turned.data.train(ROWS)[0], X[ROWS])
    assert torch.equal(turned.data.test(0, 6)[1], Y)
    assert torch.equal(of.data.train(ROWS)[1], Y[ROWS]), "other nodes of the process share the task"


def test_data_are_the_nodes_own_unless_they_are_shared():
    alone = assembled("mine", nn.Identity, (X, Y), functional.cross_entropy)
    together = assembled("mine", nn.Identity, (X, Y), functional.cross_entropy, shared=True)
    assert alone.part(1, 3, 0, None).tolist() == [0, 1, 2, 3, 4, 5]
    parts = torch.cat([together.part(node, 3, 0, None) for node in range(3)])
    assert sorted(parts.tolist()) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="alpha: mine"):
        alone.part(1, 3, 0, 0.5)


@pytest.mark.parametrize("labels", [torch.zeros(6, 2, dtype=torch.int64), torch.zeros(6)])
def test_labels_that_are_no_classes_are_split_without_alpha_only(labels):
    of = assembled("mine", nn.Identity, (X, labels), functional.mse_loss, metric=functional.mse_loss, shared=True)
    assert len(of.part(1, 3, 0, None)) == 2
    with pytest.raises(ConfigError, match=r"alpha: a sample's label is no class"):
        of.part(1, 3, 0, 0.5)


def test_without_test_data_training_data_are_tested_on():
    data = assembled("mine", nn.Identity, (X, Y), functional.cross_entropy).data
    assert isinstance(data, OwnData)
    assert torch.equal(data.test(2, 4)[0], X[2:4])
    assert (data.samples, data.tests) == (6, 6)


@pytest.mark.parametrize(
    ("outputs", "labels", "expected"),
    [
        (torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]), 0.5),
        (torch.eye(3).repeat(2, 1, 1), torch.tensor([[0, 1, 2], [0, 0, 0]]), 4 / 6),  # (batch, words, classes)
        (torch.eye(3)[:2].repeat(2, 1, 1), torch.tensor([[0, 1, 0], [1, 1, 1]]), 4 / 6),  # (batch, classes, more)
    ],
)
def test_accuracy_is_of_classes_wherever_they_stand(outputs, labels, expected):
    assert float(accuracy_of_classes(outputs, labels)) == pytest.approx(expected)


def test_quality_that_nobody_defines_is_asked_for():
    with pytest.raises(ConfigError, match=r"metric is missing: outputs of shape \(4,\) name no classes"):
        accuracy_of_classes(torch.zeros(4), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"metric is missing: labels that are no classes .*Remedy: add metric="):
        assembled("line", nn.Identity, (X, X[:, 0]), functional.mse_loss)
    assert assembled("line", nn.Identity, (X, X[:, 0]), functional.mse_loss, metric=functional.mse_loss)


MINE = """
import torch
from torch import nn
import p2pnode

class LittleNet(nn.Linear):
    def __init__(self):
        super().__init__(2, 3)

def data(folder):
    assert folder is None or folder.name == "given"
    return torch.ones(8, 2), torch.zeros(8, dtype=torch.int64)

a_task = p2pnode.task(LittleNet, data, nn.CrossEntropyLoss(), test=lambda: data(None), steps=7, lr=0.3)
ready = LittleNet()
number = 5
wrong = p2pnode.task(lambda: 5, data, nn.CrossEntropyLoss(), name="wrong")
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "code_of_mine.py"
    file.write_text(MINE)
    return file


def test_a_task_in_a_file_is_built_of_what_it_says(mine, tmp_path):
    found = own.own(f"{mine}:a_task")
    assert (found.defaults.name, found.defaults.steps, found.defaults.lr) == ("little-net", 7, 0.3)
    of = built_own(f"{mine}:a_task", tmp_path / "given")
    assert of is built_own(f"{mine}:a_task", tmp_path / "given")
    assert (of.name, of.dimension, of.data.samples, of.shared) == ("little-net", 9, 8, True)
    assert torch.equal(of.model(3).weight, of.model(3).weight)
    assert not torch.equal(of.model(3).weight, of.model(4).weight)
    trainer = Trainer(of, of.part(0, 2, 0, None), 0, 0, 4, 0.0, 1.0, 0, "cpu")
    for t in range(5):
        trainer.adopt(trainer.step(t))
    assert trainer.evaluate().accuracy == 1.0


@pytest.mark.parametrize("name", ["LittleNet", "ready"])
def test_a_model_alone_has_a_name_and_no_data(mine, name):
    found = own.own(f"{mine}:{name}")
    assert found.defaults.name == "little-net"
    assert found.factory() is not found.factory(), "each has a model of its own"
    with pytest.raises(ConfigError, match=r"little-net: it is a model without data and loss. Remedy: .*p2pnode.fit"):
        found.build(None)


def test_what_is_no_task_is_refused(mine):
    with pytest.raises(ConfigError, match=r"a int. Remedy: name a p2pnode.task"):
        own.own(f"{mine}:number")
    with pytest.raises(ConfigError, match=r"makes a int, no torch.nn.Module"):
        own.own(f"{mine}:wrong").factory()


@pytest.mark.parametrize("name", ["digits", "x.py:y", "", "a b"])
def test_a_task_takes_no_built_in_name_and_none_that_is_code(name):
    with pytest.raises(ConfigError, match=r"built in, or no name. Remedy: "):
        task(nn.Identity, (X, Y), functional.cross_entropy, name=name)
