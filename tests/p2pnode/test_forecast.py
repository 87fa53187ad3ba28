"""Forecasts: the counts are those of a real quiet run, and seconds follow from given figures."""

from dataclasses import replace

import pytest

from p2pnode.errors import ConfigError
from p2pnode.forecast import (
    CARRYING,
    HANDLING,
    ON_A_LINK,
    SETTLING,
    TAKING,
    Calibration,
    Network,
    bits_per_second,
    memory,
    seconds_apart,
    seconds_here,
    tally,
    tolerated,
)
from p2pnode.recipe import choose
from p2pnode.simulation.cost import of_step
from p2pnode.simulation.scenario import Scenario
from protocols.committee import Committee

FREE = Calibration(
    gradient=0.0,
    mixing={("trimmed-mean", 4): 0.0, ("mean", 5): 0.0},
    signing=0.0,
    checking=0.0,
    hashing=0.0,
    carrying=0.0,
    word=0.0,
    flushing=0.0,
    flush_wait=0.0,
    evaluation=0.0,
    cores=2.0,
)
"""A machine that takes no time."""


def network(name="trimmed", n=5, f=1, steps=100, evaluations=20, **chosen):
    committee = Committee(n, f)
    return Network(committee, choose(name, committee, **chosen), 1000, steps, evaluations)


def test_a_node_does_what_the_documented_formulas_say():
    did = tally(network())
    assert (did.words, did.vectors, did.signed, did.flushes) == (3 * 4, 4 * 4 * 1000, 3, 3)
    assert did.checked == 4 * (1 + 1)
    by_itself = of_step(Scenario(5, 0, 1, network().recipe, (), (), "", 100), 1000, 99).bytes // 5
    assert did.bytes == by_itself + 4 * 4 * 3 * 32, "in 4 echoes, and in 3 of each certificate, the names of 3"
    plain = tally(network("dsgd", f=0))
    assert (plain.words, plain.signed, plain.checked, plain.flushes) == (4, 1, 4, 1)
    many = tally(network("trimmed", n=16, f=3))
    assert (many.signed, many.checked, many.flushes) == (1 + 2 + 3, 15 * 3, 1 + 1 + 3)
    one_by_one = tally(network("trimmed", n=300, f=60))
    assert (one_by_one.signed, one_by_one.checked, one_by_one.flushes) == (300, 299 * (1 + 239), 300)
    by_itself = of_step(Scenario(300, 0, 60, network("trimmed", n=300, f=60).recipe, (), (), "", 100), 1000, 99)
    assert one_by_one.bytes == by_itself.bytes // 300


def test_half_as_wide_vectors_are_half_the_bytes_on_the_wire_alone():
    assert tally(network(wire="bfloat16")).vectors == 2 * 4 * 1000
    assert memory(network(wire="bfloat16")) == memory(network())


def test_memory_is_the_documented_number_of_vectors():
    assert memory(network()) == (4000 * (5 + 4), 4000 * (2 * 5 + 3))
    assert memory(network(broadcast="reliable")) == memory(network())


@pytest.mark.parametrize(
    ("piece", "each"),
    [
        ({"gradient": 1.0}, 1.0),
        ({"mixing": {("trimmed-mean", 4): 1.0}}, 1.0),
        ({"signing": 1.0}, 3.0),
        ({"checking": 1.0}, 8.0),
        ({"hashing": 1.0}, 5 * 4000.0),
        ({"carrying": 1.0}, CARRYING * 4 * 4000.0),
        ({"flushing": 1.0}, 3.0),
        ({"word": 1.0}, HANDLING * 12 + TAKING * 4 + SETTLING),
        ({"evaluation": 1.0}, 20 / 100),
    ],
)
def test_all_nodes_share_the_cores_of_one_machine(piece, each):
    assert seconds_here(network(), replace(FREE, **piece)) == pytest.approx(5 * each / 2)


def test_more_cores_than_nodes_do_not_take_one_nodes_way_away():
    machine = replace(FREE, gradient=1.0, flush_wait=0.5, cores=64.0)
    assert seconds_here(network(), machine) == pytest.approx(1.0 + 2 * 0.5)


def test_apart_the_wire_counts_where_it_is_slower_than_the_exchange_and_after_the_gradient():
    on_the_wire = ON_A_LINK * 8 * tally(network()).bytes
    machine = replace(FREE, gradient=1.0, signing=0.5)
    assert seconds_apart(network(), machine, on_the_wire / 10) == pytest.approx(1.0 + 10.0)
    assert seconds_apart(network(), machine, on_the_wire / 0.1) == pytest.approx(1.0 + 3 * 0.5)
    stale = network(staleness=1)
    assert seconds_apart(stale, machine, on_the_wire / 10) == pytest.approx(10.0)


def test_the_theorem_of_each_exchange_is_named():
    (one,) = tolerated(network(n=9))
    assert (one["needs"], one["tolerates"]) == ("n ≥ 4f+1", 2)
    assert "2008.00742" in one["source"]
    (none,) = tolerated(network("dsgd", f=0))
    assert (none["needs"], none["tolerates"]) == ("f = 0", 0)
    assert len(tolerated(network("guanyu", n=9))) == 3


def test_a_link_has_a_rate():
    assert bits_per_second("1Gbit") == 1e9
    assert bits_per_second("2.5Mbit") == 2.5e6
    for wrong in ("1", "0Mbit", "1GB", "-1Mbit"):
        with pytest.raises(ConfigError, match="Remedy: write 100Mbit or 1Gbit"):
            bits_per_second(wrong)
