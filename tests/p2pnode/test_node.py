"""One node, event by event; what whole networks of them guarantee is the simulator's to check."""

import pytest

import p2pnode.node
from p2pnode.node import (
    Adopt,
    Arrived,
    Connected,
    Descend,
    Descended,
    Differentiate,
    Differentiated,
    Finish,
    Jump,
    Mixed,
    Node,
    Received,
    Release,
    Started,
    Train,
    Trained,
    Unusable,
)
from p2pnode.recipe import Exchange, Recipe
from protocols.effects import Accuse, Broadcast, Evidence, Expect, Hello, Mix, Proposal, Send, Stream
from protocols.faults import Fault
from protocols.header import Slot
from tests.ideal import certificate, digest, echo, party, proof, ready, report, signed


def recipe(*rounds, gradients=0, kind="signed-echo"):
    """Exchanges of these sub-rounds, or of these as they grow; the first so many are of gradients."""
    return Recipe(
        "test",
        tuple(
            Exchange(
                "gradient" if number < gradients else "model",
                kind,
                "trimmed-mean",
                each if isinstance(each, tuple) else (each,),
            )
            for number, each in enumerate(rounds)
        ),
    )


def node(steps=8, me=0, rounds=(1,), gradients=0, kind="signed-echo", **options):
    started = Node(party(me), recipe(*rounds, gradients=gradients, kind=kind), steps, **options)
    started.handle(Started())
    return started


def tell(listener, *signed_headers):
    """Certified vectors of others come, with their bytes."""
    out = []
    for one in signed_headers:
        out += listener.handle(Received(one.header.origin, certificate(one, [1, 2, 3])))
        out += listener.handle(Arrived(one.header.digest))
    return out


def at(step, origin, sub_round=0):
    return signed(origin, digest(origin, step, sub_round), Slot(step, 0, sub_round))


def take_step(walker, step):
    """All of a step in which others 1 and 2 are certified."""
    walker.handle(Trained(step, digest(0, step, 0)))
    tell(walker, at(step, 1), at(step, 2))
    return walker.handle(Mixed(Slot(step), digest("mixed", step)))


def tell_reliably(listener, step, witnesses=(1, 2)):
    """The vectors of 1 and 2 are delivered by reliable broadcast, and these are witnesses of it."""
    out = []
    for one in (at(step, 1), at(step, 2)):
        out += listener.handle(Received(one.header.origin, Proposal(one)))
        out += listener.handle(Arrived(one.header.digest))
        for peer in (1, 2, 3):
            out += listener.handle(Received(peer, ready(one)))
    for peer in witnesses:
        out += listener.handle(Received(peer, report(0, 1, 2, slot=Slot(step))))
    return out


def mix_of(effects):
    [mix] = [effect for effect in effects if isinstance(effect, Mix)]
    return mix


# Long messages.


@pytest.mark.parametrize("slot", [Slot(0), Slot(7)], ids=["now", "later"])
def test_what_names_more_members_than_there_are_is_its_senders_fault_and_does_not_wait(slot):
    listener = node(kind="reliable")
    one = signed(3, digest("a"), slot)
    for word in (certificate(one, [0, 1, 2, 0, 1]), report(0, 1, 2, 3, 1023, slot=slot)):
        assert listener.handle(Received(3, word)) in ([Accuse(3, Fault.MALFORMED)], [])
    assert listener.footprint[1] == 0
    listener.handle(Received(3, certificate(one, [0, 1, 2, 3])))
    assert listener.footprint[1] == (slot != Slot(0))


def test_a_long_message_that_waits_counts_as_several(monkeypatch):
    monkeypatch.setattr(p2pnode.node, "_PARTS_OF_ONE", 2)
    listener = node()
    for step in (3, 4, 5):
        listener.handle(Received(3, certificate(signed(3, digest(step), Slot(step)), [0, 1, 2])))
    assert listener.footprint[1] == 3 * 2
    monkeypatch.setattr(p2pnode.node, "DEFERRED_MAX", 6)
    assert listener.congested(3)


