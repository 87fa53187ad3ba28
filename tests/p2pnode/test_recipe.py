"""The recipes, and their guard: what no theorem covers is refused, with the numbers and the remedies."""

from fractions import Fraction

import pytest

from p2pnode.aggregation.rules import RULES
from p2pnode.errors import ConfigError
from p2pnode.recipe import BROADCASTS, PRECISION_MAX, RECIPES, Exchange, Recipe, choose, contraction
from protocols.committee import MEMBERS_MAX, Committee

MIXED_BY = [name for name, rule in RULES.items() if not rule.wants_centre]


def refusal(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        choose(*args, **kwargs)
    return str(caught.value)


def test_the_refusal_of_the_example_says_it_all():
    assert refusal("trimmed", Committee(8, 2)) == (
        "f = 2: trimmed-mean over signed-echo needs n ≥ 4f+1: n=8 tolerates f=1; f=2 needs n ≥ 9. "
        "Remedy: use n ≥ 9 nodes, or choose f=1"
    )
    assert choose("trimmed", Committee(9, 2)).exchanges == (Exchange("model", "signed-echo", "trimmed-mean", (2,)),)


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
        ("trimmed", "reliable", None, 1, 4, "n ≥ 3f+1"),
        ("trimmed", "reliable", "median", 1, 6, "n ≥ 3f+3"),
        ("monna", "reliable", None, 2, 11, "n ≥ 5f+1"),
        ("jungle-rb", None, None, 1, 4, "n ≥ 3f+1"),
        ("jungle-rb", None, None, 2, 7, "n ≥ 3f+1"),
        ("jungle-rb", "signed-echo", None, 2, 9, "n ≥ 4f+1"),
        ("jungle-rb", "plain", None, 1, 6, "n ≥ 5f+1"),
        ("jungle-mda", None, None, 1, 7, "n ≥ 6f+1"),
        ("jungle-mda", None, None, 2, 13, "n ≥ 6f+1"),
        ("jungle-mda", "reliable", None, 2, 13, "n ≥ 6f+1"),
        ("trimmed", None, "mda", 3, 19, "n ≥ 6f+1"),
        ("dsgd", None, "median", 1, 6, "n ≥ 3f+3"),
        ("dsgd", "signed-echo", "trimmed_mean", 1, 5, "n ≥ 4f+1"),
    ],
)
def test_the_bound_itself_is_accepted_and_one_below_is_refused(name, broadcast, rule, f, least, bound):
    assert choose(name, Committee(least, f), broadcast, rule).name == name
    message = refusal(name, Committee(least - 1, f), broadcast, rule)
    assert f"needs {bound}: n={least - 1} tolerates f={f - 1}; f={f} needs n ≥ {least}." in message
    assert message.endswith(f"Remedy: use n ≥ {least} nodes, or choose f={f - 1}")


@pytest.mark.parametrize("name", ["trimmed", "jungle-rb"])
def test_where_the_guard_lets_pass_the_protocols_can_live(name):
    """n ≥ 3f+1 for the echo quorum, enough gathered for the rule, and a contraction: for all choices."""
    for n in range(1, 41):
        for f in range(n):
            for broadcast in BROADCASTS:
                for rule in MIXED_BY:
                    committee = Committee(n, f)
                    try:
                        recipe = choose(name, committee, broadcast, rule)
                    except ConfigError:
                        assert f > 0
                        continue
                    assert committee.echo_broadcast_lives
                    assert committee.gather_quorum >= RULES[rule].inputs_min(f)
                    assert all(rounds >= 1 for exchange in recipe.exchanges for rounds in exchange.rounds)


@pytest.mark.parametrize("broadcast", BROADCASTS)
@pytest.mark.parametrize("rule", MIXED_BY)
def test_the_slots_of_the_largest_committee_with_the_most_liars_have_names_on_the_wire(broadcast, rule):
    """Where the contraction is nearest to 1, and the rounds the most; a sub-round takes two bytes."""
    most = Committee(MEMBERS_MAX, RULES[rule].bounds[broadcast].tolerated(MEMBERS_MAX))
    for exchange in choose("jungle-rb", most, broadcast, rule, guarded=False).exchanges:
        assert max(exchange.rounds) == exchange.rounds[-1] <= 2**16


