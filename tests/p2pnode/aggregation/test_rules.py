"""The table of rules, and how a name, or several after one another, is read."""

import subprocess
import sys

import pytest
import torch

from p2pnode.aggregation import PRE_AGGREGATIONS, RULES, aggregate, find, mix
from p2pnode.errors import ConfigError
from protocols.committee import Bound, Committee

PARTS = {**RULES, **PRE_AGGREGATIONS}


def refusal(name):
    with pytest.raises(ConfigError) as caught:
        find(name)
    return str(caught.value)


def test_settings_can_be_checked_without_torch():
    code = (
        "import sys, p2pnode.aggregation as a, p2pnode.byzantine as b;"
        "rule = a.find('nnm+cwtm'); rule.bounds['plain'].least(2); rule.check(9, 2); rule.kappa(9, 2);"
        "assert b.ATTACKS; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Names.


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
        ("MultiKrum", "multi-krum"),
        ("GeometricMedian", "geometric-median"),
        ("gm", "geometric-median"),
        ("CenteredClipping", "centred-clipping"),
        ("Meamed", "mean-around-median"),
        ("SMEA", "smallest-maximum-eigenvalue"),
        ("CAF", "covariance-filter"),
        ("CGE", "gradient-elimination"),
        ("CE", "comparative-elimination"),
        ("clipped gossip", "self-centred-clipping"),
        ("bucketing=1+mean", "bucketing=1+mean"),
    ],
)
def test_a_rule_is_found_under_any_of_its_names(name, canonical):
    assert find(name).name == canonical
    assert find(name) == RULES.get(canonical, find(name))


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("NNM + Trimmed Mean", "nnm+trimmed-mean"),
        ("ARC+nnm+Krum", "arc+nnm+krum"),
        ("nearest_neighbor_mixing+gm", "nnm+geometric-median"),
        ("clipping = 2.5 + average", "clip=2.5+mean"),
        ("clip=3.0+mean", "clip=3+mean"),
        ("clip=2+mean", "clip+mean"),  # the default
        ("bucketing=2+median", "bucketing+median"),
        ("multi-krum=3", "multi-krum=3"),
        ("centred-clipping=1e1", "centred-clipping=10"),
        ("centred-clipping=100,1", "centred-clipping"),
        ("cc=100, 3", "centred-clipping=100,3"),
        ("scc=0.5", "self-centred-clipping=0.5"),
    ],
)
def test_a_pipeline_has_one_name_which_means_it(name, canonical):
    assert find(name).name == canonical
    assert find(canonical) == find(name)


def test_no_name_means_two_parts():
    names = [name for part in PARTS.values() for name in (part.name, *part.aliases)]
    assert len(names) == len(set(names))
    assert all(find(name.upper().replace("-", "_")).name in RULES for rule in RULES.values() for name in rule.aliases)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("trimed-mean", "unknown aggregation rule 'trimed-mean' (did you mean 'trimmed-mean'?). Remedy: choose one of"),
        ("xyzzy", "unknown aggregation rule 'xyzzy'. Remedy: choose one of mean, median, trimmed-mean"),
        ("xyzzy", "smallest-maximum-eigenvalue, or install the plug-in that brings it"),
        ("", "unknown aggregation rule ''. Remedy: "),
        ("nmm+krum", "unknown pre-aggregation 'nmm' in 'nmm+krum' (did you mean 'nnm'?). Remedy: choose one of nnm, b"),
        ("nnm++krum", "unknown pre-aggregation '' in 'nnm++krum'. Remedy: "),
        ("nnm+", "unknown aggregation rule '' in 'nnm+'. Remedy: "),
        ("nnm", "'nnm' is no aggregation rule. Remedy: put a rule after it, as nnm+median"),
        ("krum+nnm", "'krum' in 'krum+nnm' is no pre-aggregation. Remedy: put it last"),
        ("median+mean", "'median' in 'median+mean' is no pre-aggregation. Remedy: put it last"),
        ("median=3", "median=3: it takes no number. Remedy: remove"),
        ("nnm=3+median", "nnm=3: it takes no number. Remedy: remove"),
        ("multi-krum=3,4", "multi-krum=3,4: it takes m, how many are averaged"),
        ("multi-krum=2.5", "multi-krum=2.5: not how many are averaged, by default q − f − 2. Remedy: choose a whole"),
        ("multi-krum=", "multi-krum=: not how many"),
        ("clip=0+mean", "clip=0: not the length at which vectors are clipped. Remedy: choose a number above 0"),
        ("clip=-1+mean", "clip=-1: "),
        ("clip=nan+mean", "clip=nan: "),
        ("clip=inf+mean", "clip=inf: "),
        ("clip=1=2+mean", "clip=1=2: "),
        ("bucketing=0+mean", "bucketing=0: not how many to a bucket. Remedy: choose a whole number above 0"),
        ("centred-clipping=1,2,3", "it takes tau, the length τ at which differences are clipped; steps, a number of"),
        (
            "bucketing+nna",
            "'bucketing+nna': in buckets one's own vector, which nearest-neighbour needs, is lost. Remedy",
        ),
    ],
)
def test_what_means_nothing_is_refused_with_what_would(name, wanted):
    message = refusal(name)
    assert message.startswith(wanted) or wanted in message
    assert "Remedy: " in message
    with pytest.raises(ConfigError):
        aggregate(name, torch.zeros(9, 2), f=0, own=0)