# Evidence.


def test_who_finds_a_proof_accuses_and_tells_all_of_it_and_whoever_connects_later():
    finder = node()
    one, other = signed(3, digest("one")), signed(3, digest("other"))
    found = proof(one, other)
    finder.handle(Received(3, Proposal(one)))
    told = [Accuse(3, Fault.EQUIVOCATED, found), Broadcast(Evidence(found))]
    assert finder.handle(Received(3, Proposal(other))) == told
    assert finder.handle(Connected(1))[:2] == [Send(1, Hello(0)), Send(1, Evidence(found))]
    again = [signed(3, digest(value), Slot(0, 0, 0)) for value in ("one", "third")]
    assert finder.handle(Received(1, Evidence(proof(*again)))) == []
    elsewhere = [signed(3, digest(value), Slot(1)) for value in ("one", "other")]
    finder.handle(Received(3, Proposal(elsewhere[0])))
    assert finder.handle(Received(3, Proposal(elsewhere[1]))) == [Accuse(3, Fault.EQUIVOCATED, proof(*elsewhere))]


def test_who_is_shown_a_proof_passes_it_on_though_the_slot_is_long_over_or_there_is_none():
    found = proof(*(signed(3, digest(value), Slot(10**9)) for value in ("one", "other")))
    shown = node()
    assert shown.handle(Received(1, Evidence(found))) == [
        Accuse(3, Fault.EQUIVOCATED, found),
        Broadcast(Evidence(found)),
    ]
    assert node(convicted={3: found}).handle(Received(1, Evidence(found))) == []
    assert node(convicted={3: found}).handle(Connected(2)) == [Send(2, Hello(0)), Send(2, Evidence(found))]


# A step.


def test_a_step_is_train_broadcast_gather_mix_adopt():
    walker = Node(party(0), recipe(1), steps=1)
    own, others = at(0, 0), [at(0, 1), at(0, 2)]
    assert walker.handle(Started()) == [Train(0)]
    assert (walker.waits_for, walker.entered, set(walker.here(Slot(0)))) == ((), False, set())
    assert walker.handle(Trained(0, own.header.digest)) == [Stream(own.header), Broadcast(Proposal(own))]
    assert (walker.waits_for, walker.entered, set(walker.here(Slot(0)))) == ((1, 2, 3), True, {0})
    mix = tell(walker, *others)[-1]
    assert isinstance(mix, Mix)
    assert [member for member, _ in mix.gathered.values] == [0, 1, 2]
    assert (walker.waits_for, set(walker.here(Slot(0)))) == ((), {0, 1, 2})
    tell(walker, at(0, 3))
    assert set(walker.here(Slot(0))) == {0, 1, 2, 3}, "who comes when enough are here is not overlooked"
    mixed = digest("mixed")
    assert walker.handle(Mixed(Slot(0), mixed)) == [Adopt(0, mixed), Release(Slot(0), Slot(0)), Finish()]
    assert walker.finished


def test_the_outcome_of_an_exchange_is_the_value_of_the_next():
    walker = node(steps=2, rounds=(1, 1))
    walker.handle(Trained(0, digest(0, 0, 0)))
    tell(walker, at(0, 1), at(0, 2))
    mixed = digest("mixed")
    out = walker.handle(Mixed(Slot(0), mixed))
    again = signed(0, mixed, Slot(0, 1))
    assert out == [Release(Slot(0), Slot(0)), Stream(again.header), Broadcast(Proposal(again))]
    tell(walker, *(signed(member, digest(member), Slot(0, 1)) for member in (1, 2)))
    assert walker.handle(Mixed(Slot(0, 1), mixed))[-1] == Train(1)


