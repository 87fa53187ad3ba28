"""Nearest-neighbour averaging; its published slips by name."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pnode.aggregation import aggregate, mix

ROWS = torch.tensor([[0.0], [1.0], [2.0], [4.0], [8.0], [16.0]])


def test_it_averages_the_inputs_less_f_whatever_n_is():
    """MoNNA means q = n−f inputs, so n−2f averaged: who passes all n averages more lies."""
    assert mix("monna", ROWS[:5], f=1, own=0).kept == (0, 1, 2, 3)
    assert mix("monna", ROWS, f=2, own=5).kept == (2, 3, 4, 5)


@given(
    arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.floats(-1e6, 1e6, width=32)),
    st.data(),
)
def test_liars_cannot_move_it_farther_than_the_farthest_honest_vector(rows, data):
    vectors = torch.from_numpy(rows)
    own = data.draw(st.integers(0, len(rows) - 1))
    liars = data.draw(st.lists(st.integers(0, len(rows) - 1).filter(lambda row: row != own), unique=True))
    honest = [row for row in range(len(rows)) if row not in liars]
    moved = (aggregate("nna", vectors, f=len(liars), own=own).double() - vectors[own].double()).norm()
    farthest = (vectors[honest].double() - vectors[own].double()).norm(dim=1).max()
    rounding = len(rows) * torch.finfo(torch.float32).eps * (vectors[own].double().norm() + farthest)
    assert moved <= farthest + rounding


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
