"""The formulas of a quiet run's cost against the runs themselves."""

import pytest

from p2pnode.simulation.cost import quiet
from p2pnode.simulation.learner import LENGTH
from p2pnode.simulation.network import Network
from tests.scenarios import scenario, use_links

CASES = [
    ("plain", 4),
    ("signed-echo", 4),
    ("reliable", 4),
    ("dsgd", 3),
    ("trimmed", 5),
    ("monna", 6),
    ("jungle-rb", 4),
    ("jungle-rb", 5),
    ("jungle-mda", 7),
]


def cost(recipe, nodes, seed=0, **chosen):
    """(formula, messages and bytes of a run)"""
    f = 0 if recipe == "dsgd" else 1
    plan = scenario(recipe, nodes=nodes, f=f, steps=3, **chosen)
    network = Network(plan, seed)
    network.run()
    return quiet(plan, network.length), network.messages, network.bytes


@pytest.mark.parametrize("delays", [lambda random: [1.0], lambda random: [random.uniform(0.0, 1.0)]])
@pytest.mark.parametrize(("recipe", "nodes"), CASES)
def test_where_links_are_alike_a_run_costs_what_the_formula_says(monkeypatch, delays, recipe, nodes):
    use_links(monkeypatch, delays)
    formula, messages, sent = cost(recipe, nodes)
    assert messages == formula.messages
    assert sent == pytest.approx(formula.bytes, rel=0.001)


@pytest.mark.parametrize("wire", ["bfloat16", "float16"])
def test_of_two_bytes_a_number_half_the_bytes_of_vectors_go_over_the_links(monkeypatch, wire):
    use_links(monkeypatch)
    whole, half = cost("trimmed", 5), cost("trimmed", 5, options=(("wire", wire),))
    assert half[1] == whole[1]
    assert half[2] == pytest.approx(half[0].bytes, rel=0.001)
    vectors = 3 * 5 * 4  # steps, ordered pairs
    assert whole[2] - half[2] == whole[0].bytes - half[0].bytes == vectors * 2 * LENGTH


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("recipe", "nodes"), [("trimmed", 5), ("jungle-rb", 4)])
def test_where_delays_differ_who_is_slow_leaves_out_a_few_echoes(monkeypatch, recipe, nodes, seed):
    use_links(monkeypatch, lambda random: [random.expovariate(1.0)])
    formula, messages, sent = cost(recipe, nodes, seed)
    assert messages == pytest.approx(formula.messages, rel=0.02)
    assert sent == pytest.approx(formula.bytes, rel=0.02)


def test_the_formula_by_hand():
    """n=4 by reliable broadcast: 12 hellos; 3 proposals, 12 echoes, 12 readies; 3 vectors of 3 float32."""
    counted = quiet(scenario("reliable"), 3)
    assert counted.messages == 12 + 3 + 12 + 12
    assert quiet(scenario("reliable"), 103).bytes - counted.bytes == 3 * 400
    assert quiet(scenario("signed-echo"), 3).messages == 12 + 3 + 3 + 3
    assert quiet(scenario("plain"), 3).messages == 12 + 3
    assert quiet(scenario("trimmed", nodes=5, steps=6), 3).messages == 20 + 6 * 5 * 3 * 4
