"""Each attack on vectors against the same in plain numpy."""

from math import erf, sqrt

import numpy as np
import pytest
import torch

from p2pnode.aggregation import aggregate
from p2pnode.byzantine.vectors import (
    ALIE_Z,
    RANDOM_STD,
    Mimic,
    Situation,
    Stale,
    a_little_is_enough,
    anti_elimination,
    constant,
    dissensus,
    gaussian,
    inner_product_manipulation,
    paper_z,
    reflection,
    sign_flip,
    too_long,
)
from p2pnode.errors import NonFinite
from protocols.header import Slot

HONEST = torch.tensor([[1.0, 0.0], [3.0, 4.0]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some(rows=7, length=50, seed=0, at=1.0):
    return at + torch.randn(rows, length, generator=seeded(seed))


def situation(honest, step=0, own=None, members=None, slot=None, **known):
    members = tuple(range(len(honest))) if members is None else members
    known = {"n": len(honest) + 1, "f": 1, "liars": 1, "rule": "mean", "generator": seeded()} | known
    return Situation(honest, members, slot or Slot(step), own=own, **known)


# A little is enough.


def test_a_little_is_enough_is_below_the_mean_by_population_deviations():
    honest = some()
    expected = honest.numpy().mean(axis=0) - 2 * honest.numpy().std(axis=0)
    assert a_little_is_enough(honest, z=2).numpy() == pytest.approx(expected, abs=1e-6)
    assert a_little_is_enough(HONEST, z=2).tolist() == [2 - 2 * 1, 2 - 2 * 2]
    assert a_little_is_enough(HONEST).tolist() == [2 - 1.5 * 1, 2 - 1.5 * 2]
    assert torch.equal(a_little_is_enough(HONEST[:1]), HONEST[0])


def test_a_little_is_enough_hides_within_the_honest_spread():
    honest = some(20, 200)
    lie = a_little_is_enough(honest)
    assert (lie > honest.amin(0)).float().mean() > 0.7
    assert (lie - honest.mean(0)).norm() < 1.6 * (honest - honest.mean(0)).norm(dim=1).mean()


@pytest.mark.parametrize(("n", "f", "supporters"), [(26, 5, 9), (50, 24, 2), (51, 24, 2), (5, 1, 2), (11, 5, 1)])
def test_the_papers_z_leaves_so_many_honest_values_beyond_it_as_make_a_majority(n, f, supporters):
    assert f + supporters == n // 2 + 1
    normal = 0.5 * (1 + erf(paper_z(n, f) / sqrt(2)))
    assert normal == pytest.approx((n - f - supporters) / (n - f), abs=1e-12)


def test_where_the_papers_formula_has_no_value_z_is_the_published_constant():
    assert paper_z(2, 1) == paper_z(1, 0) == ALIE_Z


# Against the mean.


def test_inner_product_manipulation_is_the_mean_times_minus_epsilon():
    honest = some()
    expected = -0.1 * honest.numpy().mean(axis=0)
    assert inner_product_manipulation(honest, 0.1).numpy() == pytest.approx(expected, abs=1e-7)
    assert inner_product_manipulation(HONEST, 0.5).tolist() == [-1, -1]


def test_sign_flip_negates_the_mean():
    assert sign_flip(HONEST).tolist() == [-2, -2]


# Against elimination.


def eliminated(vectors, f, centre):
    """Rows that comparative elimination keeps, in numpy."""
    return set(np.argsort(np.linalg.norm(vectors - centre, axis=1), kind="stable")[: len(vectors) - f])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("f", [1, 2, 3])
@pytest.mark.parametrize("around", [None, 5.0])
def test_lies_against_elimination_are_kept_and_turn_its_sum_against_the_honest(f, seed, around):
    honest = some(9 - f, 40, seed)
    centre = None if around is None else torch.full((40,), around)
    lie = anti_elimination(honest, f, centre).numpy()
    origin = np.zeros(40) if around is None else centre.numpy()
    vectors = np.vstack([honest.numpy(), *[lie] * f])
    kept = eliminated(vectors, f, origin)
    assert set(range(9 - f, 9)) <= kept, "all lies are kept"
    sum_of_honest = (honest.numpy() - origin)[[row for row in kept if row < 9 - f]].sum(axis=0)
    cosine = (lie - origin) @ sum_of_honest / np.linalg.norm(lie - origin) / np.linalg.norm(sum_of_honest)
    assert cosine == pytest.approx(-1, abs=1e-5)
    first_gone = np.sort(np.linalg.norm(honest.numpy() - origin, axis=1))[9 - 2 * f]
    assert np.linalg.norm(lie - origin) == pytest.approx(0.99 * first_gone, rel=1e-5), "and as long as can be"


def test_against_elimination_something_is_said_whatever_was_seen():
    assert anti_elimination(HONEST[:1], 3).tolist() == pytest.approx([-0.99, 0])
    assert anti_elimination(HONEST, 0).norm() < HONEST[1].norm()
    assert not anti_elimination(torch.zeros(3, 2), 1).any()


# Against the agreement of peers.


@pytest.mark.parametrize("liars", [1, 3])
def test_dissensus_cancels_gossip_exactly_at_one_and_reverses_half_of_it_at_one_and_a_half(liars):
    honest = some(6, 30)
    n = len(honest) + liars

    def moved(epsilon, target):
        lie = dissensus(honest, target, len(honest), liars, epsilon).numpy()
        return np.vstack([honest.numpy(), *[lie] * liars]).mean(axis=0) - honest[target].numpy()

    for target in range(len(honest)):
        truth = (honest.numpy() - honest[target].numpy()).sum(axis=0) / n
        assert moved(1.0, target) == pytest.approx(0, abs=1e-5)
        assert moved(1.5, target) == pytest.approx(-truth / 2, abs=1e-5)


def test_dissensus_stands_in_for_the_honest_that_were_not_seen_and_has_nothing_to_say_to_who_was_not():
    honest = some(4, 10)
    twice = torch.vstack([honest, honest])
    assert torch.allclose(dissensus(honest, 1, 8, 2, 1.5), dissensus(twice, 1, 8, 2, 1.5), atol=1e-5)
    assert torch.equal(dissensus(honest, None, 4, 1, 1.5), honest.mean(0))


# Mimicry.


def test_mimic_copies_the_first_until_it_knows_who_stands_out_and_then_that_one_for_good():
    members = (0, 2, 3, 5)
    mimic = Mimic(warm_up=3)
    line = np.random.default_rng(1).normal(size=30)
    line /= np.linalg.norm(line)
    place = {0: 0.5, 2: -0.7, 3: 3.0, 5: 1.0}
    noise = np.random.default_rng(2)

    def rows(scale=1.0):
        return torch.tensor(
            np.array([scale * place[member] * line + 0.05 * noise.normal(size=30) for member in members])
        )

    for step in range(3):
        honest = rows()
        assert torch.equal(mimic(situation(honest, step, members=members)), honest[0])
    honest = rows()
    assert torch.equal(mimic(situation(honest, 3, members=members)), honest[2])
    others = rows(-0.1)
    others[0] *= 100
    assert torch.equal(mimic(situation(others, 4, members=members)), others[2]), "chosen once"
    assert torch.equal(mimic(situation(honest[:2], 5, members=(0, 2))), honest[0]), "not seen, so the first"


def test_mimic_learns_the_direction_in_which_the_honest_differ_the_most():
    mimic = Mimic(warm_up=100)
    generator = np.random.default_rng(0)
    scales = np.array([1.0] * 11 + [3.0])
    every = []
    for step in range(60):
        honest = generator.normal(size=(10, 12)) * scales
        every.append(honest - honest.mean(axis=0))
        mimic(situation(torch.tensor(honest), step))
    covariance = sum(one.T @ one for one in every)
    principal = np.linalg.eigh(covariance)[1][:, -1]
    assert abs(mimic._direction.numpy() @ principal) > 0.95


def test_mimic_has_nobody_to_choose_where_all_are_alike():
    mimic = Mimic(warm_up=1)
    for step in range(3):
        assert mimic(situation(torch.ones(4, 5), step)).tolist() == [1.0] * 5


# What is not made of the honest.


def test_random_vectors_have_the_published_deviation_and_ignore_the_honest():
    lie = gaussian(torch.zeros(3, 40_000), seeded())
    assert lie.std().item() == pytest.approx(RANDOM_STD, rel=0.02)
    assert abs(lie.mean().item()) < 5
    assert torch.equal(gaussian(torch.ones(3, 40_000), seeded()), lie)
    assert not torch.equal(gaussian(torch.ones(3, 40_000), seeded(1)), lie)
    assert gaussian(torch.zeros(3, 40_000), seeded(), 0.5).std().item() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_number_is_left_out_by_the_aggregation_and_refused_where_nobody_may_lie(value):
    lie = constant(HONEST, value)
    assert str(lie[0].item()) == str(lie[1].item()) == str(value)
    assert torch.equal(aggregate("trimmed-mean", torch.vstack([HONEST, lie]), f=1), HONEST.mean(0))
    with pytest.raises(NonFinite, match="rows 2 of 3"):
        aggregate("trimmed-mean", torch.vstack([HONEST, lie]), f=0)


def test_huge_is_finite_in_every_type():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        lie = constant(HONEST.to(dtype), 1e30)
        assert lie.isfinite().all()
        assert lie[0].item() == pytest.approx(min(1e30, torch.finfo(dtype).max), rel=0.01)


def test_too_long_is_longer_by_one():
    assert too_long(HONEST[1]).tolist() == [3, 4, 3]


def test_stale_is_ones_own_vector_of_some_steps_ago_in_each_exchange_and_never_a_view():
    stale = Stale(2)
    own = {(step, exchange): torch.full((2,), 10.0 * step + exchange) for step in range(5) for exchange in range(2)}
    for (step, exchange), vector in own.items():
        said = stale(situation(vector[None], own=vector, slot=Slot(step, exchange)))
        assert torch.equal(said, own[max(0, step - 2), exchange])
        said.zero_()
        later = torch.full((2,), -1.0)
        said = stale(situation(vector[None], own=later, slot=Slot(step, exchange, 1)))
        assert torch.equal(said, own[max(0, step - 2), exchange]), "sub-rounds repeat the first"
    assert stale(situation(HONEST, own=HONEST[0], slot=Slot(9, 7, 1))).tolist() == [1, 0]


def test_reflection_is_its_own_inverse_about_the_centre():
    vector, centre = HONEST
    mirrored = reflection(vector, centre)
    assert mirrored.tolist() == [5, 8]
    assert torch.equal(reflection(mirrored, centre), vector)