def test_a_mixture_is_the_value_of_the_next_sub_round():
    walker = node(rounds=(2,))
    walker.handle(Trained(0, digest(0, 0, 0)))
    tell(walker, at(0, 1), at(0, 2))
    mixed = signed(0, digest("mixed"), Slot(0, 0, 1))
    assert walker.entered
    out = walker.handle(Mixed(Slot(0), digest("mixed")))
    assert out == [Release(Slot(0), Slot(0)), Stream(mixed.header), Broadcast(Proposal(mixed))]
    assert (walker.entered, set(walker.here(Slot(0, 0, 1)))) == (True, {0})


def test_what_a_gradient_exchange_agreed_on_is_descended_along_and_the_model_is_proposed_next():
    walker = node(steps=2, rounds=(1, 1), gradients=1)
    walker.handle(Trained(0, digest(0, 0, 0)))
    assert mix_of(tell(walker, at(0, 1), at(0, 2))).into is None
    direction, model = digest("direction"), signed(0, digest("model"), Slot(0, 1))
    assert walker.handle(Mixed(Slot(0), direction)) == [Descend(Slot(0), direction, into=Slot(0, 1))]
    assert (walker.position, walker.waits_for) == (Slot(0), ())
    out = walker.handle(Descended(Slot(0), model.header.digest))
    assert out == [Release(Slot(0), Slot(0)), Stream(model.header), Broadcast(Proposal(model))]
    tell(walker, *(signed(member, digest(member), Slot(0, 1)) for member in (1, 2)))
    agreed = digest("agreed")
    out = walker.handle(Mixed(Slot(0, 1), agreed))
    assert out == [Adopt(0, agreed), Release(Slot(0, 1), Slot(0)), Train(1)]


def test_after_a_last_exchange_of_gradients_the_model_that_was_descended_to_is_adopted():
    walker = node(steps=2, gradients=1)
    walker.handle(Trained(0, digest(0, 0, 0)))
    tell(walker, at(0, 1), at(0, 2))
    assert walker.handle(Mixed(Slot(0), digest("direction"))) == [Descend(Slot(0), digest("direction"), into=None)]
    out = walker.handle(Descended(Slot(0), digest("model")))
    assert out == [Adopt(0, digest("model")), Release(Slot(0), Slot(0)), Train(1)]


def test_after_an_exchange_of_parameters_the_gradient_is_taken_at_its_outcome():
    exchanges = [Exchange(what, "signed-echo", "median", (1,)) for what in ("parameters", "gradient")]
    walker = Node(party(), Recipe("test", tuple(exchanges)), 2)
    assert walker.handle(Started()) == [Train(0)]
    walker.handle(Trained(0, digest(0, 0, 0)))
    assert mix_of(tell(walker, at(0, 1), at(0, 2))).into is None, "the outcome is not proposed as it is"
    middle = digest("middle")
    assert walker.handle(Mixed(Slot(0), middle)) == [Differentiate(Slot(0), middle, into=Slot(0, 1))]
    gradient = signed(0, digest("gradient"), Slot(0, 1))
    out = walker.handle(Differentiated(Slot(0), gradient.header.digest))
    assert out == [Release(Slot(0), Slot(0)), Stream(gradient.header), Broadcast(Proposal(gradient))]
    assert walker.handle(Differentiated(Slot(0), gradient.header.digest)) == []
    tell(walker, *(signed(member, digest(member), Slot(0, 1)) for member in (1, 2)))
    direction = digest("direction")
    assert walker.handle(Mixed(Slot(0, 1), direction)) == [Descend(Slot(0, 1), direction, into=None)]
    assert Adopt(0, digest("model")) in walker.handle(Descended(Slot(0, 1), digest("model")))


