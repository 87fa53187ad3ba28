"""What a scenario says of itself; that its command runs it again is the sweep's test."""

import pytest

from p2pnode.simulation.scenario import schooling
from tests.scenarios import scenario


def test_the_last_nodes_lie():
    plan = scenario("trimmed", ("alie",), nodes=9, byzantine=2, f=2)
    assert (plan.honest, plan.liars) == (tuple(range(7)), (7, 8))
    assert (plan.committee.n, plan.committee.f) == (9, 2)


@pytest.mark.parametrize(("attacks", "origins"), [((), [0, 0, 0, 0]), (("silent",), [0, 3, 0, 3])])
def test_a_lone_broadcast_is_a_liars_for_odd_seeds_if_there_are_liars(attacks, origins):
    assert [scenario("reliable", attacks).origin(seed) for seed in range(4)] == origins


def test_one_broadcast_has_one_slot():
    plan = scenario("signed-echo", steps=5)
    assert plan.alone
    assert (plan.steps, plan.recipe.slots(0), plan.recipe.exchanges[0].broadcast) == (1, 1, "signed-echo")
    assert not scenario("trimmed", nodes=5).alone


def test_the_command_says_all_that_was_chosen():
    plan = scenario("trimmed", ("alie", "equivocate"), "crash", nodes=9, byzantine=2, f=2, steps=3)
    assert plan.command(17) == (
        "p2pnode simulate --nodes 9 --byzantine 2 --f 2 --recipe trimmed --attack alie,equivocate --schedule crash "
        "--steps 3 --seeds 1 --first-seed 17"
    )


def test_the_command_of_honest_nodes_names_no_attack():
    assert "--attack" not in scenario("reliable").command(0)


def test_the_command_repeats_what_was_chosen_otherwise(tmp_path):
    plan = scenario(
        "trimmed",
        nodes=5,
        rule="median",
        broadcast="plain",
        sub_rounds=2,
        train=schooling("digits", "trimmed", 2, alpha=0.5, lr=0.25, lr_decay_every=7),
        data_dir=tmp_path / "a b",
        real_signatures=True,
        beyond_the_bound=True,
    )
    words = plan.command(0)
    for part in (
        "--rule median",
        "--broadcast plain",
        "--sub-rounds 2",
        "--train --task digits --alpha 0.5 --local-batch 32",
    ):
        assert part in words
    assert f"--data-dir '{tmp_path}/a b'" in words
    assert words.endswith("--real-signatures")
    assert "--beyond-the-bound" in words
