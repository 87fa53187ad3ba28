"""One seed, one trace; what a schedule does to links and nodes happens, and nothing else does."""

import os
import subprocess
import sys
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from p2pnode.byzantine.behaviour import Liar
from p2pnode.learning.cohort import Cohort
from p2pnode.learning.local import mix_gathered
from p2pnode.learning.wire import narrow, widen
from p2pnode.node import Arrived, Connected, Finish, Received, Train, Trained
from p2pnode.recipe import WIRES
from p2pnode.simulation import network as simulated
from p2pnode.simulation.checks import Violation
from p2pnode.simulation.learner import Chance, Machine, School
from p2pnode.simulation.network import Bytes, Due, Network, Save
from p2pnode.simulation.scenario import schooling
from p2pnode.simulation.schedule import HEAL_AT
from p2pnode.simulation.sweep import Sweep
from p2pnode.storage.vectors import ARRAYS
from protocols.effects import Broadcast, Hello, Proposal, Send, Stream
from protocols.header import PeerId
from tests.scenarios import network, ran, scenario, use_links, use_schedule

DIGITS = schooling("digits", "dsgd", 3)
ZERO, ONE, TWO, LIAR = map(PeerId, range(4))


def words(seen, source, to):
    """What went over the wire from one member to another, in order of arrival."""
    return [one for one in seen if (one.source, one.to) == (source, to) and source != to]


def messages(seen, source, to):
    return [one for one in words(seen, source, to) if isinstance(one.payload, Received)]


def at_once(monkeypatch, action):
    """A schedule that does this to the network before anything happens."""
    use_schedule(monkeypatch, action)


# One seed, one trace.

TRACED = [
    ("reliable", ("equivocate",), "random", {}),
    ("reliable", ("twins",), "newest-first", {}),
    ("signed-echo", ("forge", "selective"), "swizzle-clog", {"real_signatures": True}),
    ("plain", ("withhold",), "one-way-partition", {}),
    ("trimmed", ("alie", "equivocate"), "crash", {"nodes": 5}),
    ("trimmed", ("twins",), "power-cut", {"nodes": 5, "real_signatures": True}),
    ("monna", ("random",), "isolate-one", {"nodes": 6}),
    ("jungle-rb", ("equivocate",), "newest-first", {"steps": 1}),
    ("jungle-rb", ("nan", "equivocate"), "crash", {"steps": 1}),
]


def digests():
    """Of three runs of each of them."""
    return [
        ran(recipe, attacks, schedule, seed=seed, **chosen)[0].digest.hex()
        for recipe, attacks, schedule, chosen in TRACED
        for seed in (1, 2, 3)
    ]


def test_one_seed_is_one_trace_in_every_process_whatever_its_hashes():
    script = "from tests.p2pnode.simulation.test_network import digests; print('\\n'.join(digests()))"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (0, 4242)
    ]
    expected = digests()  # under a third hash seed
    assert [run.communicate(timeout=120)[0].split() for run in runs] == [expected] * 2
    assert [run.returncode for run in runs] == [0] * 2
    assert len(set(expected)) == len(expected)


def test_a_rerun_is_the_same_and_another_seed_attack_or_schedule_another():
    def traced(attack="equivocate", schedule="random", seed=5):
        return ran("reliable", (attack,), schedule, seed=seed)[0].digest

    assert traced() == traced()
    assert len({traced(), traced(seed=6), traced("withhold"), traced(schedule="starve-one")}) == 4


def test_the_digest_is_of_every_delivery():
    one = network("reliable", ("equivocate",), seed=3)
    after = []
    one._watch = lambda delivery: after.append(one.digest)
    one.run()
    assert len(after) == len(set(after)) == one.deliveries


def test_real_signatures_change_what_is_signed_and_nothing_else():
    ideal, real = (ran("signed-echo", ("selective",), seed=2, real_signatures=real)[1] for real in (False, True))
    assert [(one.time, one.source, one.to, type(one.payload)) for one in ideal] == [
        (one.time, one.source, one.to, type(one.payload)) for one in real
    ]
    assert ideal != real