@pytest.mark.parametrize(("absent", "needed"), [(0, 3), (1, 2), (2, 1), (None, 2)])
def test_as_many_are_waited_for_as_the_exchange_says(absent, needed):
    walker = Node(party(), Recipe("test", (Exchange("model", "signed-echo", "median", (1,), absent),)), 2)
    walker.handle(Started())
    walker.handle(Trained(0, digest(0, 0, 0)))
    for heard, member in enumerate((1, 2, 3), start=1):
        mixes = [effect for effect in tell(walker, at(0, member)) if isinstance(effect, Mix)]
        assert len(mixes) == (heard == needed)


def test_a_descent_is_taken_up_once():
    walker = node(steps=2, rounds=(1, 1), gradients=1)
    assert walker.handle(Descended(Slot(0), digest("model"))) == []
    walker.handle(Trained(0, digest(0, 0, 0)))
    tell(walker, at(0, 1), at(0, 2))
    assert walker.handle(Descended(Slot(0), digest("model"))) == []
    walker.handle(Mixed(Slot(0), digest("direction")))
    assert walker.handle(Descended(Slot(0), digest("model")))
    assert walker.handle(Descended(Slot(0), digest("model"))) == []
    assert walker.handle(Descended(Slot(0, 1), digest("model"))) == []


@pytest.mark.parametrize(
    ("gradients", "into"),
    [
        (0, [Slot(0, 0, 1), Slot(0, 1), Slot(0, 1, 1), None]),
        (1, [Slot(0, 0, 1), None, Slot(0, 1, 1), None]),
    ],
)
def test_a_mixture_is_asked_for_with_the_slot_that_it_will_be_proposed_in(gradients, into):
    walker = node(rounds=(2, 2), gradients=gradients)
    walker.handle(Trained(0, digest(0, 0, 0)))
    for slot, wanted in zip([Slot(0), Slot(0, 0, 1), Slot(0, 1), Slot(0, 1, 1)], into, strict=True):
        mix = mix_of(tell(walker, *(signed(member, digest(member, slot), slot) for member in (1, 2))))
        assert (mix.gathered.slot, mix.into) == (slot, wanted)
        walker.handle(Mixed(slot, digest("mixed", slot)))
        if walker.working:
            walker.handle(Descended(slot, digest("model", slot)))
    assert walker.position == Slot(1)


def test_sub_rounds_grow_with_the_step():
    walker = node(steps=4, rounds=((1, 2), 1))
    passed, horizons = [], []
    while not walker.finished:
        slot = walker.position
        passed.append(slot)
        if slot == Slot(slot.step):
            walker.handle(Trained(slot.step, digest(0, slot)))
        tell(walker, *(signed(member, digest(member, slot), slot) for member in (1, 2)))
        horizons.append(walker.horizon)
        walker.handle(Mixed(slot, digest("mixed", slot)))
    # AVG_1 for steps 0 and 1, AVG_2 from step 2.
    assert passed == [
        *(Slot(0), Slot(0, 1)),
        *(Slot(1), Slot(1, 1)),
        *(Slot(2), Slot(2, 0, 1), Slot(2, 1)),
        *(Slot(3), Slot(3, 0, 1), Slot(3, 1)),
    ]
    assert horizons == [*passed[1:], Slot(4)], "one slot beyond is talked about"


# What is said of other slots.


def test_words_about_later_slots_wait_and_hold_up_nothing_else_that_the_peer_says():
    slow = node()
    slow.handle(Trained(0, digest(0, 0, 0)))
    own = at(0, 0)
    for step in (2, 5, 3):
        assert slow.handle(Received(1, Proposal(at(step, 1)))) == []
    slow.handle(Received(2, echo(2, own)))
    assert slow.handle(Received(1, echo(1, own)))[0] == Broadcast(certificate(own, [0, 1, 2]))