def test_a_guard_that_is_off_lets_pass_what_no_theorem_covers():
    recipe = choose("trimmed", Committee(4, 1), guarded=False)
    assert recipe.exchanges == (Exchange("model", "signed-echo", "trimmed-mean", (1,)),)
    for name in RECIPES:
        for n, f in ((1, 0), (2, 1), (3, 1), (4, 3)):
            for broadcast in BROADCASTS:
                for rule in MIXED_BY:
                    recipe = choose(name, Committee(n, f), broadcast, rule, guarded=False)
                    assert all(rounds >= 1 for exchange in recipe.exchanges for rounds in exchange.rounds)
    assert "no such recipe" in refusal("trimed", Committee(4, 1), guarded=False)


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
        (4, 1, "reliable", 1),  # 1/2
        (7, 2, "reliable", 2),  # 2/3, 4/9
        (10, 3, "reliable", 3),  # 3/4, 9/16, 27/64
    ],
)
def test_sub_rounds_are_the_fewest_that_halve_the_honest_spread(n, f, broadcast, rounds):
    assert choose("trimmed", Committee(n, f), broadcast).exchanges[0].rounds == (rounds,)


def test_other_rules_take_one_sub_round_and_any_number_can_be_chosen():
    assert choose("monna", Committee(16, 3)).exchanges[0].rounds == (1,)
    assert choose("trimmed", Committee(9, 2), rule="median").exchanges[0].rounds == (1,)
    assert choose("trimmed", Committee(9, 2), rounds=7).exchanges[0].rounds == (7,)


def test_minimum_diameter_averaging_takes_the_fewest_that_halve_the_diameter():
    assert choose("trimmed", Committee(7, 1), rule="mda").exchanges[0].rounds == (4,)  # 4/5, …, 256/625


# Exchanges of gradients, ever more precise.


def test_a_jungle_step_agrees_on_a_gradient_of_a_growing_batch_then_on_the_model():
    for name, broadcast, rule, n in (
        ("jungle-rb", "reliable", "trimmed-mean", 4),
        ("jungle-mda", "plain", "minimum-diameter", 7),
    ):
        recipe = choose(name, Committee(n, 1))
        assert recipe.batch_grows
        assert [(e.what, e.broadcast, e.rule) for e in recipe.exchanges] == [
            ("gradient", broadcast, rule),
            ("model", broadcast, rule),
        ]
        assert recipe.exchanges[1].rounds == recipe.exchanges[0].rounds[:1]
        assert RECIPES[name].momentum == 0.0


@pytest.mark.parametrize("name", ["dsgd", "trimmed", "monna"])
def test_the_other_recipes_agree_once_a_step_on_the_model_after_a_batch_that_stays(name):
    recipe = choose(name, Committee(6, 0))
    assert not recipe.batch_grows
    assert [exchange.what for exchange in recipe.exchanges] == ["model"]
    assert RECIPES[name].momentum is None


@pytest.mark.parametrize(
    ("name", "n", "f", "rounds"),
    [
        ("jungle-rb", 4, 1, (2, 3, 4, 5, 6)),  # 2·(1/2)^T ≤ 2^−N: T = N+1
        ("jungle-rb", 7, 2, (4, 6, 7)),  # 2·(2/3)^T: 32/81; 128/729; 256/2187
        ("jungle-rb", 10, 1, (1, 2, 2, 2, 3)),  # 3·(1/8)^T: 3/8; 3/64; 3/512
        ("jungle-rb", 3, 0, (1, 1, 1)),
        ("jungle-mda", 7, 1, (4, 7, 10, 13)),  # (4/5)^T: .410; .210; .107; .055
        ("jungle-mda", 9, 1, (2, 3, 4, 5, 7)),  # (4/7)^T: .327; .187; .107; .061; .020
        ("jungle-mda", 13, 2, (6, 12, 18)),  # (8/9)^T: .493; .243; .120
        ("jungle-mda", 3, 0, (1, 1, 1)),
    ],
)
def test_rounds_grow_so_that_the_diameter_is_halved_once_more_for_each_n(name, n, f, rounds):
    exchange = choose(name, Committee(n, f)).exchanges[0]
    assert exchange.rounds[: len(rounds)] == rounds
    assert len(exchange.rounds) == PRECISION_MAX