def test_time_never_goes_back_and_nothing_arrives_before_it_is_sent():
    for schedule in ("random", "newest-first", "crash", "swizzle-clog"):
        _, seen = ran("jungle-rb", ("selective",), schedule, seed=1, steps=1)
        assert all(before.time <= after.time for before, after in pairwise(seen))
        assert all(one.sent_at <= one.time for one in seen)


# Links.


def test_a_link_that_is_severed_loses_what_is_under_way_and_says_at_both_ends_when_it_is_back(monkeypatch):
    def prepare(one):
        one.at(0.5, lambda: one.sever(ZERO, ONE))
        one.at(5.0, lambda: one.connect(ZERO, ONE))

    use_links(monkeypatch)
    at_once(monkeypatch, prepare)
    _, seen = ran("plain")
    for me, peer in ((ZERO, ONE), (ONE, ZERO)):
        assert [one.time for one in seen if one.to == me and one.payload == Connected(peer)] == [0.0, 5.0]
        assert [one.sent_at for one in words(seen, me, peer) if one.payload == Received(me, Hello(0))] == [5.0]
    assert words(seen, ZERO, ONE)[0].time == 6.0
    assert words(seen, ZERO, TWO)[0].time == 1.0


def test_a_severed_link_takes_nothing_and_is_back_when_all_is_healed(monkeypatch):
    use_links(monkeypatch)
    at_once(monkeypatch, lambda one: one.at(0.0, lambda: one.sever(TWO, ZERO)))
    _, seen = ran("trimmed", nodes=4, f=0)
    assert min(one.sent_at for one in words(seen, ZERO, TWO) + words(seen, TWO, ZERO)) == HEAL_AT


def test_what_waits_at_the_end_of_a_severed_link_is_lost_with_it():
    one = network("plain")
    waiting, peer = one._processes[ONE], one._processes[TWO]
    items = [(waiting, source, 0, 0, None, b"", 0.0) for source in (ZERO, TWO)]
    for process in (waiting, peer):
        process.parked, process.congested = {b"d": list(items)}, list(items)
    one.sever(ZERO, ONE)
    assert waiting.parked == {b"d": items[1:]}
    assert waiting.congested == items[1:]
    assert (peer.parked, peer.congested) == ({b"d": items}, items)


def test_what_is_blocked_is_held_back_until_it_is_let_through(monkeypatch):
    def unblock(one):
        one.blocked.clear()
        one.let_through()

    def prepare(one):
        one.blocked.add((ZERO, ONE))
        one.at(10.0, lambda: unblock(one))

    at_once(monkeypatch, prepare)
    use_links(monkeypatch)
    _, seen = ran("plain")
    held = words(seen, ZERO, ONE)
    assert [type(one.payload) for one in held] == [type(one.payload) for one in words(seen, ZERO, TWO)]
    assert {one.time for one in held} == {11.0}
    assert max(one.sent_at for one in held) < 2.0
    assert words(seen, ONE, ZERO)[0].time == 1.0


def test_what_is_still_blocked_is_not_let_through(monkeypatch):
    def prepare(one):
        one.blocked.add((ZERO, ONE))
        one.at(10.0, one.let_through)

    at_once(monkeypatch, prepare)
    use_links(monkeypatch)
    _, seen = ran("plain")
    assert min(one.time for one in words(seen, ZERO, ONE)) == HEAL_AT + 1.0


def test_healing_lets_everything_through_brings_back_every_link_and_starts_every_node(monkeypatch):
    def prepare(one):
        one.blocked.update((a, b) for a, b in product(range(4), repeat=2) if TWO in (a, b))
        one.at(0.1, lambda: one.sever(ZERO, ONE))
        one.at(0.1, lambda: one.doom(LIAR))

    at_once(monkeypatch, prepare)
    for seed in range(5):
        healed, seen = ran("jungle-rb", steps=1, seed=seed)
        assert healed.finished == {0, 1, 2, 3}
        assert min(one.time for one in seen if TWO in (one.source, one.to) and one.source != one.to) >= HEAL_AT
        assert all(process.alive and process.doomed is None for process in healed._processes)
        assert healed.blocked == healed._cut == set()