def test_two_slow_nodes_get_each_others_echoes_from_behind_the_words_of_one_that_is_far_ahead():
    # 0 and 1 are in step 0; 2 is far ahead, and what it says of later steps comes before its echoes of step 0.
    slow = {me: node(me=me) for me in (0, 1)}
    proposals = {me: at(0, me) for me in slow}
    for me, one in slow.items():
        one.handle(Trained(0, digest(me, 0, 0)))
        for step in range(2, 8):
            one.handle(Received(2, Proposal(at(step, 2))))
        tell(one, at(0, 2))
    for me, one in slow.items():
        one.handle(Received(1 - me, echo(1 - me, proposals[me])))
        certified = one.handle(Received(2, echo(2, proposals[me])))[0]
        assert certified == Broadcast(certificate(proposals[me], [0, 1, 2]))
        other = slow[1 - me]
        other.handle(Received(me, Proposal(proposals[me])))
        out = other.handle(Arrived(proposals[me].header.digest))
        out += other.handle(Received(me, certified.message))
        assert any(isinstance(effect, Mix) for effect in out)


def test_what_waited_is_heard_when_its_slot_comes():
    slow, later = node(), at(3, 1)
    slow.handle(Received(1, Proposal(later)))
    assert Expect(later.header) not in take_step(slow, 0)
    assert Expect(later.header) in take_step(slow, 1)


@pytest.mark.parametrize(
    ("rounds", "slot"),
    [
        ((1,), Slot(8)),
        ((1,), Slot(2**63 - 1)),
        ((1,), Slot(0, 1)),
        ((1,), Slot(0, 0, 1)),
        ((1,), Slot(3, 255, 65535)),
        (((1, 2, 4),), Slot(1, 0, 1)),
        (((1, 2, 4),), Slot(2, 0, 2)),
        (((1, 2, 4),), Slot(7, 0, 4)),
        (((1, 2), 1), Slot(7, 1, 1)),
    ],
)
def test_slots_that_the_recipe_does_not_have_are_out_of_turn_and_said_once(rounds, slot):
    listener = node(steps=8, rounds=rounds)
    assert not listener.exists(slot)
    stray = Received(2, Proposal(signed(2, digest("a"), slot)))
    assert listener.handle(stray) == [Accuse(2, Fault.OUT_OF_TURN)]
    assert listener.handle(stray) == []
    assert not listener.congested(2)


@pytest.mark.parametrize("slot", [Slot(0), Slot(1), Slot(2, 0, 1), Slot(4, 0, 3), Slot(7, 0, 3), Slot(7, 1)])
def test_slots_that_growing_rounds_bring_are_waited_for(slot):
    listener = node(steps=8, rounds=((1, 2, 4), 1))
    assert listener.exists(slot)
    assert not any(
        isinstance(effect, Accuse) for effect in listener.handle(Received(2, Proposal(signed(2, digest("a"), slot))))
    )


def test_a_peer_is_congested_while_too_much_of_it_waits(monkeypatch):
    monkeypatch.setattr(p2pnode.node, "DEFERRED_MAX", 2)
    slow = node()
    slow.handle(Received(1, Proposal(at(2, 1))))
    assert not slow.congested(1)
    slow.handle(Received(1, Proposal(at(3, 1))))
    assert slow.congested(1)
    assert not slow.congested(2)
    take_step(slow, 0)
    assert not slow.congested(1)


def test_memory_is_bounded_over_many_steps():
    walker = node(steps=100, retained=3)
    for step in range(100):
        out = take_step(walker, step)
        released = next(effect for effect in out if isinstance(effect, Release))
        assert released == Release(Slot(step), Slot(max(0, step - 2)))
        assert walker.footprint[0] <= 5
    assert out[-1] == Finish()


def test_the_footprint_counts_agreements_and_the_most_words_that_wait_for_one_peer():
    slow = node()
    assert slow.footprint == (0, 0)
    slow.handle(Trained(0, digest(0, 0, 0)))
    assert slow.footprint == (1, 0)
    for step, peer in ((2, 1), (3, 2), (5, 1)):
        slow.handle(Received(peer, Proposal(at(step, peer))))
    assert slow.footprint == (1, 2)
    slow.handle(Received(1, Proposal(at(1, 1))))
    assert slow.footprint == (2, 2)


