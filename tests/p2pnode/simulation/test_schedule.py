"""Each schedule does what it says, and after all of them every honest node goes on to the end."""

from itertools import product
from random import Random
from statistics import mean

import pytest

from p2pnode.simulation import schedule
from p2pnode.simulation.schedule import DUPLICATES, HEAL_AT, LOSS, RETRANSMIT_S, SCHEDULES, Links
from tests.scenarios import ran, scenario

SEEDS = range(40)


class Recorder:
    """A network that notes what a schedule does to it, and when."""

    def __init__(self, name, seed):
        self.scenario = scenario("reliable", ("silent",), nodes=5)
        self.random = Random(f"{seed}")
        self.newest_first = False
        self.blocked = set()
        self.noted = []
        self.blocked_then = []
        self._due = []
        self._now = 0.0
        SCHEDULES[name](self)
        self.blocked_at_first = set(self.blocked)
        for time, action in sorted(self._due, key=lambda entry: entry[0]):
            self._now = time
            action()
            self.blocked_then.append(set(self.blocked))

    def others(self, me):
        return tuple(peer for peer in self.scenario.committee.members if peer != me)

    def at(self, time, action):
        assert time >= 0
        self._due.append((time, action))

    def __getattr__(self, name):
        assert name in ("sever", "connect", "doom", "restart", "let_through"), name
        return lambda *members: self.noted.append((name, *members, self._now))

    def of(self, name):
        return [entry[1:] for entry in self.noted if entry[0] == name]


def between(group, members=range(5)):
    """The ordered pairs that lead out of a group."""
    return {(a, b) for a, b in product(members, members) if a in group and b not in group}


def group_of(pairs):
    return {a for a, _ in pairs}


# The links.


def links_of(seeds=60):
    return [Links(Random(f"{seed}")) for seed in range(seeds)]


def test_runs_differ_in_whether_links_lose_double_and_keep_order():
    kinds = set()
    for links in links_of():
        delays = [links.delays() for _ in range(300)]
        doubles = any(len(copies) == 2 for copies in delays)
        kinds.add((links.ordered, doubles))
    assert kinds == set(product((True, False), repeat=2))


def test_a_message_takes_one_second_on_average_and_never_arrives_before_it_is_sent():
    for links in links_of(20):
        delays = [copies[0] for copies in (links.delays() for _ in range(3000))]
        assert min(delays) >= 0
        assert 0.8 < mean(delays) < 1.25 + RETRANSMIT_S * LOSS / (1 - LOSS)


def test_what_is_lost_is_sent_again_later_and_nothing_is_lost_for_good():
    class Certain(Random):
        """Draws 1 as delay, and loses twice."""

        draws = iter([LOSS / 2, LOSS / 2, LOSS])

        def choice(self, options):
            return LOSS if 0.0 in options else lambda: 1.0

        def random(self):
            return next(self.draws)

    links = Links.__new__(Links)
    random = Certain()
    links._random, links._draw, links._loss, links._duplicates = random, lambda: 1.0, LOSS, 0.0
    assert links.delays() == [1.0 + 2 * RETRANSMIT_S]


def test_some_links_double_one_message_in_ten():
    counts = [mean(len(links.delays()) for _ in range(2000)) for links in links_of(12)]
    assert all(count == 1 or abs(count - 1 - DUPLICATES) < 0.03 for count in counts)
    assert min(counts) == 1 < max(counts)


# The schedules.


def test_random_does_nothing_but_delay():
    for seed in SEEDS:
        quiet = Recorder("random", seed)
        assert (quiet.noted, quiet.blocked, quiet.blocked_then, quiet.newest_first) == ([], set(), [], False)


def test_newest_first_does_nothing_else():
    strange = Recorder("newest-first", 0)
    assert strange.newest_first
    assert (strange.noted, strange.blocked, strange.blocked_then) == ([], set(), [])


def test_starve_one_keeps_one_honest_member_from_hearing_or_from_being_heard_or_both():
    seen = set()
    for seed in SEEDS:
        starved = Recorder("starve-one", seed)
        assert starved.blocked_then == starved.noted == []
        for victim in starved.scenario.honest:
            to, of = between(set(range(5)) - {victim}), between({victim})
            for ways, pairs in (("to", to), ("from", of), ("both", to | of)):
                if starved.blocked == pairs:
                    seen.add((victim, ways))
    assert {victim for victim, _ in seen} == {0, 1, 2, 3}
    assert {ways for _, ways in seen} == {"to", "from", "both"}