def lanes(seen):
    """What arrived over each lane, words or vectors from one member to another, in order of arrival."""
    over = {}
    for one in seen:
        if one.source != one.to:
            over.setdefault((one.source, one.to, isinstance(one.payload, Bytes)), []).append(one)
    return over


def blocked_for_a_while(one):
    def unblock():
        one.blocked.clear()
        one.let_through()

    one.at(1.0, lambda: one.blocked.update(product(range(4), range(4))))
    one.at(6.0, unblock)


@pytest.mark.parametrize("disturb", [lambda one: None, blocked_for_a_while])
def test_links_that_keep_order_keep_it_on_each_lane(monkeypatch, disturb):
    at_once(monkeypatch, disturb)
    inversions = {}
    for ordered in (True, False):
        use_links(monkeypatch, lambda random: [random.expovariate(1.0)], ordered=ordered)
        _, seen = ran("jungle-rb", seed=4)
        sent = [[one.sent_at for one in lane if isinstance(one.payload, Received)] for lane in lanes(seen).values()]
        inversions[ordered] = sum(times != sorted(times) for times in sent)
    assert inversions[True] == 0
    assert inversions[False] > 5


def test_a_link_may_double_a_message_which_is_sent_once(monkeypatch):
    use_links(monkeypatch, lambda random: [1.0, 2.0])
    doubled, seen = ran("reliable")
    received = [one for one in seen if isinstance(one.payload, Received)]
    assert len(received) == 2 * doubled.messages
    hellos = [one for one in messages(seen, ZERO, ONE) if isinstance(one.payload.message, Hello)]
    assert [one.time for one in hellos] == [1.0, 2.0]


def test_bytes_wait_on_the_wire_until_their_header_is_known():
    waited = 0
    for seed in range(10):
        _, seen = ran("plain", schedule="random", seed=seed)
        for place, one in enumerate(seen):
            if isinstance(one.payload, Bytes):
                before = [
                    other.payload.message.signed.header.digest
                    for other in seen[:place]
                    if other.to == one.to
                    and isinstance(other.payload, Received)
                    and isinstance(other.payload.message, Proposal)
                ]
                assert one.payload.digest in before
                waited += seen[place - 1].time == one.time
    assert waited > 3


# Nodes.


def performed(one, monkeypatch):
    """(member, effect) of all that is performed from now on."""
    done, perform = [], one._perform

    def note(process, effect):
        done.append((process.member, effect))
        perform(process, effect)

    monkeypatch.setattr(one, "_perform", note)
    return done


def stopped_at(monkeypatch, boundary, step, recipe, **chosen):
    """A run in which member 0 stops so many effects after its vector of this step; its disk and what it performed."""

    def watch(delivery):
        if (delivery.to, type(delivery.payload)) == (ZERO, Trained) and delivery.payload.step == step and not begun:
            one._processes[ZERO].doomed = boundary
            begun.append(len(done))
            one.at(one.now, stopped)

    def stopped():
        process = one._processes[ZERO]
        disk.update(alive=process.alive, durable=dict(process.disk._durable), pending=dict(process.disk._pending))
        disk["first_step"] = process.disk.first_step
        begun.append(len(done))
        one.restart(ZERO)

    begun, disk = [], {}
    one = Network(scenario(recipe, **chosen), 1, watch)
    done = performed(one, monkeypatch)
    one.run()
    return one, disk, done[begun[0] : begun[1]], done[begun[1] :]


@pytest.mark.parametrize("boundary", range(-1, 5))
@pytest.mark.parametrize(("recipe", "chosen"), [("signed-echo", {}), ("reliable", {}), ("trimmed", {"nodes": 5})])
def test_a_node_that_stops_performs_what_comes_before_the_boundary_and_nothing_after(
    monkeypatch, boundary, recipe, chosen
):
    use_links(monkeypatch)
    _, disk, before, after = stopped_at(monkeypatch, boundary, 0, recipe, **chosen)
    kinds = [type(effect) for member, effect in before]
    assert {member for member, _ in before} <= {ZERO}
    assert len(kinds) == min(max(boundary, 0), 3 if recipe == "reliable" else 2)
    assert kinds[:2] == [Stream, Broadcast][: len(kinds)]
    assert not disk["alive"]
    assert ("proposal 0 0 0" in disk["durable"]) == (boundary >= 0)
    assert disk["pending"] == {}
    assert (ZERO, Finish()) in after


