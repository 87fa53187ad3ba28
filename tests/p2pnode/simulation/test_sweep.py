"""Many runs: which, that they come out the same however they are computed, and what is refused."""

import json
import shlex
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from p2pnode import cli
from p2pnode.errors import ConfigError
from p2pnode.simulation import sweep as sweeping
from p2pnode.simulation.schedule import SCHEDULES
from p2pnode.simulation.sweep import ATTACKS_IN_TURN, Broken, Sweep, Tally, draw, run_all, run_one, summary
from tests.scenarios import sweep

BEYOND = Sweep(4, 2, 1, "reliable", ATTACKS_IN_TURN, tuple(SCHEDULES), 2, beyond_the_bound=True)
"""Some of its runs break something."""


def nothing(tally):
    pass


# Which runs.


def test_attacks_and_schedules_come_in_turn_each_with_each():
    seeds = range(len(ATTACKS_IN_TURN) * len(SCHEDULES))
    plans = [BEYOND.scenario(seed) for seed in seeds]
    assert [plan.attacks for plan in plans[: len(ATTACKS_IN_TURN)]] == list(ATTACKS_IN_TURN)
    assert {plan.schedule for plan in plans[: len(ATTACKS_IN_TURN)]} == {next(iter(SCHEDULES))}
    assert len({(plan.attacks, plan.schedule) for plan in plans}) == len(plans)
    assert BEYOND.scenario(len(plans)) == plans[0]


def test_where_nobody_lies_there_is_no_attack():
    assert replace(BEYOND, byzantine=0).scenario(5).attacks == ()


def test_the_attacks_in_turn_are_such_as_can_be_chosen_each_combination_once():
    from p2pnode.byzantine import ATTACKS

    assert {name for attacks in ATTACKS_IN_TURN for name in attacks} <= {*ATTACKS, "twins"}
    assert len(set(ATTACKS_IN_TURN)) == len(ATTACKS_IN_TURN)


# The sum.


def test_two_tallies_add_up():
    one = Tally(1, [], 10, 20, 30, 40, 50, 1.5, 0, 0.9, b"a")
    other = Tally(2, [Broken(7, "found", "command")], 1, 2, 3, 4, 5, 0.25, 1, 0.8, b"bc")
    one.add(other)
    assert one == Tally(3, [Broken(7, "found", "command")], 11, 22, 33, 44, 55, 1.75, 1, 0.8, b"abc")


@pytest.mark.parametrize(("one", "other", "least"), [(None, None, None), (0.5, None, 0.5), (None, 0.5, 0.5)])
def test_the_worst_accuracy_is_of_those_that_there_are(one, other, least):
    tally = Tally(accuracy_min=one)
    tally.add(Tally(accuracy_min=other))
    assert tally.accuracy_min == least


def test_the_trace_digest_is_of_all_traces_in_order():
    assert Tally(digests=b"ab").trace_digest == Tally(digests=b"ab").trace_digest
    assert len({Tally(digests=digests).trace_digest for digests in (b"ab", b"ba", b"a", b"")}) == 4


def test_a_run_is_counted():
    tally = run_one(sweep("reliable", ("silent",)), 0)
    assert (tally.runs, tally.broken, tally.convicted, tally.accuracy_min) == (1, [], 0, None)
    assert 0 < tally.messages < tally.quiet_messages
    assert 0 < tally.sent_bytes < tally.quiet_bytes
    assert tally.deliveries > tally.messages
    assert tally.virtual_seconds >= 30
    assert len(tally.digests) == 16


def test_all_runs_are_added_and_told_of_on_the_way():
    seeds, told = range(3, 8), []
    total = run_all(BEYOND, seeds, lambda tally: told.append(tally.runs))
    expected = Tally()
    for seed in seeds:
        expected.add(run_one(BEYOND, seed))
    assert total == expected
    assert told == [1, 2, 3, 4, 5]


def test_worker_processes_find_the_same_in_the_same_order(monkeypatch):
    seeds, told = range(40, 65), []
    here = Tally()
    for seed in seeds:
        here.add(run_one(BEYOND, seed))
    monkeypatch.setattr(sweeping, "_CHUNK", 2)
    monkeypatch.setattr(sweeping.os, "cpu_count", lambda: 2)
    there = run_all(BEYOND, seeds, lambda tally: told.append(tally.runs))
    assert there == here
    assert there.trace_digest == here.trace_digest
    assert len({one.seed for one in here.broken}) > 1
    assert [one.seed for one in there.broken] == sorted(one.seed for one in there.broken)
    assert told == [*range(2, 25, 2), 25]


# Running one again.


def again(command):
    """What the command tells, by the command line itself."""
    name, *arguments = shlex.split(command)
    assert name == "p2pnode"
    told = CliRunner().invoke(cli.app, [*arguments, "--json"])
    return json.loads(told.stdout)


def test_the_command_of_a_broken_run_runs_it_again():
    broken = run_all(BEYOND, range(20), nothing).broken
    assert len(broken) >= 2
    for one in broken:
        told = again(one.command)
        assert told["trace_digest"] == run_one(BEYOND, one.seed).trace_digest
        assert [(found["seed"], found["found"]) for found in told["broken"]] == [(one.seed, one.found)]
        assert told["broken"][0]["replay"] == one.command