def test_of_a_total_broadcast_others_vectors_are_kept_for_as_long_as_ones_own():
    """Whoever is slow may need anyone's bytes from us."""
    walker = node(steps=9, kind="reliable", retained=2)
    for step in range(5):
        walker.handle(Trained(step, digest(0, step, 0)))
        assert [member for member, _ in mix_of(tell_reliably(walker, step)).gathered.values] == [0, 1, 2]
        out = walker.handle(Mixed(Slot(step), digest("mixed", step)))
        oldest = Slot(max(0, step - 1))
        assert [effect for effect in out if isinstance(effect, Release)] == [Release(oldest, oldest)]


def test_over_a_total_broadcast_one_waits_for_witnesses():
    walker = node(kind="reliable")
    walker.handle(Trained(0, digest(0, 0, 0)))
    assert walker.waits_for == (1, 2, 3)
    walker.handle(Received(1, report(0, 1, 2)))
    walker.handle(Received(2, report(0, 1, 3)))
    tell_reliably(walker, 0, witnesses=())
    assert walker.waits_for == (2, 3), "1 is a witness; of 2, who has the vector of 3, it is not known"


def test_the_last_steps_are_answered_and_what_is_older_is_not():
    walker = node(retained=2)
    for step in range(4):
        take_step(walker, step)
    slow = at(2, 3)
    walker.handle(Received(3, Proposal(slow)))
    assert walker.handle(Arrived(slow.header.digest)) == [Send(3, echo(0, slow))]
    assert walker.handle(Received(3, Proposal(at(1, 3)))) == []


def test_who_connects_is_told_since_when_and_then_everything_again():
    walker = node(retained=1)
    assert walker.handle(Connected(3)) == [Send(3, Hello(0))]
    for step in range(3):
        take_step(walker, step)
    greeting, *again = walker.handle(Connected(3))
    assert greeting == Send(3, Hello(2))
    assert again == [Stream(at(2, 0).header, 3), Send(3, Proposal(at(2, 0)))]


def test_last_words_of_a_forgotten_step_show_what_was_never_certified():
    walker = node(retained=1)
    walker.handle(Received(3, Proposal(at(0, 3))))
    take_step(walker, 0)
    assert [effect.message.signed for effect in take_step(walker, 1) if isinstance(effect, Broadcast)] == [at(0, 3)]


# Left behind.


def leave_behind(behind):
    """Peers are at step 10 and beyond, and what is told from step 9 on is not all that is needed."""
    assert behind.handle(Received(1, Hello(9))) == []
    assert behind.handle(Received(1, Proposal(at(12, 1)))) == []
    return behind.handle(Received(2, Proposal(at(10, 2))))


def test_who_is_left_behind_goes_where_f_plus_1_peers_are_and_takes_part():
    behind = node(steps=20)
    out = leave_behind(behind)
    assert out == [Jump(10), Release(Slot(10), Slot(9)), Train(10), Expect(at(10, 2).header)]
    assert behind.position == Slot(10)
    own = signed(0, digest("stale"), Slot(10))
    assert behind.handle(Trained(10, digest("stale"))) == [Stream(own.header), Broadcast(Proposal(own))]
    mix = mix_of(tell(behind, at(10, 2), at(10, 3)))
    assert [member for member, _ in mix.gathered.values] == [0, 2, 3]
    assert Adopt(10, digest("joined")) in behind.handle(Mixed(Slot(10), digest("joined")))


def test_one_is_behind_by_what_f_plus_1_peers_say_and_not_by_what_one_says():
    one = node(steps=20)
    assert one.behind == 0
    one.handle(Received(1, Proposal(at(9, 1))))
    assert one.behind == 0
    one.handle(Received(2, Proposal(at(7, 2))))
    assert one.behind == 7


