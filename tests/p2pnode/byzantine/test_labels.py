import pytest
import torch

from p2pnode.byzantine.labels import flipped, poisoned
from p2pnode.learning.task import build


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