@pytest.mark.parametrize(
    ("name", "n", "f"), [("jungle-rb", 4, 1), ("jungle-rb", 7, 2), ("jungle-rb", 40, 9), ("jungle-mda", 31, 5)]
)
def test_growing_rounds_are_the_fewest_that_suffice(name, n, f):
    committee = Committee(n, f)
    exchange = choose(name, committee).exchanges[0]
    left = contraction(committee, exchange.broadcast, exchange.rule)
    spread = committee.distortion if exchange.rule == "trimmed-mean" else 1
    for precision, rounds in enumerate(exchange.rounds, 1):
        assert spread * left**rounds <= Fraction(1, 2**precision) < spread * left ** (rounds - 1)


def test_the_number_of_sub_rounds_follows_the_step():
    gradient, model = choose("jungle-rb", Committee(4, 1)).exchanges
    # N = ⌈log2 t⌉ for t = step+1, at least 1; and N+1 sub-rounds.
    assert [gradient.sub_rounds(step) for step in range(10)] == [2, 2, 3, 3, 4, 4, 4, 4, 5, 5]
    assert gradient.sub_rounds(2**63 - 1) == gradient.sub_rounds(2**200) == 64
    assert {model.sub_rounds(step) for step in (0, 1, 2, 99, 2**63 - 1)} == {2}
    assert [Exchange("model", "plain", "mean", (1, 5)).sub_rounds(step) for step in range(6)] == [1, 1, 5, 5, 5, 5]


def test_a_chosen_number_of_rounds_does_not_grow():
    assert [exchange.rounds for exchange in choose("jungle-mda", Committee(7, 1), rounds=3).exchanges] == [(3,), (3,)]


def test_where_no_rate_is_known_a_growing_exchange_has_one_round():
    exchanges = choose("jungle-rb", Committee(6, 1), rule="median").exchanges
    assert [exchange.rounds for exchange in exchanges] == [(1,), (1,)]


def test_a_step_has_the_slots_of_all_its_exchanges():
    recipe = choose("jungle-rb", Committee(4, 1))
    assert [recipe.slots(step) for step in (0, 1, 2, 4, 100)] == [4, 4, 5, 6, 10]
    assert choose("trimmed", Committee(9, 2)).slots(7) == 2


def test_a_recipe_is_total_if_a_broadcast_of_it_is():
    assert choose("jungle-rb", Committee(4, 1)).total
    assert choose("trimmed", Committee(4, 1), "reliable").total
    assert not choose("jungle-mda", Committee(7, 1)).total
    assert not choose("trimmed", Committee(5, 1)).total
    plain, reliable = (Exchange("model", kind, "mean", (1,)) for kind in ("plain", "reliable"))
    assert Recipe("test", (plain, reliable)).total


@pytest.mark.parametrize(
    ("n", "f", "broadcast", "rule", "left"),
    [
        (7, 2, "reliable", "trimmed-mean", Fraction(2, 3)),
        (9, 2, "signed-echo", "trimmed-mean", Fraction(2, 3)),
        (11, 2, "plain", "trimmed-mean", Fraction(4, 5)),
        (5, 0, "plain", "trimmed-mean", Fraction(0)),
        (8, 2, "signed-echo", "trimmed-mean", None),  # 2/2
        (3, 1, "plain", "trimmed-mean", None),  # nothing is left to average
        (7, 1, "plain", "minimum-diameter", Fraction(4, 5)),
        (7, 1, "reliable", "minimum-diameter", Fraction(4, 5)),
        (6, 1, "plain", "minimum-diameter", None),
        (6, 1, "signed-echo", "nearest-neighbour", Fraction(3, 4)),
        (6, 1, "reliable", "nearest-neighbour", Fraction(3, 4)),
        (11, 1, "plain", "nearest-neighbour", Fraction(5, 9)),
        (7, 1, "plain", "nearest-neighbour", None),
        (100, 1, "reliable", "mean", None),
        (100, 1, "reliable", "median", None),
    ],
)
def test_the_contraction_is_that_of_the_rule_over_the_broadcast(n, f, broadcast, rule, left):
    assert contraction(Committee(n, f), broadcast, rule) == left


