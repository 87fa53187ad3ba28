import subprocess
import sys

import pytest
import torch

from p2pnode.aggregation import RULES, aggregate, find
from p2pnode.errors import ConfigError, NonFinite, ShapeMismatch
from protocols.committee import Bound

HUGE = torch.finfo(torch.float32).max


def call(name, vectors, f=1):
    return aggregate(name, vectors, f=f, own=0)


def test_settings_can_be_checked_without_torch():
    code = (
        "import sys, p2pnode.aggregation as a, p2pnode.byzantine as b;"
        "a.find('cwtm').bounds['plain'].least(2); assert b.ATTACKS; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("average", "mean"),
        ("CWMED", "median"),
        ("Trimmed_Mean", "trimmed-mean"),
        (" trmean ", "trimmed-mean"),
        ("MoNNA", "nearest-neighbour"),
        ("nearest neighbour averaging", "nearest-neighbour"),
        ("MDA", "minimum-diameter"),
    ],
)
def test_a_rule_is_found_under_any_of_its_names(name, canonical):
    assert find(name) is RULES[canonical]


def test_no_name_means_two_rules():
    names = [name for rule in RULES.values() for name in (rule.name, *rule.aliases)]
    assert len(names) == len(set(names))
    assert all(find(name.upper().replace("-", "_")).name in RULES for name in names)


def test_an_unknown_rule_is_refused_with_the_nearest_name_and_all_names():
    with pytest.raises(
        ConfigError, match=r"'trimed-mean' \(did you mean 'trimmed-mean'\?\); known rules: mean, median"
    ):
        find("trimed-mean")
    with pytest.raises(ConfigError, match="'xyzzy'; known rules"):
        aggregate("xyzzy", torch.zeros(3, 2), f=0)


@pytest.mark.parametrize(
    ("rule", "broadcast", "without_liars", "with_two", "text"),
    [
        ("trimmed-mean", "plain", 1, 11, "n ≥ 5f+1"),
        ("trimmed-mean", "signed-echo", 1, 9, "n ≥ 4f+1"),
        ("nna", "plain", 1, 22, "n ≥ 11f"),
        ("nna", "signed-echo", 1, 11, "n ≥ 5f+1"),
        ("mda", "plain", 1, 13, "n ≥ 6f+1"),
        ("mda", "signed-echo", 1, 13, "n ≥ 6f+1"),
        ("median", "plain", 1, 9, "n ≥ 3f+3"),
        ("median", "signed-echo", 1, 9, "n ≥ 3f+3"),
        ("mean", "plain", 1, None, "f = 0"),
        ("mean", "signed-echo", 1, None, "f = 0"),
    ],
)
def test_the_least_committee_of_each_theorem(rule, broadcast, without_liars, with_two, text):
    bound = find(rule).bounds[broadcast]
    assert (bound.least(0), bound.least(2), str(bound)) == (without_liars, with_two, text)


def test_tolerated_is_the_inverse_of_least():
    for rule in RULES.values():
        for bound in rule.bounds.values():
            for n in range(1, 60):
                f = bound.tolerated(n)
                assert bound.least(f) <= n
                assert bound.least(f + 1) is None or bound.least(f + 1) > n


def test_a_gather_within_the_bound_always_suffices_for_the_kernel():
    for rule in RULES.values():
        for bound in rule.bounds.values():
            for f in range(1, 9) if bound.per_liar else [0]:
                assert bound.least(f) - f >= rule.inputs_min(f)


def test_a_bound_without_liars_says_so():
    bound = Bound(None, 0, "")
    assert (bound.least(0), bound.least(1), bound.tolerated(99), str(bound)) == (1, None, 0, "f = 0")


