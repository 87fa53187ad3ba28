"""Every rule against its plain definition; and what is done to vectors before a rule sees them."""

import numpy as np
import pytest
import torch

from p2pnode.aggregation import RULES, aggregate, find, mix
from p2pnode.errors import ConfigError, NonFinite, ShapeMismatch
from tests.p2pnode.aggregation.oracle import ORACLES, arc, clip, nnm

HUGE = torch.finfo(torch.float32).max
BY_DISTANCE = [name for name, rule in RULES.items() if not rule.kernel.startswith("coordinate")]
BY_COORDINATE = [name for name in RULES if name not in BY_DISTANCE]
KINDS = ("gauss", "grid", "duplicates", "far", "mixed scales")
UNCERTAIN = {
    # Where eigenvectors, or their rounding, decide between equals, the definition decides nothing.
    "covariance-filter": ("grid", "duplicates"),
    "smallest-maximum-eigenvalue": ("grid", "duplicates"),
    "phocas": ("grid", "duplicates"),
}


def sizes(rule, rng):
    """q ≤ 11 vectors, and f, that the rule can mix."""
    while True:
        q = int(rng.integers(1, 12))
        most = [f for f in range(q) if rule.inputs_min(f) <= q]
        if most:
            return q, int(rng.choice(most))


def vectors(kind, q, f, rng):
    """(q, d) rows; the last f are the odd ones out, where there are any."""
    d = int(rng.integers(1, 5))
    rows = rng.normal(size=(q, d))
    if kind == "grid":
        rows = rng.integers(-3, 4, (q, d)).astype(float)
    elif kind == "duplicates":
        rows = rows[rng.integers(0, (q + 1) // 2, q)]
    elif kind == "far":
        rows[q - f :] *= rng.choice([1e3, -1e6, 1e18], (f, 1))
    elif kind == "mixed scales":
        rows *= 10.0 ** rng.integers(-3, 3, (q, 1))
    return rows


def given(rows, own=0):
    return {"own": own, "centre": torch.zeros_like(rows[0])}


def close(out, wanted, dtype):
    scale = 1 + np.abs(wanted).max(initial=0)
    return np.allclose(out.double().numpy(), wanted, rtol=0, atol=scale * (1e-9 if dtype == torch.float64 else 1e-5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ORACLES)
def test_it_is_what_its_definition_says(name, kind):
    if kind in UNCERTAIN.get(name, ()):
        pytest.skip("equals have no order here")
    rng = np.random.default_rng([KINDS.index(kind), list(ORACLES).index(name)])
    for turn in range(20):
        dtype = (torch.float64, torch.float32)[turn % 2]
        q, f = sizes(RULES[name], rng)
        rows = torch.from_numpy(vectors(kind, q, f, rng)).to(dtype)
        own, centre = int(rng.integers(q)), torch.from_numpy(rng.integers(-1, 2, rows.shape[1])).to(dtype)
        vector, kept = ORACLES[name](rows.double().tolist(), f, own=own, centre=centre.double().tolist())
        mixture = mix(name, rows, f=f, own=own, centre=centre)
        assert close(mixture.vector, vector, dtype), (q, f, own)
        assert mixture.kept == tuple(kept)
        assert mixture.dropped == ()


@pytest.mark.parametrize(
    "pipeline", ["nnm+krum", "nnm+median", "arc+nnm+minimum-diameter", "clip=1.5+krum", "arc+mean"]
)
@pytest.mark.parametrize("d", [3, 200])
def test_a_pipeline_is_its_parts_one_after_another(pipeline, d):
    """With few coordinates distances are measured anew, with many they follow from the old ones."""
    rng = np.random.default_rng(d)
    for _ in range(10):
        *before, last = pipeline.split("+")
        q, f = sizes(find(pipeline), rng)
        rows = rng.normal(size=(q, d)) * rng.uniform(0.1, 2, (q, 1)) + 1
        expected = rows.tolist()
        for part in before:
            expected = clip(expected, 1.5) if part == "clip=1.5" else {"nnm": nnm, "arc": arc}[part](expected, f)
        expected, _ = ORACLES[find(last).name](expected, f)
        assert close(aggregate(pipeline, torch.from_numpy(rows), f=f), expected, torch.float64)


@pytest.mark.parametrize("name", ["multi-krum=2", "centred-clipping=0.5,3", "self-centred-clipping=0.5"])
def test_what_is_set_by_number_reaches_the_rule(name):
    rng = np.random.default_rng(0)
    settings = {"multi-krum": {"m": 2}, "centred-clipping": {"tau": 0.5, "steps": 3}}
    rule = name.split("=")[0]
    for _ in range(10):
        rows = rng.normal(size=(7, 3))
        expected, _ = ORACLES[rule](rows.tolist(), 1, own=2, **settings.get(rule, {"tau": 0.5}))
        assert close(aggregate(name, torch.from_numpy(rows), f=1, own=2), expected, torch.float64)


# Order, place and direction.


@pytest.mark.parametrize("name", BY_COORDINATE)
def test_the_order_of_the_rows_never_matters_to_coordinates(name):
    rng = np.random.default_rng(0)
    for kind in KINDS:
        for _ in range(8):
            q, f = sizes(RULES[name], rng)
            rows = torch.from_numpy(vectors(kind, q, f, rng))
            out = aggregate(name, rows[rng.permutation(q)], f=f)
            assert close(out, aggregate(name, rows, f=f).numpy(), torch.float64)


@pytest.mark.parametrize("name", [name for name in BY_DISTANCE if name != "minimum-diameter"])
def test_the_order_of_whole_vectors_does_not_matter_where_nothing_is_equal(name):
    """Minimum-diameter subsets may share the two that are farthest apart. With f ≤ 2 Bulyan comes to look at one
    neighbour alone, and two neighbours are each other's."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        q, f = (15, 3) if name == "bulyan" else (11, 2)
        rows = torch.from_numpy(rng.normal(size=(q, 3)))
        order = rng.permutation(q)
        one = mix(name, rows, f=f, **given(rows))
        other = mix(name, rows[order], f=f, **given(rows, int(np.flatnonzero(order == 0)[0])))
        assert close(other.vector, one.vector.numpy(), torch.float64)
        assert sorted(order[list(other.kept)]) == list(one.kept)


@pytest.mark.parametrize("name", RULES)
def test_it_moves_and_scales_with_its_inputs(name):
    rng = np.random.default_rng(1)
    shift = 0 if name == "gradient-elimination" else 5
    for _ in range(8):
        q, f = sizes(RULES[name], rng)
        rows = torch.from_numpy(rng.normal(size=(q, 3)))
        centre = torch.zeros(3, dtype=torch.float64)
        moved = mix(name, rows + shift, f=f, own=0, centre=centre + shift)
        still = mix(name, rows, f=f, own=0, centre=centre)
        assert close(moved.vector, still.vector.numpy() + shift, torch.float64)
        assert moved.kept == still.kept
        if name != "centred-clipping":  # whose τ is a length
            assert close(aggregate(name, 8 * rows, f=f, own=0, centre=centre), 8 * still.vector.numpy(), torch.float64)


@pytest.mark.parametrize("name", [n for n in BY_DISTANCE if n != "centred-clipping"] + ["mean"])
def test_it_turns_with_its_inputs(name):
    """Bulyan ends by coordinate, so the rows that it kept turn, and its values do not."""
    rng = np.random.default_rng(2)
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(3, 3)))[0])
    for _ in range(8):
        q, f = sizes(RULES[name], rng)
        rows = torch.from_numpy(rng.normal(size=(q, 3)))
        turned, still = (mix(name, each, f=f, **given(each)) for each in (rows @ turn, rows))
        assert turned.kept == still.kept
        if "bulyan" not in name:
            assert close(turned.vector, (still.vector @ turn).numpy(), torch.float64)


# Form.


@pytest.mark.parametrize("name", [*RULES, "arc+nnm+krum", "bucketing=1+median"])
def test_it_keeps_dtype_and_input_and_shares_no_memory(name):
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        rows = torch.randn(7, 7, dtype=dtype)
        before = rows.clone()
        out = aggregate(name, rows, f=1, **given(rows))
        assert (out.dtype, out.shape) == (dtype, (7,))
        out.fill_(9)
        assert torch.equal(rows, before)
    alone = torch.ones(1, 3)
    aggregate(name, alone, f=0, **given(alone)).zero_()
    assert torch.equal(alone, torch.ones(1, 3))


@pytest.mark.parametrize("name", RULES)
def test_it_takes_any_layout_and_vectors_that_are_being_trained(name):
    wide = torch.randn(14, 14).requires_grad_()
    strided = wide.T[::2, ::2]
    assert not strided.is_contiguous()
    out = aggregate(name, strided, f=1, **given(strided))
    same = strided.detach().contiguous()
    assert torch.equal(out, aggregate(name, same, f=1, **given(same)))
    assert not out.requires_grad


@pytest.mark.parametrize("name", RULES)
def test_it_accepts_empty_vectors_and_few_of_them_where_nobody_lies(name):
    empty = torch.zeros(7, 0)
    assert aggregate(name, empty, f=1, **given(empty)).shape == (0,)
    for q in (1, 2, 3, 4):
        rows = torch.full((q, 3), 0.1)
        assert torch.equal(aggregate(name, rows, f=0, own=0, centre=rows[0]), rows[0])


@pytest.mark.parametrize("name", [*RULES, "nnm+krum"])
def test_equal_rows_are_a_fixed_point(name):
    rows = torch.full((11, 5), 0.1)
    rounding = 1e-7 if name in ("mean-around-median", "phocas", "bulyan", "multi-bulyan") else 0
    for f in (0, 2):
        assert torch.allclose(aggregate(name, rows, f=f, own=3, centre=rows[0]), rows[0], rtol=0, atol=rounding)


# Rows that are not finite.


@pytest.mark.parametrize("name", [*RULES, "arc+nnm+krum"])
def test_rows_that_are_not_finite_are_left_out_and_named(name):
    rng = np.random.default_rng(3)
    rows = torch.from_numpy(rng.normal(size=(13, 3)))
    rest = mix(name, rows, f=1, own=4, centre=rows[0])
    for bad in (torch.nan, torch.inf, -torch.inf):
        spoiled = torch.cat([rows[:2], rows[:1], rows[2:], rows[:1]])
        spoiled[2, 1], spoiled[14, 0], spoiled[14, 2] = bad, bad, -bad
        mixture = mix(name, spoiled, f=3, own=5, centre=rows[0])
        assert mixture.dropped == (2, 14)
        assert torch.equal(mixture.vector, rest.vector)
        assert mixture.kept == tuple(row + (row > 1) for row in rest.kept)


@pytest.mark.parametrize("name", RULES)
def test_more_rows_that_are_not_finite_than_may_lie_are_refused_by_name(name):
    rows = torch.zeros(7, 4)
    rows[1, 3], rows[4, 0], rows[4, 1] = torch.nan, torch.inf, -torch.inf
    with pytest.raises(NonFinite, match="rows 1, 4 of 7, where f=1"):
        aggregate(name, rows, f=1, **given(rows))
    assert mix(name, torch.cat([rows, rows[:1].repeat(8, 1)]), f=2, **given(rows)).dropped == (1, 4)


def test_ones_own_row_or_the_centre_that_is_not_finite_is_refused():
    rows = torch.zeros(5, 2)
    rows[3, 1] = torch.nan
    for name in ("nearest-neighbour", "self-centred-clipping"):
        with pytest.raises(NonFinite, match="own row 3 has NaN"):
            aggregate(name, rows, f=1, own=3)
    for name in ("comparative-elimination", "centred-clipping"):
        with pytest.raises(NonFinite, match="the centre has NaN"):
            aggregate(name, rows, f=1, centre=rows[3])


@pytest.mark.parametrize("name", RULES)
def test_finite_rows_whose_sum_overflows_are_no_lies(name):
    rows = torch.full((7, 64), HUGE / 16)
    mixture = mix(name, rows, f=1, own=0, centre=rows[0])
    assert mixture.dropped == ()
    assert torch.equal(mixture.vector, rows[0])


@pytest.mark.parametrize("name", [name for name in RULES if name != "mean"])
@pytest.mark.parametrize("lie", [1e12, -1e30, HUGE])
def test_however_far_a_lie_it_leaves_the_mixture_near_the_honest(name, lie):
    honest = torch.randn(9, 40, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([honest[:5], torch.full((1, 40), lie), honest[5:], torch.full((1, 40), lie / 2)])
    out = aggregate(name, rows, f=2, own=0, centre=honest.mean(0))
    reach = 100 if name == "centred-clipping" else torch.cdist(honest, honest).max()
    assert (out - honest.mean(0)).norm() <= reach


def test_a_mean_that_overflows_is_refused_but_not_lies_that_are_dropped():
    huge = torch.finfo(torch.float64).max
    rows = torch.tensor([[huge], [-huge], [1.0]], dtype=torch.float64)
    with pytest.raises(NonFinite, match=r"mean: .* more than torch\.float64"):
        aggregate("mean", rows, f=0)
    assert aggregate("trimmed-mean", rows, f=1).tolist() == [1.0]
    assert aggregate("nearest-neighbour", rows, f=2, own=2).tolist() == [1.0]


def test_distances_beyond_the_largest_number_still_order_float64_rows():
    rows = torch.tensor([[1e200], [0.0], [1.0], [0.5], [-1e300], [2.0], [0.2]], dtype=torch.float64)
    for name in ("krum", "multi-krum", "minimum-diameter", "covariance-filter", "smallest-maximum-eigenvalue"):
        assert set(mix(name, rows, f=2).kept) <= {1, 2, 3, 5, 6}
    assert 0 <= aggregate("geometric-median", rows, f=2).item() <= 2


# What is refused.


@pytest.mark.parametrize(
    ("name", "least"),
    [
        *[(name, 5) for name in RULES if RULES[name].inputs_min(2) == 5],
        *[("nearest-neighbour", 3), ("krum", 7), ("multi-krum", 7), ("bulyan", 11), ("multi-bulyan", 11)],
        *[("nnm+median", 5), ("bucketing+median", 9), ("bucketing=3+krum", 19)],
    ],
)
def test_fewer_rows_than_the_rule_needs_are_refused(name, least):
    rows = torch.zeros(least, 3)
    with pytest.raises(ConfigError, match=rf"with f=2 needs at least {least} vectors, got {least - 1}"):
        aggregate(name, rows[1:], f=2, **given(rows))
    assert aggregate(name, rows, f=2, **given(rows)).tolist() == [0, 0, 0]
    with pytest.raises(ConfigError, match="got 0"):
        aggregate(name, rows[:0], f=0, own=0, centre=rows[0])


def test_wrong_inputs_are_refused():
    good = torch.zeros(4, 3)
    for wrong in (good[0], good[None], good.long()):
        with pytest.raises(ShapeMismatch, match=r"shape \(n, d\)"):
            aggregate("mean", wrong, f=0)
    with pytest.raises(ConfigError, match="f=-1"):
        aggregate("mean", good, f=-1)
    with pytest.raises(ConfigError, match=r"m=3 of 5 vectors with f=1\. Remedy: choose m from 1 to 2"):
        aggregate("multi-krum=3", torch.zeros(5, 3), f=1)


def test_ones_own_row_is_given_by_index_or_by_value():
    assert [name for name, rule in RULES.items() if rule.wants_own] == ["nearest-neighbour", "self-centred-clipping"]
    rows = torch.arange(12.0).reshape(4, 3)
    assert torch.equal(aggregate("median", rows, f=1, own=99), aggregate("median", rows, f=1))
    for name in ("nna", "clipped-gossip"):
        by_index = aggregate(name, rows, f=1, own=2)
        assert torch.equal(aggregate(name, rows, f=1, own=rows[2].clone()), by_index)
        for own in (None, 4, -1, torch.full((3,), 0.5)):
            with pytest.raises(ConfigError, match="own row"):
                aggregate(name, rows, f=1, own=own)
        for own in (torch.zeros(2), torch.zeros(3, dtype=torch.float64)):
            with pytest.raises(ShapeMismatch, match="own row must be"):
                aggregate(name, rows, f=1, own=own)


def test_the_centre_is_wanted_by_comparative_elimination_alone():
    assert [name for name, rule in RULES.items() if rule.wants_centre] == ["comparative-elimination"]
    rows = torch.arange(12.0).reshape(4, 3)
    with pytest.raises(ConfigError, match=r"needs the model at which the round began\. Remedy: give it as centre"):
        aggregate("ce", rows, f=1)
    for name in ("ce", "centred-clipping"):
        for centre in (torch.zeros(2), torch.zeros(3, dtype=torch.float64)):
            with pytest.raises(ShapeMismatch, match="centre must be"):
                aggregate(name, rows, f=1, centre=centre)
    assert torch.equal(aggregate("median", rows, f=1, centre=torch.zeros(1)), aggregate("median", rows, f=1))


def test_work_is_refused_before_a_vector_is_looked_at():
    class Untouchable(torch.Tensor):
        def sum(self, *args, **kwargs):
            raise AssertionError("looked at")

    rows = torch.zeros(40, 3).as_subclass(Untouchable)
    with pytest.raises(ConfigError, match=r"658008 subsets, more than 30000\. Remedy: choose a smaller f"):
        aggregate("smea", rows, f=5)
    with pytest.raises(AssertionError, match="looked at"):
        aggregate("smea", rows, f=2)


@pytest.mark.parametrize("lie", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", [*RULES, "nnm+median", "bucketing+median", "clip+median", "arc+nnm+krum"])
def test_compiled_kernels_leave_out_and_name_what_is_not_finite_wherever_it_stands(name, lie):
    """Two coordinates, of the two rows: within a register's whole, and in the rest that fills none."""
    finite = torch.randn(13, 9001, generator=torch.Generator().manual_seed(1))
    for place in (0, 4711, 9000):
        rows = finite.clone()
        rows[5, place], rows[11, 9000 - place] = lie, -lie
        mixture = mix(name, rows, f=2, own=1, centre=finite[1])
        rest = [row for row in range(13) if row not in (5, 11)]
        expected = mix(name, finite[rest], f=0, own=1, centre=finite[1])
        assert mixture.dropped == (5, 11)
        assert set(mixture.kept) <= set(rest)
        assert torch.equal(mixture.vector, expected.vector)
