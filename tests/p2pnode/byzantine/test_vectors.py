import pytest
import torch

from p2pnode.aggregation import aggregate
from p2pnode.byzantine import ATTACKS
from p2pnode.byzantine.vectors import (
    RANDOM_STD,
    VECTOR_ATTACKS,
    a_little_is_enough,
    gaussian,
    not_a_number,
    reflection,
    sign_flip,
)
from p2pnode.errors import NonFinite

HONEST = torch.tensor([[1.0, 0.0], [3.0, 4.0]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_name_is_known_and_only_protocol_attacks_have_no_vector():
    assert set(ATTACKS) - set(VECTOR_ATTACKS) == {"silent", "equivocate", "withhold", "selective", "forge"}
    assert set(VECTOR_ATTACKS) <= set(ATTACKS)


@pytest.mark.parametrize("name", VECTOR_ATTACKS)
def test_every_attack_keeps_shape_and_dtype_and_repeats_under_one_seed(name):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        honest = torch.randn(9, 5, dtype=dtype).T
        before = honest.clone()
        lie = VECTOR_ATTACKS[name](honest, seeded())
        assert (lie.shape, lie.dtype) == ((9,), dtype)
        assert torch.equal(VECTOR_ATTACKS[name](honest, seeded()).nan_to_num(), lie.nan_to_num())
        lie.zero_()
        assert torch.equal(honest, before)


def test_a_little_is_enough_is_below_the_mean_by_population_deviations():
    assert a_little_is_enough(HONEST, z=2).tolist() == [2 - 2 * 1, 2 - 2 * 2]
    assert torch.equal(VECTOR_ATTACKS["alie"](HONEST, seeded()), a_little_is_enough(HONEST, z=1.5))
    assert torch.equal(a_little_is_enough(HONEST[:1]), HONEST[0])


def test_a_little_is_enough_hides_within_the_honest_spread():
    honest = torch.randn(20, 200, generator=seeded())
    lie = a_little_is_enough(honest)
    assert (lie > honest.amin(0)).float().mean() > 0.7
    assert (lie - honest.mean(0)).norm() < 1.6 * (honest - honest.mean(0)).norm(dim=1).mean()


def test_sign_flip_negates_the_mean():
    assert sign_flip(HONEST).tolist() == [-2, -2]


def test_random_vectors_have_the_published_deviation_and_ignore_the_honest():
    lie = gaussian(torch.zeros(3, 40_000), seeded())
    assert lie.std().item() == pytest.approx(RANDOM_STD, rel=0.02)
    assert abs(lie.mean().item()) < 5
    assert torch.equal(gaussian(torch.ones(3, 40_000), seeded()), lie)
    assert not torch.equal(gaussian(torch.ones(3, 40_000), seeded(1)), lie)


def test_nan_is_left_out_by_the_aggregation_and_refused_where_nobody_may_lie():
    lie = not_a_number(HONEST)
    assert lie.isnan().all()
    assert torch.equal(aggregate("trimmed-mean", torch.vstack([HONEST, lie]), f=1), HONEST.mean(0))
    with pytest.raises(NonFinite, match="rows 2 of 3"):
        aggregate("trimmed-mean", torch.vstack([HONEST, lie]), f=0)


def test_reflection_is_its_own_inverse_about_the_centre():
    vector, centre = HONEST
    mirrored = reflection(vector, centre)
    assert mirrored.tolist() == [5, 8]
    assert torch.equal(reflection(mirrored, centre), vector)


def test_no_finite_lie_moves_the_trimmed_mean_out_of_the_honest_range():
    honest = torch.randn(5, 50, generator=seeded())
    for name in set(VECTOR_ATTACKS) - {"nan"}:
        lie = VECTOR_ATTACKS[name](honest, seeded())
        out = aggregate("trimmed-mean", torch.vstack([honest, lie, lie]), f=2)
        assert (out >= honest.amin(0)).all()
        assert (out <= honest.amax(0)).all()
