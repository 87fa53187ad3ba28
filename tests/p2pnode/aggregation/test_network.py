from itertools import combinations, product

import torch

from p2pnode.aggregation.network import comparators, sorting_network


def patterns_of(n):
    """All zeros and ones: by the 0-1 principle a network that sorts these sorts everything."""
    return torch.tensor(list(product([0.0, 1.0], repeat=n))).T.contiguous()


def test_the_network_sorts_every_pattern_of_zeros_and_ones():
    for n in range(1, 12):
        patterns = patterns_of(n)
        for pair in sorting_network(n):
            patterns[list(pair)] = patterns[list(pair)].sort(dim=0).values
        assert (patterns.diff(dim=0) >= 0).all()


def test_ordered_each_wanted_rank_comes_to_its_wire():
    for n in range(1, 10):
        patterns = patterns_of(n)
        for first, stop in combinations(range(n + 1), 2):
            wires = list(patterns)
            for low, high, wants_low, wants_high in comparators(n, first, stop, ordered=True):
                lesser, greater = wires[low].minimum(wires[high]), wires[low].maximum(wires[high])
                wires[low] = lesser if wants_low else torch.full_like(lesser, torch.nan)
                wires[high] = greater if wants_high else torch.full_like(greater, torch.nan)
            assert torch.equal(torch.stack(wires)[first:stop], patterns.sort(dim=0).values[first:stop])


def test_pruning_leaves_no_more_than_is_needed():
    assert comparators(9, 0, 9) == ()
    least = comparators(8, 0, 1)
    assert len(least) == 7
    assert not any(comparator.wants_high for comparator in least)
    for n, f in ((10, 2), (26, 5)):
        anyhow, in_order, everything = (
            len(plan) for plan in (comparators(n, f, n - f), comparators(n, f, n - f, ordered=True), sorting_network(n))
        )
        assert anyhow < in_order <= everything