@pytest.mark.parametrize("boundary", range(-1, 5))
def test_a_restarted_node_goes_on_from_its_disk(monkeypatch, boundary):
    one, disk, _, after = stopped_at(monkeypatch, boundary, 3, "trimmed", nodes=5, steps=5)
    assert next(effect for member, effect in after if member == ZERO and isinstance(effect, Train)) == Train(3)
    assert disk["first_step"] == 3
    assert one.finished == {0, 1, 2, 3, 4}


def test_what_it_proposed_before_the_crash_it_proposes_again(monkeypatch):
    use_links(monkeypatch)
    _, _, before, after = stopped_at(monkeypatch, 4, 1, "trimmed", nodes=5)
    proposals = [
        effect.message.signed.header.digest
        for member, effect in before + after
        if member == ZERO
        and isinstance(effect, Broadcast)
        and isinstance(effect.message, Proposal)
        and effect.message.slot.step == 1
        and effect.message.slot.sub_round == 0
    ]
    assert len(proposals) == 2
    assert len(set(proposals)) == 1


def test_a_stopped_node_hears_nothing_and_says_nothing(monkeypatch):
    def prepare(one):
        one.at(0.1, lambda: one._stop(one._processes[ZERO]))

    at_once(monkeypatch, prepare)
    for seed in range(3):
        _, seen = ran("signed-echo", seed=seed)
        during = [one for one in seen if 0.1 <= one.time < HEAL_AT]
        assert during
        assert [one for one in during if ZERO in (one.to, one.source)] == []


def test_what_a_stopped_node_asked_for_is_not_for_the_next(monkeypatch):
    def prepare(one):
        one.at(0.001, lambda: (one._stop(one._processes[ZERO]), one.restart(ZERO)))

    at_once(monkeypatch, prepare)
    _, seen = ran("plain")
    asked = [one for one in seen if one.to == ZERO and isinstance(one.payload, Trained)]
    assert [one.sent_at for one in asked] == [0.001]


def test_a_node_is_doomed_at_every_boundary_sooner_or_later():
    boundaries = set()
    for seed in range(40):
        one = network("plain", seed=seed)
        one.doom(ZERO)
        boundaries.add(one._processes[ZERO].doomed)
        assert [process.doomed for process in one._processes[1:]] == [None] * 3
    assert boundaries == set(range(-1, 5))


def test_a_doomed_node_that_had_nothing_to_do_stops_where_it_stands():
    one = network("plain")
    one.doom(ZERO)
    epoch = one._processes[ZERO].epoch
    one.restart(ZERO)
    assert one._processes[ZERO].epoch == epoch + 1
    assert one._processes[ZERO].doomed is None
    one.restart(ZERO)
    assert one._processes[ZERO].epoch == epoch + 1


def test_a_node_that_runs_cannot_be_connected_to_one_that_does_not():
    one = network("plain")
    one._stop(one._processes[ZERO])
    heap = len(one._heap)
    one.connect(ZERO, ONE)
    assert len(one._heap) == heap


# Order.


def test_newest_first_delivers_what_was_sent_last_of_all_that_is_under_way():
    def overtaken(schedule):
        _, seen = ran("reliable", schedule=schedule, seed=2)
        wired = [one for one in seen if isinstance(one.payload, Received)]
        return sum(
            first.sent_at < second.sent_at < first.time
            for place, first in enumerate(wired)
            for second in wired[place + 1 :]
        )

    assert overtaken("newest-first") == 0
    assert overtaken("random") > 20


def test_newest_first_looks_at_no_clock():
    one, order = network("plain", schedule="newest-first"), []
    one.newest_first = True
    for time, name in ((1.0, "oldest"), (0.5, "older"), (9.0, "newest")):
        one.at(time, lambda name=name: order.append(name))
    one.at(float("inf"), lambda: order.append("healed"))
    while one._heap:
        one._next()
    assert order == ["newest", "older", "oldest", "healed"]


