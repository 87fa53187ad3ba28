"""Whole networks under every attack and schedule; `p2pnode simulate` runs the same for as many seeds as one likes."""

import pytest

import p2pnode.simulation.network
from p2pnode.node import Adopt
from p2pnode.simulation.network import Network
from p2pnode.simulation.schedule import SCHEDULES
from p2pnode.simulation.sweep import ATTACKS_IN_TURN, Sweep, run_one
from protocols.header import PeerId

SEEDS = len(ATTACKS_IN_TURN) * len(SCHEDULES)
"""Each attack under each schedule once."""


def sweep(recipe, nodes, f=1, attacks=ATTACKS_IN_TURN, schedules=tuple(SCHEDULES), steps=2, **options):
    options = {"byzantine": f, "f": f, "recipe": recipe, "attacks": attacks, "schedules": schedules} | options
    return Sweep(nodes=nodes, steps=steps, **options)


def broken(one, seeds):
    return [(found.found, found.command) for seed in seeds for found in run_one(one, seed).broken]


@pytest.mark.parametrize(
    "one",
    [
        sweep("signed-echo", 4),
        sweep("reliable", 4),
        sweep("plain", 2),
        sweep("trimmed", 5),
        sweep("trimmed", 6, broadcast="plain"),
        sweep("trimmed", 4, broadcast="reliable"),
        sweep("monna", 6),
        sweep("jungle-rb", 4, sub_rounds=1),
        sweep("jungle-mda", 7, sub_rounds=1, steps=1),
    ],
    ids=lambda one: f"{one.recipe} {one.broadcast or ''} n={one.nodes}",
)
def test_at_the_smallest_committee_every_guarantee_holds_under_every_attack_and_schedule(one):
    assert broken(one.checked(), range(SEEDS)) == []


@pytest.mark.parametrize("recipe", ["signed-echo", "reliable"])
def test_two_liars_break_no_broadcast_of_seven(recipe):
    assert broken(sweep(recipe, 7, f=2), range(SEEDS)) == []


def test_growing_sub_rounds_and_more_steps():
    assert broken(sweep("jungle-rb", 4, steps=4), range(0, SEEDS, 9)) == []


def test_reliable_broadcast_among_400_of_whom_133_are_silent():
    silent = sweep("reliable", 400, f=133, attacks=(("silent",),), schedules=("random",))
    tally = run_one(silent, 0)
    assert tally.broken == []
    assert tally.deliveries > 200_000


# Below the bound.


def first_break(one, seeds):
    return next((seed, found.found) for seed in range(seeds) for found in run_one(one, seed).broken)


@pytest.mark.parametrize(("recipe", "nodes", "f"), [("reliable", 3, 1), ("reliable", 6, 2), ("signed-echo", 3, 1)])
def test_with_a_third_of_liars_a_broadcast_stalls_within_one_seed(recipe, nodes, f):
    seed, found = first_break(sweep(recipe, nodes, f, (("silent",),), beyond_the_bound=True), 1)
    assert (seed, found.split(":")[0]) == (0, "liveness")


def test_with_more_liars_than_f_reliable_broadcast_splits_within_100_seeds():
    one = sweep("reliable", 4, 1, (("equivocate", "selective"),), byzantine=2, beyond_the_bound=True)
    kinds = {found.found.split(":")[0] for seed in range(100) for found in run_one(one, seed).broken}
    assert kinds & {"consistency", "totality"}


# Crashes at every boundary between effects.


@pytest.mark.parametrize("recipe", ["trimmed", "jungle-rb"])
def test_a_node_stopped_before_any_of_its_effects_never_contradicts_itself_and_finishes(recipe):
    nodes = 5 if recipe == "trimmed" else 4
    one = sweep(recipe, nodes, attacks=(("equivocate",),), schedules=("random",), steps=2, sub_rounds=1)
    events = Counting(one.scenario(0), 0)
    events.run()
    for event in range(events.handled):
        Stopping(one.scenario(0), 0, {PeerId(0)}, event).run()


@pytest.mark.parametrize("recipe", ["trimmed", "jungle-rb"])
def test_all_nodes_stopped_at_once_anywhere_go_on(recipe):
    nodes = 5 if recipe == "trimmed" else 4
    one = sweep(recipe, nodes, attacks=(("silent",),), schedules=("random",), steps=2, sub_rounds=1)
    events = Counting(one.scenario(0), 0)
    events.run()
    for event in range(events.handled):
        Stopping(one.scenario(0), 0, set(one.scenario(0).honest), event).run()


class Counting(Network):
    """Counts the events that member 0 handles."""

    handled = 0

    def _handle(self, process, event):
        self.handled += process.member == 0
        super()._handle(process, event)


class Stopping(Counting):
    """Stops members in the midst of the effects of one event of member 0, and starts them again after a while."""

    def __init__(self, scenario, seed, doomed, event):
        super().__init__(scenario, seed)
        self.doomed, self.event = doomed, event

    def _handle(self, process, event):
        if process.member == 0 and self.handled == self.event:
            for member in sorted(self.doomed):
                self.doom(member)
                self.at(self.now + 1.0 + member, lambda member=member: self.restart(member))
        super()._handle(process, event)


def test_who_restarts_alone_far_behind_catches_up_by_taking_part_in_a_later_step(monkeypatch):
    """Member 0 is gone while the others take more steps than they remember."""
    monkeypatch.setattr(p2pnode.simulation.network, "HEAL_AT", 1000.0)
    one = sweep("trimmed", 5, attacks=((),), byzantine=0, schedules=("random",), steps=12)
    network = Away(one.scenario(0), 0)
    network.run()
    assert network.jumps == 1
    assert network.adopted[-1] == 11
    assert len(network.adopted) < 12


class Away(Network):
    """Cuts member 0 off until another one is in step 8."""

    def __init__(self, scenario, seed):
        super().__init__(scenario, seed)
        self.adopted = []
        for peer in self.others(PeerId(0)):
            self.at(0.5, lambda peer=peer: self.sever(PeerId(0), peer))

    def _perform(self, process, effect):
        if isinstance(effect, Adopt) and process.member == 0:
            self.adopted.append(effect.step)
        if isinstance(effect, Adopt) and process.member == 1 and effect.step == 8:
            for peer in self.others(PeerId(0)):
                self.connect(PeerId(0), peer)
        super()._perform(process, effect)