def test_who_jumps_keeps_of_a_total_broadcast_what_the_retained_steps_need():
    assert Release(Slot(9), Slot(9)) in leave_behind(node(steps=20, kind="reliable"))


def test_what_was_asked_for_before_a_jump_is_no_use_after_it():
    """Whatever the node was waiting for when it jumped: its training, its mixture, or its descent."""
    stale = [Trained(0, digest("late")), Mixed(Slot(0), digest("late")), Descended(Slot(0), digest("late"))]
    for done in range(3):
        behind = node(steps=20, gradients=1)
        if done > 0:
            behind.handle(Trained(0, digest(0, 0, 0)))
            tell(behind, at(0, 1), at(0, 2))
        if done > 1:
            assert behind.handle(Mixed(Slot(0), digest("direction"))) == [Descend(Slot(0), digest("direction"), None)]
        assert Train(10) in leave_behind(behind)
        assert [behind.handle(event) for event in stale] == [[], [], []]
        assert (behind.position, behind.training, behind.working) == (Slot(10), True, False)
        behind.handle(Trained(10, digest(0, 10, 0)))
        assert mix_of(tell(behind, at(10, 2), at(10, 3))).gathered.slot == Slot(10)
        assert behind.handle(Mixed(Slot(0), digest("late"))) == []
        assert behind.handle(Descended(Slot(0), digest("late"))) == []
        assert behind.position == Slot(10)


def test_a_step_that_was_jumped_over_is_not_mixed_when_the_rest_of_it_comes():
    """Its last value is told again by who connects late; the others were let go of at the jump."""
    behind = node(steps=20, retained=12)
    behind.handle(Trained(0, digest(0, 0, 0)))
    tell(behind, at(0, 1))
    assert Release(Slot(10), Slot(0)) in leave_behind(behind)
    assert not [effect for effect in tell(behind, at(0, 2)) if isinstance(effect, Mix)]
    assert behind.position == Slot(10)


def test_who_jumps_says_its_last_words_of_what_it_leaves():
    behind = node(steps=20)
    behind.handle(Received(3, Proposal(at(0, 3))))
    assert [effect.message.signed for effect in leave_behind(behind) if isinstance(effect, Broadcast)] == [at(0, 3)]
    assert behind.footprint[0] == 1


def test_nobody_jumps_on_the_word_of_f_peers():
    walker = node(steps=20)
    assert walker.handle(Received(1, Hello(9))) == []
    assert walker.handle(Received(1, Proposal(at(12, 1)))) == []
    assert walker.position == Slot(0)


def test_nobody_jumps_while_all_that_it_needs_is_under_way():
    walker = node(steps=20)
    for peer in (1, 2, 3):
        assert walker.handle(Received(peer, Proposal(at(12, peer)))) == []
    assert walker.position == Slot(0)


# Started again.


def test_a_checkpoint_is_gone_on_from():
    restarted = Node(party(0), recipe(1), steps=8, retained=3, first_step=5)
    assert restarted.handle(Started()) == [Train(5)]
    assert restarted.handle(Connected(1)) == [Send(1, Hello(5))]
    assert restarted.handle(Received(1, Proposal(at(4, 1)))) == []
    assert Node(party(0), recipe(1), steps=8, first_step=8).handle(Started()) == [Finish()]


def restarted(said, rounds=(2,), first_step=5, retained=3):
    """What a node says first that went on at this step, having said this."""
    again = Node(party(0), recipe(*rounds), steps=8, retained=retained, first_step=first_step, said=said)
    return again, again.handle(Started())


def whole(*steps, sub_rounds=2):
    return {Slot(step, 0, k): digest("said", step, k) for step in steps for k in range(sub_rounds)}


def said_again(*slots):
    own = [signed(0, digest("said", slot.step, slot.sub_round), slot) for slot in slots]
    return [effect for one in own for effect in (Stream(one.header), Broadcast(Proposal(one)))]


