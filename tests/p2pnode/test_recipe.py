"""The theorem guard: a configuration that no theorem covers is refused, with the numbers and the remedies."""

import pytest

from p2pnode.aggregation.rules import RULES
from p2pnode.errors import ConfigError
from p2pnode.recipe import BROADCASTS, RECIPES, Exchange, choose
from protocols.committee import Committee


def refusal(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        choose(*args, **kwargs)
    return str(caught.value)


def test_the_refusal_of_the_example_says_it_all():
    assert refusal("trimmed", Committee(8, 2)) == (
        "f = 2: trimmed-mean over signed-echo needs n ≥ 4f+1: n=8 tolerates f=1; f=2 needs n ≥ 9. "
        "Remedy: use n ≥ 9 nodes, or choose f=1"
    )
    assert choose("trimmed", Committee(9, 2)).exchanges == (Exchange("model", "signed-echo", "trimmed-mean", 2),)


def test_a_rule_that_tolerates_no_liar_is_refused_with_what_can_be_done():
    assert refusal("dsgd", Committee(1000, 1)) == (
        "f = 1: mean over plain needs f = 0: n=1000 tolerates f=0. Remedy: choose f=0, or choose another rule"
    )


@pytest.mark.parametrize(
    ("name", "broadcast", "rule", "f", "least", "bound"),
    [
        ("trimmed", None, None, 1, 5, "n ≥ 4f+1"),
        ("trimmed", None, None, 2, 9, "n ≥ 4f+1"),
        ("trimmed", None, None, 100, 401, "n ≥ 4f+1"),
        ("trimmed", "plain", None, 1, 6, "n ≥ 5f+1"),
        ("trimmed", "plain", None, 2, 11, "n ≥ 5f+1"),
        ("trimmed", None, "cwmed", 2, 9, "n ≥ 3f+3"),
        ("monna", None, None, 1, 6, "n ≥ 5f+1"),
        ("monna", None, None, 3, 16, "n ≥ 5f+1"),
        ("monna", "plain", None, 2, 22, "n ≥ 11f"),
        ("dsgd", None, "median", 1, 6, "n ≥ 3f+3"),
        ("dsgd", "signed-echo", "trimmed_mean", 1, 5, "n ≥ 4f+1"),
    ],
)
def test_the_bound_itself_is_accepted_and_one_below_is_refused(name, broadcast, rule, f, least, bound):
    assert choose(name, Committee(least, f), broadcast, rule).name == name
    message = refusal(name, Committee(least - 1, f), broadcast, rule)
    assert f"needs {bound}: n={least - 1} tolerates f={f - 1}; f={f} needs n ≥ {least}." in message
    assert message.endswith(f"Remedy: use n ≥ {least} nodes, or choose f={f - 1}")


def test_where_the_guard_lets_pass_the_protocols_can_live():
    """n ≥ 3f+1 for the echo quorum, enough gathered for the rule, and a contraction: for all choices."""
    for n in range(1, 41):
        for f in range(n):
            for broadcast in BROADCASTS:
                for rule in RULES:
                    committee = Committee(n, f)
                    try:
                        [exchange] = choose("trimmed", committee, broadcast, rule).exchanges
                    except ConfigError:
                        assert f > 0
                        continue
                    assert committee.echo_broadcast_lives
                    assert committee.gather_quorum >= RULES[rule].inputs_min(f)
                    assert 1 <= exchange.sub_rounds <= 65535


def test_remedies_of_a_refusal_are_accepted():
    for n in range(1, 30):
        for f in range(1, n):
            try:
                choose("monna", Committee(n, f))
            except ConfigError as error:
                remedies = [
                    int(word) for word in str(error).split("Remedy: ")[1].replace("f=", "").split() if word.isdigit()
                ]
                assert choose("monna", Committee(remedies[0], f))
                assert choose("monna", Committee(n, remedies[1]))


@pytest.mark.parametrize(
    ("n", "f", "broadcast", "rounds"),
    [
        (1, 0, None, 1),
        (5, 0, None, 1),
        (5, 1, None, 1),  # 1/2
        (7, 1, None, 1),
        (9, 2, None, 2),  # 2/3, 4/9
        (10, 2, None, 1),
        (13, 3, None, 3),  # 3/4, 9/16, 27/64
        (6, 1, "plain", 2),  # 2/3, 4/9
        (7, 1, "plain", 1),
        (11, 2, "plain", 4),  # 4/5, …, 256/625
    ],
)
def test_sub_rounds_are_the_fewest_that_halve_the_honest_spread(n, f, broadcast, rounds):
    assert choose("trimmed", Committee(n, f), broadcast).exchanges[0].sub_rounds == rounds


def test_other_rules_take_one_sub_round_and_any_number_can_be_chosen():
    assert choose("monna", Committee(16, 3)).exchanges[0].sub_rounds == 1
    assert choose("trimmed", Committee(9, 2), rule="median").exchanges[0].sub_rounds == 1
    assert choose("trimmed", Committee(9, 2), rounds=7).exchanges[0].sub_rounds == 7


def test_a_rule_is_written_down_under_its_one_name():
    assert choose("monna", Committee(6, 1), rule="NNA") == choose("monna", Committee(6, 1))


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"name": "trimed"}, "recipe = 'trimed': no such recipe. Remedy: did you mean 'trimmed'? choose one of dsgd,"),
        ({"name": "xyz"}, "recipe = 'xyz': no such recipe. Remedy: choose one of dsgd, trimmed, monna"),
        (
            {"broadcast": "signed_echo"},
            "broadcast = 'signed_echo': no such broadcast. Remedy: did you mean 'signed-echo'?",
        ),
        ({"broadcast": ""}, "broadcast = '': no such broadcast. Remedy: choose one of plain, signed-echo"),
        ({"rule": "trimed-mean"}, "'trimed-mean' (did you mean 'trimmed-mean'?)"),
        ({"rule": ""}, "unknown aggregation rule ''"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_and_all(choice, wanted):
    assert wanted in refusal(**{"name": "trimmed", "committee": Committee(5, 1), **choice})


def test_every_recipe_runs_where_nobody_lies():
    for name, preset in RECIPES.items():
        [exchange] = choose(name, Committee(3, 0)).exchanges
        assert (exchange.broadcast, exchange.rule) == (preset.broadcast, preset.rule)
