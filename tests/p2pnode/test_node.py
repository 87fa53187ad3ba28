from random import Random

import pytest

import p2pnode.node
from p2pnode.node import Adopt, Connected, Finish, Jump, Mixed, Node, Received, Release, Started, Train, Trained
from p2pnode.recipe import Exchange, Recipe
from protocols.effects import Accuse, Broadcast, Expect, Hello, Mix, Proposal, Send, Stream
from protocols.faults import Fault
from protocols.header import Slot
from tests.ideal import NETWORK, certificate, digest, echo, party, signed, verify
from tests.liars import Equivocator, Forger, Partial, TwoFaced, Withholder
from tests.world import World


def recipe(*sub_rounds):
    return Recipe("test", tuple(Exchange("model", "signed-echo", "trimmed-mean", rounds) for rounds in sub_rounds))


def node(steps=8, me=0, rounds=(1,), **options):
    started = Node(party(me), recipe(*rounds), steps, **options)
    started.handle(Started())
    return started


def tell(listener, *signed_headers):
    """Certified vectors of others come, with their bytes."""
    out = []
    for one in signed_headers:
        out += listener.handle(Received(one.header.origin, certificate(one, [1, 2, 3])))
        out += listener.handle(p2pnode.node.Arrived(one.header.digest))
    return out


def at(step, origin, sub_round=0):
    return signed(origin, digest(origin, step, sub_round), Slot(step, 0, sub_round))


def take_step(walker, step):
    """All of a step in which others 1 and 2 are certified."""
    walker.handle(Trained(step, digest(0, step, 0)))
    tell(walker, at(step, 1), at(step, 2))
    return walker.handle(Mixed(Slot(step), digest("mixed", step)))


# A whole network, under many schedules.


@pytest.mark.parametrize("seed", range(150))
def test_all_finish_under_any_order_with_duplicates(seed):
    world = World(seed, sub_rounds=1 + seed % 3, duplicates=0.2).run()
    assert world.accusations == []
    assert not world.jumps


@pytest.mark.parametrize("seed", range(60))
def test_the_honest_finish_while_f_are_silent(seed):
    World(seed, sub_rounds=1 + seed % 2, liars={seed % 4: None}).run()


@pytest.mark.parametrize("liar", [Equivocator, TwoFaced, Partial, Withholder, Forger])
@pytest.mark.parametrize("kind", ["signed-echo", "plain"])
def test_the_honest_finish_accuse_none_of_theirs_and_agree_on_what_a_liar_said(liar, kind):
    for seed in range(30):
        World(seed, steps=2 + seed % 3, sub_rounds=1 + seed % 2, liars={seed % 4: liar}, kind=kind).run()


def test_two_liars_of_seven_together():
    for seed in range(10):
        World(seed, n=7, f=2, steps=2, liars={1: Equivocator, 5: Forger}).run()


def test_an_equivocator_leaves_a_proof_that_anyone_can_verify():
    for seed in range(20):
        accusations = World(seed, liars={3: TwoFaced}).run().accusations
        proofs = [accusation.evidence for _, accusation in accusations if accusation.fault is Fault.EQUIVOCATED]
        assert proofs
        assert all(proof.accused == 3 and proof.holds(NETWORK, verify) for proof in proofs)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("deferred_max", [1024, 8])
def test_who_hears_everything_last_still_finishes(seed, deferred_max, monkeypatch):
    monkeypatch.setattr(p2pnode.node, "DEFERRED_MAX", deferred_max)
    world = World(seed, steps=10, ordered=True, delays=lambda source, to, item: to == 2 != source)
    world.run()
    assert not world.jumps
    assert not world.waiting[2]


@pytest.mark.parametrize("seed", range(40))
def test_a_link_that_is_lost_and_back_holds_up_nobody(seed):
    liars = {3: Equivocator} if seed % 3 == 0 else None
    world = World(seed, sub_rounds=1 + seed % 2, duplicates=0.1, retained=3, liars=liars)
    random = Random(seed)
    one, other = random.sample(world.honest, 2)
    due = {random.randrange(60): world.sever, random.randrange(60, 200): world.connect}
    deliveries = iter(range(1_000_000))

    def disturb():
        due.pop(next(deliveries), lambda one, other: None)(one, other)

    world.run(disturb)


@pytest.mark.parametrize("liar", ["none", "silent", "equivocating"])
def test_members_that_restart_in_one_step_finish_with_the_others_and_are_not_accused(liar):
    for seed in range(40):
        world = World(seed, liars={"none": {}, "silent": {3: None}, "equivocating": {3: Equivocator}}[liar])
        restart_some(world, seed, 2)
        assert sum(world.restarts.values()) <= 2


