"""Nearest-neighbour averaging; its published slips by name."""

import torch

from p2pnode.aggregation import mix

ROWS = torch.tensor([[0.0], [1.0], [2.0], [4.0], [8.0], [16.0]])


def test_it_averages_the_inputs_less_f_whatever_n_is():
    """MoNNA means q = n−f inputs, so n−2f averaged: who passes all n averages more lies."""
    assert mix("monna", ROWS[:5], f=1, own=0).kept == (0, 1, 2, 3)
    assert mix("monna", ROWS, f=2, own=5).kept == (2, 3, 4, 5)


def test_ones_own_is_kept_before_its_equals():
    rows = torch.zeros(5, 1)
    assert mix("nna", rows, f=3, own=4).kept == (0, 4)
    assert mix("nna", rows, f=4, own=4).kept == (4,)


def test_a_vector_that_is_not_finite_is_the_farthest():
    rows = ROWS.clone()
    rows[0] = torch.nan
    assert mix("nna", rows, f=1, own=1).kept == (1, 2, 3, 4, 5)
    rows = ROWS.clone()
    rows[5] = torch.inf
    assert mix("nna", rows, f=2, own=1)._replace(vector=None) == (None, (0, 1, 2, 3), (5,))
