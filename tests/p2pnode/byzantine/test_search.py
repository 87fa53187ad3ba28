"""The search for the strongest lie: it must beat the given factors against each rule, and find the same on a sample."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from p2pnode.aggregation import aggregate
from p2pnode.byzantine import search
from p2pnode.byzantine.search import (
    EVALUATIONS,
    SAMPLE,
    Line,
    coordinates,
    displacement,
    line_search,
    looks_at_distances,
    searched_a_little,
    searched_inner_product,
    strongest,
)
from p2pnode.byzantine.vectors import (
    ALIE_Z,
    Situation,
    a_little_is_enough,
    inner_product_manipulation,
    paper_z,
    sign_flip,
    spread,
)
from protocols.header import Slot

RULES = ("mean", "median", "trimmed-mean", "nearest-neighbour", "minimum-diameter")


@pytest.fixture(autouse=True)
def one_thread():
    """As in every node; on a busy machine many small sums by two threads take far longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def situation(rule, n=16, f=3, d=200, seed=0, rows=None, slot=None, **known):
    honest = 0.5 + torch.randn(rows or n - f, d, generator=torch.Generator().manual_seed(seed))
    honest *= 1 + torch.rand(d, generator=torch.Generator().manual_seed(seed + 1))
    members = tuple(range(len(honest)))
    known = {"liars": f, "generator": torch.Generator()} | known
    return Situation(honest, members, slot or Slot(3), n, f, rule=rule, **known)


def moved(one, lie):
    """How far the mixture of n−f vectors, f of them this lie, is from the honest mean; at the first honest member."""
    vectors = torch.vstack([one.honest[: one.n - one.f - one.liars], *[lie] * one.liars])
    return float((aggregate(one.rule, vectors, f=one.f, own=0) - one.honest.mean(0)).norm())


# The line search.


def test_a_line_search_looks_so_often_and_finds_the_top_of_a_hill():
    for top in (0.0, 0.3, 1.0, 4.7, 60.0):
        looked = []

        def gain(x, top=top, looked=looked):
            looked.append(x)
            return -abs(x - top)

        assert line_search(gain) == pytest.approx(top, abs=0.15 + 0.1 * top)
        assert (len(looked), looked[0], looked[1]) == (EVALUATIONS, 0.0, 1.0)
        assert min(looked) >= 0


def test_a_line_search_doubles_as_long_as_it_gains():
    assert line_search(lambda x: x) == 2 ** (EVALUATIONS - 1) - 1


@pytest.mark.parametrize("seed", range(30))
def test_a_line_search_never_ends_below_where_it_began(seed):
    heights = np.random.default_rng(seed)
    seen = {}
    assert seen.setdefault(line_search(lambda x: seen.setdefault(x, heights.normal())), -np.inf) == max(seen.values())
    assert line_search(lambda x: 0.0) == 0


# Searched lies.


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_a_searched_little_is_at_least_as_strong_as_the_given_factors(rule, seed):
    one = situation(rule, seed=seed)
    found = moved(one, searched_a_little(one))
    for z in (0.0, paper_z(one.n, one.f), ALIE_Z):
        assert found >= 0.999 * moved(one, a_little_is_enough(one.honest, z)), z
    for z in (0.25, 0.5, 1.0, 2.0, 4.0):  # a rule that drops lies at once when they go too far is hard to search
        assert found >= 0.9 * moved(one, a_little_is_enough(one.honest, z)), z
    mean, std = spread(one.honest)
    ratio = (mean - searched_a_little(one)) / std
    assert (ratio - ratio.mean()).abs().max() < 1e-3 * (1 + ratio.mean().abs()), "the same z everywhere"
    assert ratio.min() > -1e-3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_a_searched_inner_product_is_at_least_as_strong_as_the_given_factors(rule, seed):
    one = situation(rule, seed=seed)
    found = moved(one, searched_inner_product(one))
    for epsilon in (-1.0, 0.1, 0.5, 1.0, 2.0):
        assert found >= 0.999 * moved(one, inner_product_manipulation(one.honest, epsilon)), epsilon


def test_against_the_mean_a_search_goes_as_far_as_it_can_and_against_robust_rules_it_stays_close():
    far, near = (moved(one, searched_a_little(one)) for one in (situation("mean"), situation("trimmed-mean")))
    assert far > 1000 * near


def test_the_strongest_of_several_is_the_one_that_moves_the_rule_the_farthest():
    lies = [lambda s: s.honest.mean(0), lambda s: a_little_is_enough(s.honest, 1.0), lambda s: sign_flip(s.honest)]
    for rule in RULES:
        one = situation(rule)
        said = strongest(lies)(one)
        assert moved(one, said) == max(moved(one, lie(one)) for lie in lies)
    assert torch.equal(strongest(lies[:1] * 2)(one), one.honest.mean(0))


# What a lie achieves.


