import pytest
import torch

from p2pnode.byzantine.labels import flipped, poisoned
from p2pnode.driver import Driver
from p2pnode.learning.task import build
from p2pnode.process import _lies
from tests.loopback import LogBook, found_network


def test_flipped_labels_are_turned_round_for_training_only_and_the_data_stay():
    task = build("digits", None)
    before = task.data.train_y.clone()
    turned = flipped(task)
    assert torch.equal(turned.data.train_y, 9 - before)
    assert torch.equal(task.data.train_y, before), "other nodes of the process share the task"
    assert turned.data.train_x is task.data.train_x
    assert turned.data.test_y is task.data.test_y
    assert torch.equal(flipped(turned).data.train_y, before)
    assert (turned.name, turned.loss, turned.metric, turned.dimension) == (
        task.name,
        task.loss,
        task.metric,
        task.dimension,
    )


@pytest.mark.parametrize("attacks", [(), ("alie=2",), ("silent", "mimic")])
def test_who_does_not_flip_labels_trains_on_them_as_they_are(attacks):
    task = build("digits", None)
    assert poisoned(task, attacks) is task
    assert poisoned(task, [*attacks, "Label_Flipping"]) is not task


def test_a_node_started_to_flip_labels_trains_on_flipped_ones(tmp_path):
    _, (home,) = found_network(tmp_path, 1)
    batches = []
    for attacks in ((), ("label-flip",)):
        driver = Driver(home, LogBook(), *_lies(home, attacks, ["node0"], LogBook()))
        batches.append(driver._trainer.minibatch(0))
        driver._signer.close()
    (features, labels), (same, turned) = batches
    assert torch.equal(features, same)
    assert torch.equal(turned, 9 - labels)