# Names.


def test_a_rule_is_written_down_under_its_one_name():
    assert choose("monna", Committee(6, 1), rule="NNA") == choose("monna", Committee(6, 1))


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"name": "trimed"}, "recipe = 'trimed': no such recipe. Remedy: did you mean 'trimmed'? choose one of dsgd,"),
        (
            {"name": "xyz"},
            "recipe = 'xyz': no such recipe. Remedy: choose one of dsgd, trimmed, monna, jungle-rb, jungle-mda",
        ),
        (
            {"broadcast": "signed_echo"},
            "broadcast = 'signed_echo': no such broadcast. Remedy: did you mean 'signed-echo'?",
        ),
        ({"broadcast": ""}, "broadcast = '': no such broadcast. Remedy: choose one of plain, signed-echo, reliable"),
        ({"name": "jungle"}, "Remedy: did you mean 'jungle-rb'?"),
        ({"rule": "trimed-mean"}, "'trimed-mean' (did you mean 'trimmed-mean'?)"),
        ({"rule": ""}, "unknown aggregation rule ''"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_and_all(choice, wanted):
    assert wanted in refusal(**{"name": "trimmed", "committee": Committee(5, 1), **choice})


def test_a_pipeline_is_written_down_under_its_one_name_and_has_its_bound():
    recipe = choose("trimmed", Committee(9, 2), rule="ARC + NNM + trmean")
    assert recipe.exchanges == (Exchange("model", "signed-echo", "arc+nnm+trimmed-mean", (1,)),)
    assert "bucketing+trimmed-mean over signed-echo needs n ≥ 5f+1" in refusal(
        "trimmed", Committee(10, 2), rule="bucketing+trmean"
    )


def test_a_rule_around_a_centre_is_refused_where_gradients_are_mixed():
    for guarded in (True, False):
        message = refusal("multi-krum", Committee(6, 1), rule="ce", guarded=guarded)
        assert "measures from the model at which a round began, and gradients are mixed" in message
        assert (
            choose("trimmed", Committee(6, 1), rule="ce", guarded=guarded).exchanges[0].rule
            == "comparative-elimination"
        )


def test_work_that_no_node_can_do_in_time_is_refused_before_a_socket_opens():
    """C(21, 5) subsets of the gathered; C(26, 5) where all may be gathered."""
    assert choose("trimmed", Committee(26, 5), rule="smea")
    assert "65780 subsets, more than 30000. Remedy: " in refusal("trimmed", Committee(26, 5), "reliable", "smea")
    assert "m=20 of 21 vectors with f=5. Remedy: choose m from 1 to 14" in refusal(
        "trimmed", Committee(26, 5), rule="multi-krum=20"
    )


def test_every_recipe_runs_where_nobody_lies():
    for name, preset in RECIPES.items():
        exchanges = choose(name, Committee(3, 0)).exchanges
        assert {exchange.broadcast for exchange in exchanges} == {preset.broadcast}
        assert [exchange.rule for exchange in exchanges] == [part.rule or preset.rule for part in preset.parts]


# What an exchange is asked for


def whats(recipe):
    return [exchange.what for exchange in recipe.exchanges]


@pytest.mark.parametrize(
    ("name", "f", "least", "bound"),
    [
        ("learn", 1, 6, "n ≥ 3f+3"),
        ("resam", 1, 5, "n ≥ 4f+1"),
        ("resam", 3, 13, "n ≥ 4f+1"),
        ("distributed-momentum", 1, 6, "n ≥ 3f+3"),
        ("distributed-momentum", 2, 9, "n ≥ 3f+3"),
        ("distributed-momentum", 3, 13, "n ≥ 4f+1"),
        ("multi-krum", 1, 6, "n ≥ 3f+3"),
        ("bulyan", 1, 8, "n ≥ 5f+3"),
        ("multi-bulyan", 2, 13, "n ≥ 5f+3"),
        ("guanyu", 1, 6, "n ≥ 3f+3"),
        ("ce", 1, 4, "n ≥ 3f+1"),
        ("p2p-cge", 1, 4, "n ≥ 3f+1"),
        ("p2p-cge", 2, 7, "n ≥ 3f+1"),
        ("redundant", 1, 5, "n ≥ 4f+1"),
    ],
)
def test_of_several_exchanges_the_strictest_sets_the_bound(name, f, least, bound):
    assert choose(name, Committee(least, f)).name == name
    message = refusal(name, Committee(least - 1, f))
    assert f"needs {bound}: n={least - 1} tolerates f={f - 1}; f={f} needs n ≥ {least}." in message


def test_an_agreement_is_asked_to_contract_and_a_single_round_to_stand_its_liars():
    """Minimum diameter over n−f of n ≥ 3f+1 stands f liars; it contracts from n ≥ 6f+1 only."""
    gradient, model = choose("resam", Committee(5, 1)).exchanges
    assert (gradient.rule, gradient.rounds, model.rule, model.rounds) == (
        "minimum-diameter",
        (1,),
        "trimmed-mean",
        (1,),
    )
    assert "needs n ≥ 6f+1" in refusal("jungle-mda", Committee(5, 1))


def test_guanyu_takes_the_gradient_at_the_median_of_models():
    recipe = choose("guanyu", Committee(6, 1))
    assert whats(recipe) == ["parameters", "gradient", "model"]
    assert [exchange.rule for exchange in recipe.exchanges] == ["median", "multi-krum", "median"]


def test_learn_agrees_on_a_gradient_over_a_round_more_each_time_the_steps_have_doubled():
    gradient, model = choose("learn", Committee(6, 1)).exchanges
    assert [gradient.sub_rounds(step) for step in (1, 2, 3, 4, 7, 8, 15, 16)] == [2, 3, 3, 4, 4, 5, 5, 6]
    assert [model.sub_rounds(step) for step in (0, 100)] == [1, 1]


def test_a_choice_of_rule_replaces_the_recipes_own_and_no_other():
    rules = [exchange.rule for exchange in choose("guanyu", Committee(6, 1), rule="minimum-diameter").exchanges]
    assert rules == ["median", "minimum-diameter", "median"]


@pytest.mark.parametrize(("name", "rounds"), [("ce", [(4,)]), ("multi-krum", [(1,), (4,)]), ("learn", [(4,), (4,)])])
def test_a_choice_of_sub_rounds_is_for_agreements_or_for_the_only_exchange(name, rounds):
    assert [exchange.rounds for exchange in choose(name, Committee(6, 1), rounds=4).exchanges] == rounds


# Whom one waits for


def test_who_waits_for_all_holds_one_model_and_exchanges_no_models_after_gradients():
    waiting = choose("distributed-momentum", Committee(6, 0), gather="all")
    assert (whats(waiting), waiting.exchanges[0].absent) == (["gradient"], 0)
    assert waiting.exchanges[0].quorum(Committee(6, 0)) == 6
    assert whats(choose("guanyu", Committee(6, 0), gather="all")) == ["gradient"]
    assert whats(choose("monna", Committee(6, 0), gather="all")) == ["model"]


def test_who_waits_for_all_is_refused_where_one_may_be_silent():
    message = refusal("distributed-momentum", Committee(51, 16), gather="all")
    assert "who waits for 51 of 51 members waits for ever if f of them are silent" in message
    beyond = choose("distributed-momentum", Committee(51, 24), gather="all", guarded=False)
    assert beyond.exchanges == (Exchange("gradient", "signed-echo", "krum", (1,), 0),)


def test_stragglers_that_are_not_waited_for_cost_members():
    """n−r−2f honest values are kept, of which two members differ in r: n ≥ 2f+2r+1."""
    recipe = choose("redundant", Committee(7, 1), redundancy=2)
    assert [exchange.quorum(Committee(7, 1)) for exchange in recipe.exchanges] == [5, 5]
    assert recipe.exchanges[1].rounds == (2,)  # 2/3, 4/9
    message = refusal("redundant", Committee(6, 1), redundancy=2)
    assert "trimmed-mean over signed-echo needs n ≥ 2f+5: n=6 tolerates f=0; f=1 needs n ≥ 7" in message
    assert "nothing is proven" not in message


def test_who_waits_for_more_than_n_minus_f_may_wait_for_ever():
    assert "who waits for 8 of 9 members waits for ever" in refusal("redundant", Committee(9, 2), redundancy=1)
    assert choose("redundant", Committee(9, 2), redundancy=2) == choose("redundant", Committee(9, 2))


def test_what_is_not_proven_of_fewer_values_is_refused():
    assert "needs f = 0" in refusal("monna", Committee(20, 1), redundancy=2)
    assert "redundancy = 4: of 4 members" in refusal("ce", Committee(4, 1), redundancy=4)
    assert "waits for every member" in refusal("ce", Committee(4, 0), redundancy=1, gather="all")


@pytest.mark.parametrize(("wire", "dtype"), [(None, 1), ("float32", 1), ("bfloat16", 2), ("float16", 3)])
def test_a_recipe_says_what_vectors_are_rounded_to(wire, dtype):
    assert choose("monna", Committee(6, 1), wire=wire).dtype == dtype


def test_what_vectors_cannot_be_rounded_to_is_refused():
    message = refusal("monna", Committee(6, 1), wire="float61")
    assert "wire = 'float61': no such wire. Remedy: did you mean 'float16'?" in message
    assert message.endswith("choose one of float32, bfloat16, float16")


@pytest.mark.parametrize("name", RECIPES)
def test_a_gradient_may_be_stale_where_a_step_is_one_gradient_and_one_exchange_of_models(name):
    committee = Committee(20, 0 if name == "dsgd" else 1)
    if name in ("dsgd", "trimmed", "monna"):
        assert choose(name, committee, staleness=1).staleness == 1
    else:
        message = refusal(name, committee, staleness=1)
        assert message.startswith(f"staleness = 1: {name} ")
        assert "Remedy: leave it out, or choose a recipe of one gradient and one exchange of models" in message
    assert choose(name, committee, staleness=0) == choose(name, committee)


def test_of_local_steps_one_may_be_stale_and_no_more():
    assert "follows 3 gradients a step" in refusal("ce", Committee(4, 1), staleness=1)
    assert "follows 2 gradients a step" in refusal("trimmed", Committee(5, 1), staleness=1, local_steps=2)
    assert choose("ce", Committee(4, 1), staleness=1, local_steps=1).staleness == 1
    assert "exchanges more in a step" in refusal("resam", Committee(4, 0), staleness=1, gather="all")
    assert "staleness = 2" in refusal("trimmed", Committee(5, 1), staleness=2)


def test_what_nodes_do_between_exchanges_can_be_chosen_where_there_is_something_to_choose():
    assert (choose("ce", Committee(4, 1)).local_steps, choose("ce", Committee(4, 1), local_steps=7).local_steps) == (
        3,
        7,
    )
    assert choose("resam", Committee(5, 1), placement="update").placement == "update"
    assert choose("learn", Committee(6, 1)).placement == "update"
    assert "resam exchanges gradients, one a step" in refusal("resam", Committee(5, 1), local_steps=2)
    assert "gather = 'al': no such gather. Remedy: did you mean 'all'?" in refusal("ce", Committee(4, 1), gather="al")
    assert "choose one of worker, update" in refusal("resam", Committee(5, 1), placement="")
    assert "local_steps = 0" in refusal("ce", Committee(4, 1), local_steps=0)
    assert "monna agrees on no direction" in refusal("monna", Committee(6, 1), placement="update")