def test_who_restarts_says_again_what_it_said_in_the_steps_before_and_then_begins():
    again, out = restarted(whole(3, 4))
    assert out == [*said_again(Slot(3), Slot(3, 0, 1), Slot(4), Slot(4, 0, 1)), Train(5)]
    assert again.position == Slot(5)
    greeting, *rest = again.handle(Connected(2))
    assert greeting == Send(2, Hello(3))
    assert len(rest) == 8, "four vectors and their proposals"


def test_what_was_said_in_the_step_that_one_begins_in_is_said_when_it_is_trained_again():
    again, out = restarted(whole(4) | {Slot(5): digest("said", 5, 0)})
    assert out == [*said_again(Slot(4), Slot(4, 0, 1)), Train(5)]
    assert again.handle(Trained(5, digest("said", 5, 0))) == said_again(Slot(5))


@pytest.mark.parametrize(
    "said",
    [
        {},
        {Slot(4): digest("said", 4, 0)},
        {Slot(4, 0, 1): digest("said", 4, 1)},
        whole(3) | {Slot(4): digest("said", 4, 0)},  # 3 is whole, and what follows it is not
        whole(2, 3),
        whole(5, 6),
    ],
)
def test_a_step_that_is_not_whole_is_not_said_again_nor_any_before_it(said):
    again, out = restarted(said)
    assert out == [Train(5)]
    assert again.handle(Connected(2)) == [Send(2, Hello(5))]
    assert again.handle(Received(1, Proposal(at(4, 1)))) == []


def test_a_step_is_whole_if_all_exchanges_of_it_are():
    first = {Slot(4): digest("said", 4, 0)}
    assert restarted(first, rounds=(1, 1))[1] == [Train(5)]
    assert len(restarted(first | {Slot(4, 1): digest("said", 4, 0)}, rounds=(1, 1))[1]) == 5


def test_growing_sub_rounds_make_a_step_whole():
    assert restarted(whole(3, sub_rounds=2), rounds=((1, 2, 4),), first_step=4)[1][:-1] == said_again(
        Slot(3), Slot(3, 0, 1)
    )
    assert restarted(whole(4, sub_rounds=2), rounds=((1, 2, 4),))[1] == [Train(5)]
    assert len(restarted(whole(4, sub_rounds=4), rounds=((1, 2, 4),))[1]) == 9


def test_of_what_was_said_only_the_retained_steps_are_said_again():
    again, out = restarted(whole(2, 3, 4), retained=1)
    assert out == [*said_again(Slot(4), Slot(4, 0, 1)), Train(5)]
    assert again.handle(Connected(2))[0] == Send(2, Hello(4))


def test_a_step_that_is_said_again_is_answered_and_not_mixed_again():
    again, _ = restarted(whole(4))
    other = at(4, 1)
    again.handle(Received(1, Proposal(other)))
    assert again.handle(Arrived(other.header.digest)) == [Send(1, echo(0, other))]
    out = tell(again, other, at(4, 2), at(4, 3))
    assert not any(isinstance(effect, Mix | Accuse) for effect in out)
    own = signed(0, digest("said", 4, 0), Slot(4))
    again.handle(Received(1, echo(1, own)))
    assert again.handle(Received(2, echo(2, own))) == [Broadcast(certificate(own, [0, 1, 2]))]
    assert again.position == Slot(5)


def test_who_took_its_last_step_says_it_again_and_is_done():
    again, out = restarted(whole(7), first_step=8)
    assert out == [*said_again(Slot(7), Slot(7, 0, 1)), Finish()]
    assert again.finished


# A vector that is none.


def test_a_vector_that_is_not_finite_is_its_origins_fault():
    walker = node()
    walker.handle(Received(1, Proposal(at(0, 1))))
    assert walker.handle(Unusable(at(0, 1).header.digest)) == [Accuse(1, Fault.MALFORMED)]
