"""Partitions and batches: disjoint or skewed as asked, and the same in every process."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import ConfigError
from p2pnode.learning.partition import Stream, batch, grown, partition, seed_sequence

LABELS = torch.arange(1003) % 10


def shares(part):
    """The labels' shares in a part, largest first."""
    return np.sort(np.bincount(LABELS[part].numpy(), minlength=10) / len(part))[::-1]


def mean_largest_share(alpha):
    return np.mean([shares(partition(LABELS, node, 20, 1, alpha))[0] for node in range(20)])


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**64))
def test_iid_parts_are_disjoint_equal_and_leave_less_than_one_node_each(samples, nodes, seed):
    nodes = min(samples, nodes)
    parts = [partition(LABELS[:samples], node, nodes, seed, None) for node in range(nodes)]
    assert {len(part) for part in parts} == {samples // nodes}
    together = torch.cat(parts)
    assert len(together.unique()) == len(together) > samples - nodes
    assert 0 <= int(together.min()) <= int(together.max()) < samples


def test_iid_parts_are_shuffled():
    assert partition(LABELS, 0, 7, 1, None).tolist() != list(range(143))
    assert shares(partition(LABELS, 0, 7, 1, None))[0] < 0.25


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_a_part_depends_on_seed_and_node_and_on_nothing_else(alpha):
    first = partition(LABELS, 2, 7, 11, alpha)
    np.random.seed(3)
    torch.manual_seed(3)
    partition(LABELS, 1, 7, 11, alpha)
    assert torch.equal(first, partition(LABELS, 2, 7, 11, alpha))
    assert not torch.equal(first, partition(LABELS, 2, 7, 12, alpha))
    assert not torch.equal(first, partition(LABELS, 3, 7, 11, alpha))


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_parts_are_ascending_int64(alpha):
    part = partition(LABELS, 0, 7, 1, alpha)
    assert part.dtype == torch.int64
    assert torch.equal(part, part.sort().values)


def test_a_small_alpha_gives_few_labels_and_a_large_one_all():
    assert mean_largest_share(0.1) > 0.5
    assert mean_largest_share(100.0) < 0.2
    assert all(shares(partition(LABELS, node, 5, 1, 100.0))[-1] > 0.02 for node in range(5))


def test_dirichlet_parts_follow_the_expected_second_moment():
    # For Dirichlet(α) over L labels the expected sum of squared shares is (α+1)/(Lα+1); here α = 1, L = 10: 2/11.
    labels = torch.arange(40_000) % 10
    squares = []
    for node in range(200):
        part = partition(labels, node, 200, 4, 1.0)
        squares.append(float(((torch.bincount(labels[part], minlength=10) / len(part)) ** 2).sum()))
    assert np.mean(squares) == pytest.approx(2 / 11, abs=0.015)


def test_dirichlet_parts_have_the_size_asked_for_and_may_overlap():
    parts = [partition(LABELS, node, 7, 1, 1.0) for node in range(7)]
    assert {len(part) for part in parts} == {143}
    assert len(torch.cat(parts).unique()) < 7 * 143


def test_no_sample_comes_twice_while_its_label_lasts():
    for node in range(10):
        part = partition(LABELS, node, 20, 2, 0.3)  # 50 samples, and 100 of every label
        assert len(part.unique()) == len(part)


def test_an_exhausted_label_is_repeated_evenly():
    labels = torch.tensor([0] * 4 + [1] * 996)
    parts = [partition(labels, 0, 4, seed, 0.2) for seed in range(20)]
    for part in parts:
        times = torch.bincount(part[labels[part] == 0], minlength=4)[:4]
        assert int(times.max() - times.min()) <= 1
    assert any(len(part.unique()) < len(part) == 250 for part in parts)


@pytest.mark.parametrize("alpha", [5e-324, 1e-3, 1e6, 1e300])
def test_extreme_concentrations_still_give_a_whole_part(alpha):
    assert len(partition(LABELS, 0, 5, 1, alpha)) == 200


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_concentration_is_refused(alpha):
    with pytest.raises(ConfigError, match="alpha"):
        partition(LABELS, 0, 5, 1, alpha)


@pytest.mark.parametrize("nodes", [0, -1, 1004])
def test_more_nodes_than_samples_are_refused(nodes):
    with pytest.raises(ConfigError, match="use 1 to 1003 nodes"):
        partition(LABELS, 0, nodes, 1, None)


@pytest.mark.parametrize("node", [-1, 5])
def test_a_node_outside_the_network_is_refused(node):
    with pytest.raises(ConfigError, match="no index among 5 nodes"):
        partition(LABELS, node, 5, 1, None)


@given(st.integers(1, 60), st.integers(0, 2**64), st.integers(0, 50), st.integers(0, 10**9))
def test_a_batch_holds_distinct_positions_and_is_a_pure_function(size, seed, node, t):
    drawn = batch(60, size, seed, node, t)
    assert len(drawn.unique()) == len(drawn) == size
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < 60
    assert torch.equal(drawn, batch(60, size, seed, node, t))


def test_batches_differ_by_seed_node_and_step():
    draws = {tuple(batch(500, 20, seed, node, t).tolist()) for seed in (0, 1) for node in (0, 1) for t in (0, 1)}
    assert len(draws) == 8


@pytest.mark.parametrize("size", [1, 10, 39])
def test_batches_reach_every_sample_equally(size):
    counts = torch.zeros(40)
    for t in range(2000):
        counts[batch(40, size, 5, 0, t)] += 1
    # Each position is drawn with probability p = size / 40: 2000 p times.
    deviation = (2000 * size / 40 * (1 - size / 40)) ** 0.5
    assert (counts - 2000 * size / 40).abs().max() < 5 * deviation


def test_a_growing_batch_has_as_many_samples_as_steps_begun_within_its_bounds():
    assert [grown(100, 1, t) for t in range(5)] == [1, 2, 3, 4, 5]
    assert [grown(100, 4, t) for t in (0, 3, 4, 98, 99, 100, 10**9)] == [4, 4, 5, 99, 100, 100, 100]
    assert [grown(7, 7, t) for t in (0, 50)] == [7, 7]


def test_streams_of_one_seed_are_independent():
    keys = [(stream, *key) for stream in Stream for key in [(), (0,), (1,), (0, 0), (0, 1), (1, 0)]]
    drawn = {tuple(seed_sequence(7, *key).generate_state(4)) for key in keys}
    assert len(drawn) == len(keys)