# Bounds.


@pytest.mark.parametrize(
    ("rule", "broadcast", "with_two", "text"),
    [
        ("trimmed-mean", "plain", 11, "n ≥ 5f+1"),
        ("trimmed-mean", "signed-echo", 9, "n ≥ 4f+1"),
        ("trimmed-mean", "reliable", 7, "n ≥ 3f+1"),
        ("nna", "plain", 22, "n ≥ 11f"),
        ("nna", "signed-echo", 11, "n ≥ 5f+1"),
        ("mda", "plain", 13, "n ≥ 6f+1"),
        ("mda", "signed-echo", 13, "n ≥ 6f+1"),
        ("median", "plain", 9, "n ≥ 3f+3"),
        ("median", "signed-echo", 9, "n ≥ 3f+3"),
        ("mean", "plain", None, "f = 0"),
        ("mean", "signed-echo", None, "f = 0"),
        ("gm", "plain", 7, "n ≥ 3f+1"),
        ("krum", "signed-echo", 9, "n ≥ 3f+3"),
        ("bulyan", "reliable", 13, "n ≥ 5f+3"),
        ("nnm+trimmed-mean", "signed-echo", 9, "n ≥ 4f+1"),
        ("nnm+trimmed-mean", "plain", 11, "n ≥ 5f+1"),
        ("arc+nnm+krum", "plain", 9, "n ≥ 3f+3"),
        ("clip=2+mean", "plain", None, "f = 0"),
        ("bucketing=2+median", "plain", 11, "n ≥ 5f+1"),
        ("bucketing=3+krum", "plain", 21, "n ≥ 7f+7"),
        ("nnm+nna", "plain", 22, "n ≥ 11f"),
    ],
)
def test_the_least_committee_of_each_theorem(rule, broadcast, with_two, text):
    bound = find(rule).bounds[broadcast]
    assert (bound.least(0), bound.least(2), str(bound)) == (1, with_two, text)


ALL = [*RULES, "nnm+trimmed-mean", "arc+nnm+nna", "bucketing=3+krum", "bucketing=5+bucketing=2+bulyan"]


@pytest.mark.parametrize("name", ALL)
def test_tolerated_is_the_inverse_of_least(name):
    for bound in find(name).bounds.values():
        for n in range(1, 60):
            f = bound.tolerated(n)
            assert bound.least(f) <= n
            assert bound.least(f + 1) is None or bound.least(f + 1) > n


@pytest.mark.parametrize("name", ALL)
def test_a_gather_within_the_bound_always_suffices_for_the_kernel(name):
    rule = find(name)
    for bound in rule.bounds.values():
        for f in range(1, 9) if bound.per_liar else [0]:
            assert bound.least(f) - f >= rule.inputs_min(f)


@pytest.mark.parametrize("name", ["bucketing=3+krum", "bucketing+median", "bucketing=5+bucketing=2+bulyan"])
def test_buckets_leave_the_rule_as_many_as_it_needs_and_no_more_is_asked(name):
    rule = find(name)
    for f in range(1, 4):
        assert mix(name, torch.zeros(rule.inputs_min(f), 1), f=f).vector.tolist() == [0]
        left = rule.inputs_min(f)
        for pre in rule.before:
            left = pre.outputs(left)
        assert left == RULES[name.split("+")[-1]].inputs_min(f)


def test_a_bound_without_liars_says_so():
    bound = Bound(None, 0, "")
    assert (bound.least(0), bound.least(1), bound.tolerated(99), str(bound)) == (1, None, 0, "f = 0")


def test_the_stricter_of_two_bounds_is_the_widest_that_implies_both():
    bounds = [Bound(a, b, str((a, b))) for a in range(1, 5) for b in range(-2, 4)] + [Bound(None, 0, "none")]
    for one in bounds:
        for other in bounds:
            both = one.stricter(other)
            assert both.source == one.source
            for f in range(1, 5):
                for n in range(f + 1, 20):
                    committee = Committee(n, f)
                    if both.covers(committee):
                        assert one.covers(committee)
                        assert other.covers(committee)
            if one.per_liar is not None and other.per_liar is not None:
                assert both.per_liar == max(one.per_liar, other.per_liar)
                assert both.least(1) == max(one.least(1), other.least(1))


def test_every_bound_and_part_names_its_source_and_only_theorems_claim_agreement():
    for rule in RULES.values():
        for bound in rule.bounds.values():
            theorem = rule.name in ("mean", "median", "trimmed-mean", "nearest-neighbour", "minimum-diameter")
            assert ("of agreement it proves nothing" in bound.source) == (not theorem)
    assert "taken over" in find("nnm+median").bounds["plain"].source
    assert all(part.source and part.summary for part in PARTS.values())