@pytest.mark.parametrize("rule", RULES)
def test_a_displacement_is_that_of_what_a_receiver_mixes_also_along_a_line(rule):
    one = situation(rule)
    mean, std = spread(one.honest)
    lie = mean - 0.7 * std
    assert displacement(one, lie) == pytest.approx(moved(one, lie), rel=1e-6)
    assert Line(one, -std).displacement(0.7) == pytest.approx(moved(one, lie), rel=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_the_honest_seen_stand_in_for_those_not_seen_yet(rule):
    one = situation(rule, rows=2)
    assert searched_a_little(one).isfinite().all()
    beyond = situation("mean", n=5, f=1, liars=4, rows=1)
    assert displacement(beyond, beyond.honest[0]) == pytest.approx(0, abs=1e-5)


def test_what_a_rule_refuses_moves_nothing():
    one = situation("mean")
    for lie in (torch.inf, torch.nan):
        assert displacement(one, torch.full((200,), lie)) == 0


def test_a_rule_that_measures_from_the_model_is_given_it(monkeypatch):
    given = []

    def mixture(rule, rows, *, f, own, centre):
        given.append(centre)
        return rows[own].abs()

    monkeypatch.setattr(search, "find", lambda _: SimpleNamespace(wants_centre=True))
    monkeypatch.setattr(search, "aggregate", mixture)
    model = torch.arange(200.0)
    known, unknown = situation("by coordinate", centre=model), situation("by coordinate")
    displacement(known, model)
    displacement(unknown, model)
    Line(known, model).displacement(1.0)
    assert torch.equal(given[0], model)
    assert not given[1].any()
    assert given[-1].tolist() == pytest.approx(model.tolist(), abs=1e-4)


def test_a_rule_that_measures_distances_from_the_model_is_given_it_in_the_same_coordinates(monkeypatch):
    def nearest_to_the_model(rule, rows, *, f, own, centre):
        return rows[(rows - centre).norm(dim=1).argsort()[: len(rows) - f]].mean(dim=0)

    monkeypatch.setattr(search, "find", lambda _: SimpleNamespace(wants_centre=True))
    monkeypatch.setattr(search, "aggregate", nearest_to_the_model)
    one = situation("by distance", centre=torch.full((200,), -0.4))
    assert looks_at_distances("by distance", 13, 3)
    mean, std = spread(one.honest)
    for z in (0.0, 0.5, 1.0, 2.0, 4.0):
        assert Line(one, -std).displacement(z) == pytest.approx(displacement(one, mean - z * std), rel=1e-3)


# Shorter vectors.


def test_coordinates_keep_every_length_and_distance_however_long_the_vectors():
    vectors = torch.randn(6, 5000, generator=torch.Generator().manual_seed(0))
    vectors[5] *= 100
    short = coordinates(vectors)
    assert short.shape == (6, 6)
    assert torch.cdist(short, short).numpy() == pytest.approx(torch.cdist(vectors, vectors).numpy(), rel=1e-4, abs=1e-2)
    assert short.norm(dim=1).numpy() == pytest.approx(vectors.norm(dim=1).numpy(), rel=1e-5)
    lengths = coordinates(1e25 * vectors).double().norm(dim=1).numpy()
    assert lengths == pytest.approx(1e25 * vectors.double().norm(dim=1).numpy(), rel=1e-5), "products would overflow"


@pytest.mark.parametrize("value", [1e30, torch.inf])
@pytest.mark.parametrize("rule", RULES)
def test_where_the_honest_overflow_there_is_nothing_to_search_and_no_error(rule, value):
    one = situation(rule)
    one.honest[:] = value
    assert searched_a_little(one).shape == searched_inner_product(one).shape == (200,)


def test_rules_that_look_at_distances_are_told_from_those_that_look_at_coordinates():
    assert [looks_at_distances(rule, 13, 3) for rule in RULES] == [True, False, False, True, True]


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "nearest-neighbour", "minimum-diameter"])
@pytest.mark.parametrize("step", range(3))
def test_shorter_vectors_find_nearly_the_same_factor(rule, step, monkeypatch):
    monkeypatch.setattr(search, "SAMPLE", 4096)
    one = situation(rule, n=11, f=2, d=4 * 4096, slot=Slot(step))
    mean, std = spread(one.honest)
    found, exact = Line(one, -std).strongest(), line_search(lambda z: moved(one, mean - z * std))
    assert found == pytest.approx(exact, rel=0.02)
    assert Line(one, -std).displacement(found) == pytest.approx(moved(one, mean - found * std), rel=0.05)
    assert moved(one, mean - found * std) > 0.98 * moved(one, mean - exact * std)


def test_a_sample_is_of_coordinates_from_everywhere_the_same_for_all_and_another_in_each_slot():
    d = 3 * SAMPLE + 1
    columns = [search._strata(d, slot) for slot in (Slot(1), Slot(1), Slot(2), Slot(1, 1), Slot(1, 0, 1))]
    assert torch.equal(columns[0], columns[1])
    assert len({tuple(one.tolist()) for one in columns}) == 4
    for one in columns:
        assert len(one) == SAMPLE
        assert (one.diff() >= 0).all()
        assert 0 <= one[0] < 4
        assert d - 4 <= one[-1] < d


def test_liars_who_saw_the_same_say_the_same():
    one, other = (situation("trimmed-mean", d=SAMPLE + 5, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    assert torch.equal(searched_a_little(one), searched_a_little(other))
