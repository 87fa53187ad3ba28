"""Comparative elimination, of gradients and of models."""

import numpy as np
import pytest
import torch

from p2pnode.aggregation import aggregate, mix

ROWS = torch.tensor([[3.0, 4.0], [0.0, 1.0], [-2.0, 0.0], [0.0, 5.0], [-5.0, 0.0]])


def test_the_longest_go_and_of_equal_length_the_last():
    assert mix("cge", ROWS, f=1).kept == (0, 1, 2, 3)
    assert mix("cge", ROWS, f=2).kept == (0, 1, 2)
    assert torch.equal(aggregate("cge", ROWS, f=0), ROWS.mean(0))


def test_distances_are_from_where_the_round_began_not_from_a_mean():
    centre = torch.tensor([0.0, 5.0])
    assert mix("ce", ROWS, f=2, centre=centre).kept == (0, 1, 3)
    assert mix("ce", ROWS, f=2, centre=torch.zeros(2)).kept == (0, 1, 2)


@pytest.mark.parametrize("f", [0, 1, 2])
def test_after_one_step_each_elimination_of_models_is_that_of_gradients(f):
    rng = np.random.default_rng(f)
    for _ in range(10):
        gradients, start = torch.from_numpy(rng.normal(size=(7, 3))), torch.from_numpy(rng.normal(size=3))
        models = mix("ce", start - 0.1 * gradients, f=f, centre=start)
        steps = mix("cge", gradients, f=f)
        assert models.kept == steps.kept
        assert torch.allclose(models.vector, start - 0.1 * steps.vector)


def test_what_lies_beyond_the_last_kept_moves_nothing():
    out = mix("ce", ROWS, f=1, centre=torch.zeros(2))
    for far in (6.0, 1e10, 3e38):
        moved = ROWS.clone()
        moved[4] = torch.tensor([-far, 0])
        assert torch.equal(mix("ce", moved, f=1, centre=torch.zeros(2)).vector, out.vector)
