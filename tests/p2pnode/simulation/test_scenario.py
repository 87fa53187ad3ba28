"""What a scenario says of itself; that its command runs it again is the sweep's test."""

import pytest

from p2pnode.learning.catalogue import TASKS
from p2pnode.recipe import RECIPES, choose
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


def test_what_is_not_chosen_comes_from_the_recipe_or_else_the_task():
    digits = TASKS["digits"]
    ours = schooling("digits", "trimmed", 7, lr=0.25, alpha=None)
    assert (ours.task, ours.steps, ours.lr, ours.alpha) == ("digits", 7, 0.25, None)
    assert (ours.local_batch, ours.momentum) == (digits.local_batch, digits.momentum)
    assert schooling("digits", "jungle-rb", 7).momentum == RECIPES["jungle-rb"].momentum == 0.0
    assert schooling("digits", "jungle-rb", 7, momentum=0.5).momentum == 0.5


def test_further_choices_of_a_recipe_are_passed_on_and_said_again(monkeypatch):
    passed = {}

    def choosing(*choices, **options):
        passed.update(options)
        return choose(*choices, guarded=options["guarded"])

    monkeypatch.setattr("p2pnode.simulation.sweep.choose", choosing)
    plan = scenario("trimmed", nodes=5, options=(("local_steps", 3), ("wire", "float16"), ("staleness", 0)))
    assert (passed["local_steps"], passed["wire"]) == (3, "float16")
    assert "--recipe trimmed --local-steps 3 --wire float16 --staleness 0" in plan.command(0)