def restart_some(world, seed, count):
    random = Random(f"restart {seed}")
    doomed = random.sample(world.honest, count)

    def disturb():
        together = len({world.nodes[peer].position.step for peer in world.honest}) == 1
        if doomed and together and random.random() < 0.05:
            world.restart(doomed.pop())

    world.run(disturb)


@pytest.mark.parametrize("seed", range(20))
def test_who_was_cut_off_for_longer_than_peers_remember_jumps_and_finishes(seed):
    world = World(seed, steps=8)

    def disturb():
        if not world.delivered:
            for peer in (0, 1, 3):
                world.sever(2, peer)
        if len(world.finished) == 0 and world.nodes[0].position.step >= 5 and world.cut:
            for peer in (0, 1, 3):
                world.connect(2, peer)

    world.run(disturb)
    assert world.jumps[2]


# One node, event by event.


def test_a_step_is_train_broadcast_gather_mix_adopt():
    walker = Node(party(0), recipe(1), steps=1)
    own, others = at(0, 0), [at(0, 1), at(0, 2)]
    assert walker.handle(Started()) == [Train(0)]
    assert walker.waits_for == ()
    assert walker.handle(Trained(0, own.header.digest)) == [Stream(own.header), Broadcast(Proposal(own))]
    assert walker.waits_for == (1, 2, 3)
    mix = tell(walker, *others)[-1]
    assert isinstance(mix, Mix)
    assert [member for member, _ in mix.gathered.values] == [0, 1, 2]
    assert walker.waits_for == ()
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
    out = walker.handle(Mixed(Slot(0), digest("mixed")))
    assert out == [Release(Slot(0), Slot(0)), Stream(mixed.header), Broadcast(Proposal(mixed))]


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
        out = other.handle(p2pnode.node.Arrived(proposals[me].header.digest))
        out += other.handle(Received(me, certified.message))
        assert any(isinstance(effect, Mix) for effect in out)


def test_what_waited_is_heard_when_its_slot_comes():
    slow, later = node(), at(3, 1)
    slow.handle(Received(1, Proposal(later)))
    assert Expect(later.header) not in take_step(slow, 0)
    assert Expect(later.header) in take_step(slow, 1)


@pytest.mark.parametrize("slot", [Slot(8), Slot(2**63 - 1), Slot(0, 1), Slot(0, 0, 1), Slot(3, 255, 65535)])
def test_slots_that_the_recipe_does_not_have_are_out_of_turn_and_said_once(slot):
    listener = node(steps=8)
    stray = Received(2, Proposal(signed(2, digest("a"), slot)))
    assert listener.handle(stray) == [Accuse(2, Fault.OUT_OF_TURN)]
    assert listener.handle(stray) == []
    assert not listener.congested(2)


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
        assert len(walker._agreements) <= 5
    assert out[-1] == Finish()


def test_the_last_steps_are_answered_and_what_is_older_is_not():
    walker = node(retained=2)
    for step in range(4):
        take_step(walker, step)
    slow = at(2, 3)
    walker.handle(Received(3, Proposal(slow)))
    assert walker.handle(p2pnode.node.Arrived(slow.header.digest)) == [Send(3, echo(0, slow))]
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


def test_who_is_left_behind_goes_where_f_plus_1_peers_are_and_mixes_what_others_have():
    behind = node(steps=20)
    assert behind.handle(Received(1, Hello(9))) == []
    assert behind.handle(Received(1, Proposal(at(12, 1)))) == []
    out = behind.handle(Received(2, Proposal(at(10, 2))))
    assert out[0] == Jump(10)
    assert Release(Slot(10), Slot(9)) in out
    assert behind.position == Slot(10)
    assert behind.handle(Trained(0, digest("late"))) == []
    assert behind.handle(Mixed(Slot(0), digest("late"))) == []
    out = tell(behind, at(10, 2), at(10, 3))
    assert [member for member, _ in out[-1].gathered.values] == [2, 3]
    assert Adopt(10, digest("joined")) in behind.handle(Mixed(Slot(10), digest("joined")))


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


def test_a_checkpoint_is_gone_on_from():
    restarted = Node(party(0), recipe(1), steps=8, retained=3, first_step=5)
    assert restarted.handle(Started()) == [Train(5)]
    assert restarted.handle(Connected(1)) == [Send(1, Hello(5))]
    assert restarted.handle(Received(1, Proposal(at(4, 1)))) == []
    assert Node(party(0), recipe(1), steps=8, first_step=8).handle(Started()) == [Finish()]


def test_a_vector_that_is_not_finite_is_its_origins_fault():
    walker = node()
    walker.handle(Received(1, Proposal(at(0, 1))))
    assert walker.handle(p2pnode.node.Unusable(at(0, 1).header.digest)) == [Accuse(1, Fault.MALFORMED)]