# Ends.


def test_a_run_that_cannot_end_is_a_violation_and_no_hang():
    class Chatty:
        def handle(self, event):
            return [Send(event.sender, Hello(0))] if isinstance(event, Received) else self.greet(event)

        def greet(self, event):
            return [Send(event.peer, Hello(0))] if isinstance(event, Connected) else []

    one = network("plain", nodes=2, f=0)
    for process in one._processes:
        process.conversation = Chatty()
    with pytest.raises(Violation, match=r"liveness: no end after \d+ deliveries"):
        one.run()
    assert one.deliveries < 5000


def test_a_run_in_which_somebody_is_stuck_is_a_violation():
    class Mute:
        def handle(self, event):
            return []

    one = network("plain")
    one._processes[ONE].conversation = Mute()
    with pytest.raises(Violation, match=r"liveness: \[1\] did not finish"):
        one.run()


def test_runs_take_a_small_part_of_the_deliveries_that_are_too_many():
    for schedule, attack in product(("crash", "power-cut"), ("forge", "equivocate")):
        for recipe, nodes in (("plain", 4), ("trimmed", 5)):
            one, _ = ran(recipe, (attack,), schedule, seed=1, nodes=nodes)
            assert one.deliveries < simulated.DELIVERIES_MAX_PER_MESSAGE * one._quiet_deliveries() / 10


def test_whoever_uses_bytes_that_it_does_not_hold_breaks_availability(monkeypatch):
    one = network("plain")
    for process in one._processes:
        monkeypatch.setattr(process.vectors, "get", lambda digest: None)
    with pytest.raises(Violation, match="availability: 0 uses bytes that it does not hold"):
        one.run()


# Liars.


def proposals(seen, to):
    """Digests that the liar proposed to a member."""
    received = [one.payload.message for one in messages(seen, LIAR, to)]
    return {message.signed.header.digest for message in received if isinstance(message, Proposal)}


def test_twins_are_two_processes_with_one_name_and_vectors_of_their_own():
    one, seen = ran("plain", ("twins",), seed=1)
    assert [process.member for process in one._processes] == [0, 1, 2, 3, 3]
    first, second = one._processes[3:]
    assert first.disk is not second.disk
    assert len(set().union(*(proposals(seen, peer) for peer in (ZERO, ONE, TWO)))) <= 2


def test_a_peer_of_twins_hears_one_or_the_other_or_both():
    told = set()
    for seed in range(1, 41, 2):  # odd seeds: the broadcast is the liar's
        one, seen = ran("plain", ("twins",), seed=seed)
        mine = [next(iter(process.disk.outbox.values()))[0] for process in one._processes[3:]]
        for peer in (ZERO, ONE, TWO):
            told.add(tuple(digest in proposals(seen, peer) for digest in mine))
    assert told == {(True, False), (False, True), (True, True)}


def test_a_twin_hears_whom_it_speaks_with(monkeypatch):
    use_links(monkeypatch)
    counts = set()
    for seed in range(20):
        _, seen = ran("plain", ("twins",), seed=seed)
        hellos = [one for one in messages(seen, ZERO, LIAR) if isinstance(one.payload.message, Hello)]
        answers = [one for one in messages(seen, LIAR, ZERO) if isinstance(one.payload.message, Hello)]
        assert len(hellos) == len(answers)
        counts.add(len(answers))
    assert counts == {1, 2}


def test_twins_may_lie_besides():
    _, seen = ran("plain", ("twins", "silent"), seed=1)
    assert [one for one in seen if one.source == LIAR != one.to] == []
    liars = network("plain", ("twins", "equivocate"))._processes[3:]
    assert [isinstance(process.conversation, Liar) for process in liars] == [True, True]


def test_honest_nodes_are_unmodified():
    one = network("jungle-rb", ("equivocate",))
    assert [process.conversation is process.node for process in one._processes] == [True, True, True, False]


def test_who_equivocates_before_all_is_convicted_and_nobody_else_is():
    convicted = [frozenset(ran("signed-echo", ("equivocate",), seed=seed)[0].convicted) for seed in range(1, 20, 2)]
    assert set(convicted) <= {frozenset(), frozenset({LIAR})}
    assert convicted.count(frozenset({LIAR})) >= 3