def test_a_partition_passes_nothing_either_way_and_a_one_way_partition_passes_one_way():
    for seed in SEEDS:
        for name, both in (("partition", True), ("one-way-partition", False)):
            parted = Recorder(name, seed)
            assert parted.blocked_at_first == set()
            if both:
                group = {0} | {peer for peer in range(1, 5) if (0, peer) not in parted.blocked}
                assert parted.blocked == between(group) | between(set(range(5)) - group)
            else:
                assert parted.blocked == between(group_of(parted.blocked))
            assert parted.noted == []


def test_partitions_part_every_group_from_the_others_sooner_or_later():
    groups = {frozenset(group_of(Recorder("one-way-partition", seed).blocked)) for seed in range(200)}
    assert len(groups) > 20


def test_swizzle_clog_clogs_members_wholly_until_each_is_unclogged_and_all_are_in_the_end():
    orders = set()
    for seed in SEEDS:
        clogged = Recorder("swizzle-clog", seed)
        assert clogged.blocked_then[-1] == set()
        before = set()
        clogs = []
        unclogs = []
        for pairs in clogged.blocked_then:
            now = {member for member in range(5) if between({member}) <= pairs}
            assert pairs == {(a, b) for a, b in product(range(5), repeat=2) if a != b and {a, b} & now}
            clogs += sorted(now - before)
            unclogs += sorted(before - now)
            before = now
        assert len(clogged.of("let_through")) == len(clogged.blocked_then) // 2
        assert clogged.of("let_through")[-1][0] <= HEAL_AT
        orders.add(clogs == unclogs)
    assert orders == {True, False}


def test_isolate_one_loses_all_links_of_one_honest_member_and_brings_them_back():
    victims = set()
    for seed in SEEDS:
        lonely = Recorder("isolate-one", seed)
        lost, back = lonely.of("sever"), lonely.of("connect")
        victim = lost[0][0]
        assert (
            [entry[:2] for entry in lost]
            == [entry[:2] for entry in back]
            == [(victim, peer) for peer in lonely.others(victim)]
        )
        assert lost[0][2] <= back[0][2] <= HEAL_AT
        victims.add(victim)
    assert victims == {0, 1, 2, 3}


def test_crash_stops_honest_nodes_and_starts_each_again():
    counts = set()
    for seed in SEEDS:
        crashed = Recorder("crash", seed)
        stopped, started = crashed.of("doom"), crashed.of("restart")
        assert sorted(member for member, _ in stopped) == sorted(member for member, _ in started)
        for member, when in stopped:
            assert member in crashed.scenario.honest
            assert when <= HEAL_AT
            assert any(again == member and later >= when for again, later in started)
        counts.add(len(stopped))
    assert counts == {1, 2, 3, 4}


def test_a_power_cut_stops_every_honest_node_at_about_the_same_time():
    for seed in SEEDS:
        dark = Recorder("power-cut", seed)
        stopped, started = dark.of("doom"), dark.of("restart")
        assert sorted(member for member, _ in stopped) == [0, 1, 2, 3] == sorted(member for member, _ in started)
        times = [when for _, when in stopped]
        assert max(times) - min(times) < 1.5
        assert all(dict(started)[member] >= when for member, when in stopped)


@pytest.mark.parametrize("name", ["crash", "power-cut"])
def test_nobody_is_stopped_after_all_is_healed(monkeypatch, name):
    monkeypatch.setattr(schedule, "_sometime", lambda random: HEAL_AT)
    for seed in SEEDS:
        assert {when for _, when in Recorder(name, seed).of("doom")} == {HEAL_AT}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("recipe", "attacks", "chosen"),
    [
        ("reliable", ("equivocate",), {}),
        ("trimmed", ("selective",), {"nodes": 5}),
        ("jungle-rb", ("withhold",), {"steps": 1}),
    ],
)
def test_under_every_schedule_every_honest_node_gets_to_the_end(name, recipe, attacks, chosen):
    for seed in range(0, 6, 2):
        network, _ = ran(recipe, attacks, name, seed=seed, **chosen)
        assert network.finished == set(network.scenario.honest)
