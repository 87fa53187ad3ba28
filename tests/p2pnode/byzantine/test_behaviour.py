"""Liars event by event: member 6 of 7, over vectors of one element, so that a lie is a number."""

import numpy as np
import pytest

from p2pnode.byzantine.behaviour import Liar
from p2pnode.node import Arrived, Connected, Mixed, Node, Received, Release, Started, Train, Trained
from p2pnode.recipe import Exchange, Recipe
from p2pnode.storage.vectors import Vectors, digest_of
from protocols.committee import Committee
from protocols.effects import Accuse, Broadcast, Certificate, Mix, Proposal, Send, Stream
from protocols.header import PeerId, Slot
from tests import ideal

ME, N, F = PeerId(6), 7, 1
PEERS = tuple(range(ME))
RECIPE = Recipe("test", (Exchange("model", "signed-echo", "trimmed-mean", 1),))


class Key:
    """An identity whose signatures are ideal."""

    def sign(self, statement):
        return ideal.sign(ME, statement)


class Stage:
    """A liar, what it holds, and how the honest speak to it."""

    def __init__(self, *attacks, seed=0):
        self.vectors = Vectors(1)
        self.node = Node(ideal.party(ME, N, F), RECIPE, steps=9)
        self.liar = Liar(self.node, self.vectors, Key(), attacks, [ME], seed)
        self.begun = self.liar.handle(Started())

    def trains(self, value, step=0):
        return self.liar.handle(Trained(step, self.keep(Slot(step), value)))

    def keep(self, slot, value):
        vector = np.array([value], np.float32)
        self.vectors.put(slot, digest_of(vector), vector)
        return digest_of(vector)

    def hears(self, origin, value, step=0, certified=False):
        vector = np.array([value], np.float32)
        signed = ideal.signed(origin, digest_of(vector), Slot(step))
        message = ideal.certificate(signed, range(5)) if certified else Proposal(signed)
        effects = self.liar.handle(Received(origin, message))
        if not self.vectors.expect(signed.header):
            self.vectors.take(signed.header.digest, vector)
        return effects + self.liar.handle(Arrived(signed.header.digest))

    def mixes(self, value, step):
        return self.liar.handle(Mixed(Slot(step), self.keep(Slot(step + 1), value)))

    def lies(self, effects):
        """Who is told which number, by what is proposed."""
        proposals = [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, Proposal)]
        headers = {effect.to: effect.message.signed.header for effect in proposals}
        assert {(effect.header, effect.to) for effect in effects if isinstance(effect, Stream)} == {
            (header, peer) for peer, header in headers.items()
        }, "the bytes go where the header goes"
        return {peer: float(self.vectors.get(header.digest)[0]) for peer, header in headers.items()}


def spoken(effects):
    return [effect for effect in effects if isinstance(effect, Send | Broadcast | Stream | Accuse)]


def test_the_silent_follow_and_say_nothing():
    stage = Stage("silent")
    assert stage.begun == [Train(0)]
    said = stage.trains(1.0)
    for origin in PEERS:
        said += stage.hears(origin, float(origin), certified=True)
    assert spoken(said) == []
    assert any(isinstance(effect, Mix) for effect in said)


def test_a_vector_attack_loses_no_time_on_training_and_lies_once_two_honest_vectors_are_here():
    stage = Stage("sign-flip")
    assert stage.begun == []
    assert stage.lies(stage.hears(0, 1.0)) == {}
    assert stage.lies(stage.hears(1, 3.0)) == dict.fromkeys(PEERS, -2.0)
    assert stage.lies(stage.hears(2, 8.0)) == {}, "one lie a slot"


def test_later_lies_are_told_when_the_step_begins_over_a_forecast():
    stage = Stage("sign-flip")
    for step, model in ((0, 10.0), (1, 11.0)):
        for origin in PEERS:
            stage.hears(origin, model + origin, step, certified=True)
        told = stage.mixes(model, step)
    # The honest said 11 … 16, and the model moved from 10 to 11: they are expected to say 12 … 17.
    assert stage.lies(told) == dict.fromkeys(PEERS, -14.5)
    assert not any(isinstance(effect, Train) for effect in told)


def test_equivocation_tells_two_groups_two_vectors_and_leaves_the_larger_its_echo_quorum():
    stage = Stage("equivocate")
    lies = stage.lies(stage.trains(4.0))
    assert sorted(lies) == list(PEERS)
    assert set(lies.values()) == {4.0, -4.0}
    many = [peer for peer, value in lies.items() if value == 4.0]
    assert len(many) + 1 >= Committee(N, F).echo_quorum


def test_the_first_lie_is_certified_by_those_it_was_told_and_the_certificate_goes_to_all():
    stage = Stage("equivocate")
    said = stage.trains(4.0)
    shown = {effect.to: effect.message.signed for effect in said if isinstance(effect, Send)}
    many = [peer for peer, value in stage.lies(said).items() if value == 4.0]
    answers = [e for peer in many for e in stage.liar.handle(Received(peer, ideal.echo(peer, shown[peer])))]
    assert [type(effect.message) for effect in answers if isinstance(effect, Broadcast)] == [Certificate]
    assert spoken(answers) == answers


def test_who_comes_back_is_told_the_same_lie_again():
    stage = Stage("equivocate")
    lies = stage.lies(stage.trains(4.0))
    assert all(stage.lies(stage.liar.handle(Connected(peer))) == {peer: lies[peer]} for peer in PEERS)


def test_lies_are_forgotten_with_their_slots():
    stage = Stage("alie", "equivocate")
    released = []
    for step in range(5):
        for origin in PEERS:
            stage.hears(origin, float(origin), step, certified=True)
        released += [effect for effect in stage.mixes(1.0, step) if isinstance(effect, Release)]
    assert released[-1].own == Slot(4)
    assert min(stage.liar._lies) >= Slot(4)
    assert min(stage.liar._seen) >= Slot(4)


@pytest.mark.parametrize("attacks", [("equivocate",), ("random", "equivocate")])
def test_a_seed_repeats_its_lies(attacks):
    def told(seed):
        stage = Stage(*attacks, seed=seed)
        said = stage.trains(4.0) if attacks == ("equivocate",) else stage.hears(0, 1.0) + stage.hears(1, 2.0)
        return stage.lies(said)

    assert told(1) == told(1)
    assert len({tuple(sorted(told(seed).items())) for seed in range(8)}) > 1