def test_a_single_node_gets_to_the_end():
    alone, seen = ran("dsgd", nodes=1, f=0, steps=5, schedule="crash")
    assert alone.finished == {0}
    assert alone.messages == 0
    assert not [one for one in seen if isinstance(one.payload, Arrived | Bytes)]


def test_models_are_trained_and_judged_where_a_task_is_named():
    assert network("plain").accuracies() == []
    trained, _ = ran("dsgd", nodes=2, f=0, steps=3, train=DIGITS)
    assert len(trained.accuracies()) == 2
    assert all(0.1 < accuracy < 1 for accuracy in trained.accuracies())
    assert trained.length > 100


def test_a_lone_node_trains_each_step_from_the_model_it_adopted_in_the_last():
    alone = Sweep(1, 0, 0, "dsgd", ((),), ("random",), 3, train=DIGITS)
    network = Network(alone.scenario(0), 0)
    network.run()
    by_hand = School(DIGITS, alone.plan(), 0, 1, 0, mix_gathered, Machine()).learner(0)
    for step in range(3):
        by_hand.adopt(step, by_hand.train(step))
    assert network._processes[0].learner.trainer.vector.equal(by_hand.trainer.vector)


def supplying(monkeypatch, supply):
    """All that cohorts are asked for, batch by batch; they answer it if `supply`."""
    batches, answer = [], Cohort.supply

    def asked(self, some, at):
        batches.append([(trainer, step) for trainer, step in some])
        if supply:
            answer(self, some, at)

    monkeypatch.setattr(Cohort, "supply", asked)
    return batches


def test_gradients_that_are_asked_for_meanwhile_are_computed_together_and_make_no_difference(monkeypatch):
    models = []
    for supply in (True, False):
        with monkeypatch.context() as patch:
            batches = supplying(patch, supply)
            trained, seen = ran("dsgd", nodes=5, f=0, steps=4, train=DIGITS, seed=3)
        asked = [one for batch in batches for one in batch]
        assert len(asked) == len(set(asked)) == 5 * 4
        assert len(batches) <= 2 * 4
        assert sum(isinstance(one.payload, Due) for one in seen) == 5 * 4
        models.append(list(trained.models().values()))
    for batched, alone in zip(*models, strict=True):
        assert (batched - alone).abs().max() <= 1e-5 * alone.abs().max()


def test_a_gradient_that_was_asked_for_before_a_jump_is_nobodys():
    one = network("dsgd", nodes=2, f=0, steps=3, train=DIGITS)
    left_behind = one._processes[0]
    one._trained(left_behind, 1)
    assert len(left_behind.vectors) == len(left_behind.disk.outbox) == 0


def test_a_stale_gradient_is_taken_at_what_was_announced_and_followed_from_what_was_agreed_on():
    """By hand: two nodes that agree on the mean of both."""
    stale = {"nodes": 2, "f": 0, "steps": 4, "train": DIGITS}
    one, _ = ran("dsgd", **stale, options=(("staleness", 1),))
    pair = [one.school.trainer(node) for node in range(2)]
    for step in range(4):
        said = [trainer.step(step).numpy() for trainer in pair]
        agreed = torch.from_numpy(mix_gathered("mean", said, 0, 0, None, pytest.fail)[0])
        for trainer, announced in zip(pair, said, strict=True):
            trainer.adopt(agreed)
            trainer.foresee(step + 1, torch.from_numpy(announced))
    fresh, _ = ran("dsgd", **stale)
    for trainer, model, other in zip(pair, one.models().values(), fresh.models().values(), strict=True):
        largest = trainer.vector.abs().max()
        assert (model - trainer.vector).abs().max() <= 1e-5 * largest
        assert (other - trainer.vector).abs().max() >= 1e-3 * largest


def test_stale_gradients_too_are_computed_together_and_each_is_asked_for_once(monkeypatch):
    batches = supplying(monkeypatch, True)
    ran("dsgd", nodes=5, f=0, steps=4, train=DIGITS, seed=3, options=(("staleness", 1),))
    asked = [one for batch in batches for one in batch]
    assert len(asked) == len(set(asked)) == 5 * 4
    assert len(batches) <= 2 * 4