@pytest.mark.parametrize(
    "plan",
    [
        sweep("trimmed", ("alie", "equivocate"), "crash", nodes=7, steps=3, broadcast="plain", sub_rounds=2),
        sweep(
            "trimmed", ("twins",), "newest-first", nodes=7, steps=1, sub_rounds=2, rule="median", real_signatures=True
        ),
        sweep("dsgd", nodes=3, f=0, steps=2, train="digits"),
    ],
)
def test_the_command_of_any_run_repeats_every_choice(plan):
    seed = 17
    assert again(plan.scenario(seed).command(seed))["trace_digest"] == run_one(plan.checked(), seed).trace_digest


def test_a_run_is_drawn_to_its_violation():
    seed = run_all(BEYOND, range(20), nothing).broken[0]
    drawn = draw(BEYOND, seed.seed).splitlines()
    assert drawn[0].split() == ["time", "n0", "n1", "n2", "n3"]
    assert drawn[-1] == seed.found
    assert 2 < len(drawn) <= sweeping.DIAGRAM_DELIVERIES + 2


def test_a_run_that_broke_nothing_is_drawn_to_its_end():
    drawn = draw(sweep("reliable"), 0).splitlines()
    assert drawn[-1] == "every guarantee held"
    assert len(drawn) > 20


# What is refused.


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        ({"schedules": ("crsh",)}, ["schedule = 'crsh'", "choose one of all, random, newest-first"]),
        ({"attacks": (("silnt",),)}, ["attack = 'silnt'", "did you mean 'silent'?", "alie", "twins", "all"]),
        ({"attacks": (("twins", "twin"),)}, ["attack = 'twin'", "or twins"]),
        ({"recipe": "trimed"}, ["recipe = 'trimed'", "did you mean 'trimmed'?"]),
        ({"recipe": "trimmed", "broadcast": "gossip"}, ["broadcast = 'gossip'", "signed-echo"]),
        ({"byzantine": 2}, ["byzantine = 2", "f=1", "choose fewer, or raise f, or add --beyond-the-bound"]),
        ({"byzantine": 4, "f": 4}, ["byzantine = 4", "one at least is honest", "choose fewer"]),
        ({"f": 4}, ["f = 4", "of 4 nodes", "choose a smaller f"]),
        ({"nodes": 2000}, ["nodes = 2000", "at most 1024"]),
        ({"nodes": 3}, ["f = 1", "n ≥ 3f+1", "use n ≥ 4 nodes", "f=0", "--beyond-the-bound"]),
        ({"recipe": "signed-echo", "nodes": 3}, ["signed-echo broadcast needs n ≥ 3f+1"]),
        ({"recipe": "plain", "nodes": 3, "byzantine": 2, "f": 3}, ["f = 3"]),
        ({"recipe": "trimmed"}, ["n ≥ 4f+1", "use n ≥ 5 nodes", "choose f=0"]),
        ({"recipe": "trimmed", "nodes": 5, "sub_rounds": 0}, ["sub-rounds = 0", "from 1 to 64"]),
        ({"recipe": "trimmed", "nodes": 5, "sub_rounds": 65}, ["sub-rounds = 65", "from 1 to 64"]),
        ({"rule": "median"}, ["recipe = 'reliable'", "leave out --rule", "or choose a recipe"]),
        ({"broadcast": "plain"}, ["recipe = 'reliable'", "--broadcast"]),
        ({"sub_rounds": 2}, ["recipe = 'reliable'", "--sub-rounds"]),
    ],
)
def test_a_wrong_choice_is_refused_with_reason_and_remedy(wrong, wanted):
    with pytest.raises(ConfigError) as refused:
        replace(sweep("reliable", ("silent",)), **wrong).checked()
    assert "Remedy: " in str(refused.value)
    for part in wanted:
        assert part in str(refused.value)


def test_beyond_the_bound_what_no_theorem_covers_is_run():
    for recipe, nodes, byzantine in (("reliable", 3, 1), ("trimmed", 4, 1), ("reliable", 4, 2)):
        plan = sweep(recipe, ("silent",), nodes=nodes, byzantine=byzantine, f=1)
        with pytest.raises(ConfigError):
            plan.checked()
        allowed = replace(plan, beyond_the_bound=True)
        assert allowed.checked() is allowed
        assert allowed.scenario(0).beyond_the_bound


def test_what_a_theorem_covers_is_not_refused():
    for recipe, nodes in (("reliable", 4), ("plain", 2), ("signed-echo", 4), ("trimmed", 5), ("jungle-rb", 4)):
        plan = sweep(recipe, ("twins",), nodes=nodes)
        assert plan.checked() is plan


# What is told.


def test_the_summary_tells_all_that_was_counted():
    tally = Tally(3, [Broken(7, "found", "command")], 11, 22, 33, 44, 55, 1.7512345, 1, 0.8, b"abc")
    told = summary(BEYOND, tally, time.monotonic() - 2)
    assert 2 <= told.pop("wall_seconds") < 10
    assert told == {
        "recipe": "reliable",
        "nodes": 4,
        "byzantine": 2,
        "f": 1,
        "runs": 3,
        "violations": 1,
        "deliveries": 11,
        "messages": 22,
        "bytes": 33,
        "quiet_messages": 44,
        "quiet_bytes": 55,
        "virtual_seconds": 1.751,
        "convicted": 1,
        "accuracy_min": 0.8,
        "trace_digest": tally.trace_digest,
        "broken": [{"seed": 7, "found": "found", "replay": "command"}],
    }