@pytest.mark.parametrize("name", RULES)
def test_every_rule_keeps_dtype_and_input_and_shares_no_memory(name):
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        vectors = torch.randn(5, 7, dtype=dtype)
        before = vectors.clone()
        out = call(name, vectors)
        assert out.dtype == dtype
        assert out.shape == (7,)
        out.fill_(9)
        assert torch.equal(vectors, before)
    alone = torch.ones(1, 3)
    call(name, alone, f=0).zero_()
    assert torch.equal(alone, torch.ones(1, 3))


@pytest.mark.parametrize("name", RULES)
def test_every_rule_takes_any_layout_and_vectors_that_are_being_trained(name):
    wide = torch.randn(14, 10).requires_grad_()
    strided = wide.T[::2, ::2]
    assert not strided.is_contiguous()
    out = call(name, strided)
    assert torch.equal(out, call(name, strided.detach().contiguous()))
    assert not out.requires_grad


@pytest.mark.parametrize("name", RULES)
def test_every_rule_accepts_empty_vectors(name):
    assert call(name, torch.zeros(4, 0)).shape == (0,)


@pytest.mark.parametrize("name", RULES)
def test_rows_that_are_not_finite_are_named(name):
    vectors = torch.zeros(6, 4)
    vectors[1, 3], vectors[4, 0], vectors[4, 1] = torch.nan, torch.inf, -torch.inf
    with pytest.raises(NonFinite, match="rows 1, 4 of 6"):
        call(name, vectors)


@pytest.mark.parametrize("name", RULES)
def test_finite_rows_whose_sum_overflows_are_accepted(name):
    vectors = torch.full((5, 3), HUGE)
    assert torch.equal(call(name, vectors), vectors[0])


def test_a_mean_that_overflows_is_refused_but_not_lies_that_are_dropped():
    huge = torch.finfo(torch.float64).max
    vectors = torch.tensor([[huge], [-huge], [1.0]], dtype=torch.float64)
    with pytest.raises(NonFinite, match=r"mean: .* more than torch\.float64"):
        aggregate("mean", vectors, f=0)
    assert aggregate("trimmed-mean", vectors, f=1).tolist() == [1.0]
    assert aggregate("nearest-neighbour", vectors, f=2, own=2).tolist() == [1.0]


def test_each_rule_refuses_fewer_rows_than_it_needs():
    for name, n in (("median", 4), ("trimmed-mean", 4), ("nearest-neighbour", 2), ("minimum-diameter", 4)):
        with pytest.raises(ConfigError, match=f"{name} with f=2 needs at least {n + 1} vectors, got {n}"):
            call(name, torch.zeros(n, 3), f=2)
        assert call(name, torch.zeros(n + 1, 3), f=2).tolist() == [0, 0, 0]
    for name in RULES:
        with pytest.raises(ConfigError, match="got 0"):
            call(name, torch.zeros(0, 3), f=0)


def test_wrong_inputs_are_refused():
    good = torch.zeros(4, 3)
    for vectors in (good[0], good[None], good.long()):
        with pytest.raises(ShapeMismatch, match=r"shape \(n, d\)"):
            call("mean", vectors)
    with pytest.raises(ConfigError, match="f=-1"):
        call("mean", good, f=-1)


def test_own_is_wanted_by_nearest_neighbour_alone():
    assert [rule.name for rule in RULES.values() if rule.wants_own] == ["nearest-neighbour"]
    vectors = torch.arange(12.0).reshape(4, 3)
    assert torch.equal(aggregate("median", vectors, f=1, own=99), aggregate("median", vectors, f=1))
    by_index = aggregate("nna", vectors, f=1, own=2)
    assert torch.equal(aggregate("nna", vectors, f=1, own=vectors[2].clone()), by_index)
    for own in (None, 4, -1, torch.full((3,), 0.5)):
        with pytest.raises(ConfigError, match="own row"):
            aggregate("nna", vectors, f=1, own=own)
    for own in (torch.zeros(2), torch.zeros(3, dtype=torch.float64)):
        with pytest.raises(ShapeMismatch, match="own row must be"):
            aggregate("nna", vectors, f=1, own=own)