@pytest.mark.parametrize("staleness", [0, 1])
def test_training_goes_on_after_crashes_the_same_way_every_time(staleness):
    for schedule, seed in (("crash", 1), ("power-cut", 2)):
        chosen = {"sub_rounds": 1, "options": (("staleness", staleness),)}
        runs = [
            ran("trimmed", ("alie",), schedule, nodes=5, steps=3, train=DIGITS, seed=seed, **chosen)[0]
            for _ in range(2)
        ]
        assert runs[0].finished == {0, 1, 2, 3}
        assert runs[0].digest == runs[1].digest


def test_a_checkpoint_is_of_the_model_adopted_and_made_only_where_it_is_saved():
    for seed in range(4):
        one = network("dsgd", nodes=2, f=0, steps=3, train=DIGITS, seed=seed)
        saved = []
        one._watch = lambda delivery, saved=saved: saved.append(delivery.payload)
        one.run()
        states = {save.step: save.state is not None for save in saved if isinstance(save, Save)}
        assert states == {step: step % one._saving == 0 for step in (1, 2, 3)}


@pytest.mark.parametrize("wire", ["bfloat16", "float16"])
def test_all_mix_what_was_announced_and_adopt_it_unrounded(monkeypatch, wire):
    """One's own vector too: who mixed the one it rounded would mix another than its peers."""
    mixed, adopted = [], []
    dtype = WIRES[wire]
    mix, adopt = Chance.mix, Chance.adopt
    monkeypatch.setattr(
        Chance, "mix", lambda one, *given: (mixed.append((given[0], given[2], given[3])), mix(one, *given))[1]
    )
    monkeypatch.setattr(Chance, "adopt", lambda one, step, model: (adopted.append(model), adopt(one, step, model)))
    _, seen = ran("monna", seed=2, nodes=6, steps=3, options=(("wire", wire),))
    said = {d.payload.vector.tobytes() for d in seen if isinstance(d.payload, Bytes)}
    assert len(mixed) == len(adopted) == 18
    for _, rows, own in mixed:
        assert rows[own].dtype == ARRAYS[dtype]
        assert {row.tobytes() for row in rows} <= said
    exact = [model for model in adopted if np.array_equal(widen(narrow(model, dtype)), model)]
    assert len(exact) < len(adopted) / 2
    assert {
        d.payload.message.signed.header.dtype
        for d in seen
        if isinstance(d.payload, Received) and isinstance(d.payload.message, Proposal)
    } == {dtype}


@pytest.mark.parametrize("wire", ["bfloat16", "float16"])
@pytest.mark.parametrize("recipe", ["trimmed", "jungle-rb", "monna"])
def test_liars_and_crashes_break_nothing_where_vectors_are_rounded(recipe, wire):
    attacks = ("nan", "inf", "huge", "wrong-length", "equivocate", "stale", "alie", "forge")
    for seed, attack in enumerate(attacks):
        schedule = ("crash", "random")[seed % 2]
        Network(scenario(recipe, (attack,), schedule, nodes=6, options=(("wire", wire),)), seed).run()


def test_honest_models_are_told_as_they_are_adopted():
    told = []
    one = Network(
        scenario("trimmed", ("silent",), nodes=5), 0, adopted=lambda me, steps, model: told.append((me, steps))
    )
    one.run()
    assert sorted(told) == [(member, steps) for member in range(4) for steps in (1, 2)]


def test_bytes_that_are_not_finite_are_known_as_such_to_all_who_receive_them():
    one, seen = ran("trimmed", ("nan",), nodes=5, seed=1)
    vectors = [delivery.payload for delivery in seen if isinstance(delivery.payload, Bytes)]
    assert {payload.finite for payload in vectors} == {True, False}
    assert all(payload.finite == bool(np.isfinite(payload.vector).all()) for payload in vectors)
    lie = next(payload for payload in vectors if not payload.finite)
    one._take(one._processes[0], LIAR, lie)
    assert one._processes[0].vectors.get(lie.digest) is None
