"""What a liar makes up convinces no honest node, raises nothing, and brings no innocent into disrepute."""

from random import Random
from typing import get_args

import pytest

from p2pnode.byzantine.forgery import echo_of, forgeries, slander
from p2pnode.codec import decode, encode
from p2pnode.node import Adopt, Arrived, Node, Received, Started, Trained
from p2pnode.recipe import BROADCASTS, Exchange, Recipe
from protocols.effects import (
    Accuse,
    Certificate,
    DigestEcho,
    Echo,
    Evidence,
    Expect,
    Fetch,
    Message,
    Mix,
    Proposal,
    Report,
    Send,
)
from protocols.faults import Fault
from protocols.header import SignedHeader, Slot
from tests import ideal

LIAR = 3
LIE = ideal.digest("lie")
STEPS = 6
SLOTS = [Slot(0), Slot(0, 0, 1), Slot(0, 1)]


def recipe(kind):
    return Recipe("test", tuple(Exchange("model", kind, "trimmed-mean", rounds) for rounds in ((2, 3), (1,))))


def sign(statement):
    return ideal.sign(LIAR, statement)


def own(party, slot):
    header = party.header(party.me, slot, LIE)
    return SignedHeader(header, ideal.sign(party.me, header.proposal().statement))


def words(kind, seed, slot=ideal.FIRST, n=4, me=LIAR):
    party = ideal.party(me, n)
    return forgeries(party, own(party, slot), sign, Random(seed), recipe(kind), STEPS)


class Listener:
    """A real honest node, and what it concludes from what the liar says."""

    def __init__(self, kind, me, trained):
        self.kind = kind
        self.node = Node(ideal.party(me), recipe(kind), STEPS)
        self.effects = self.node.handle(Started())
        if trained:
            self.node.handle(Trained(0, ideal.digest("honest", me)))
        self.effects = []

    def hears(self, word):
        self.effects += self.node.handle(Received(LIAR, word))

    def gets(self, digest):
        self.effects += self.node.handle(Arrived(digest))

    def of(self, kind):
        return [effect for effect in self.effects if isinstance(effect, kind)]


listeners = pytest.mark.parametrize(
    ("kind", "me", "trained"),
    [(kind, me, trained) for kind in BROADCASTS for me in (0, 1) for trained in (True, False)],
)


@listeners
def test_no_forged_word_is_believed_or_raises_or_accuses_an_innocent(kind, me, trained):
    for seed in range(30):
        listener = Listener(kind, me, trained)
        made_up = [word for slot in SLOTS for word in words(kind, seed, slot)]
        Random(seed).shuffle(made_up)
        for word in made_up:
            listener.hears(word)
            listener.hears(word)
        if trained:
            innocent = {peer for peer in (0, 1, 2) if peer != me}
            assert innocent <= set(listener.node.waits_for), "nothing is delivered in another's name"
            assert kind == "plain" or LIAR in listener.node.waits_for, "nor what no quorum vouched for"
        assert {accusation.peer for accusation in listener.of(Accuse)} == {LIAR}
        assert {effect.header.origin for effect in listener.of(Expect)} <= {LIAR}
        assert listener.of(Fetch | Mix | Adopt) == []
        assert listener.node.position == Slot(0)


@listeners
def test_with_the_bytes_at_hand_nothing_is_delivered_either_but_what_the_liar_signed(kind, me, trained):
    for seed in range(30):
        listener = Listener(kind, me, trained)
        made_up = words(kind, seed)
        Random(seed).shuffle(made_up)
        for word in made_up:
            listener.hears(word)
            listener.gets(LIE)
        if trained:
            innocent = {peer for peer in (0, 1, 2) if peer != me}
            assert innocent <= set(listener.node.waits_for)
            assert (LIAR in listener.node.waits_for) == (kind != "plain")
        assert {accusation.peer for accusation in listener.of(Accuse)} == {LIAR}
        assert listener.of(Fetch | Mix | Adopt) == []
        assert {effect.message.origin for effect in listener.of(Send)} <= {LIAR}, "echoes for the liar alone"


@pytest.mark.parametrize("kind", BROADCASTS)
def test_each_forged_word_alone_accuses_the_liar_or_nobody(kind):
    for seed in range(10):
        for word in words(kind, seed):
            for me in (0, 1, 2):
                listener = Listener(kind, me, trained=True)
                listener.hears(word)
                assert {accusation.peer for accusation in listener.of(Accuse)} <= {LIAR}
                assert all(accusation.evidence is None for accusation in listener.of(Accuse))


def test_reports_that_are_too_short_or_out_of_order_are_the_liars_fault():
    for word in words("reliable", 0):
        if isinstance(word, Report):
            listener = Listener("reliable", 0, trained=True)
            listener.hears(word)
            assert bool(listener.of(Accuse)) == (word.delivered != (0, 1, 2, LIAR))


def test_an_echo_that_was_made_up_for_its_victim_is_the_liars_fault():
    for seed in range(10):
        [echo] = [word for word in words("signed-echo", seed) if isinstance(word, Echo) and word.origin != LIAR]
        listener = Listener("signed-echo", echo.origin, trained=True)
        listener.hears(echo)
        assert [accusation.peer for accusation in listener.of(Accuse)] == [LIAR]


@pytest.mark.parametrize("kind", BROADCASTS)
def test_the_honest_go_on_among_forged_words(kind):
    """The true values of 1 and 2 are gathered, whatever was made up in their names before."""
    for seed in range(30):
        listener = Listener(kind, 0, trained=True)
        for word in words(kind, seed):
            listener.hears(word)
        for origin in (1, 2):
            true = ideal.signed(origin, ideal.digest("honest", origin))
            for message in {
                "plain": [Proposal(true)],
                "signed-echo": [Proposal(true), ideal.certificate(true, [0, 1, 2])],
                "reliable": [Proposal(true)],
            }[kind]:
                listener.effects += listener.node.handle(Received(origin, message))
            listener.gets(true.header.digest)
            for peer in (1, 2):
                if kind == "reliable":
                    listener.effects += listener.node.handle(Received(peer, ideal.ready(true)))
        for peer in (1, 2):
            if kind == "reliable":
                listener.effects += listener.node.handle(Received(peer, ideal.report(0, 1, 2)))
        [mix] = listener.of(Mix)
        values = dict(mix.gathered.values)
        assert {peer: values[peer] for peer in (0, 1, 2)} == {peer: ideal.digest("honest", peer) for peer in (0, 1, 2)}
        assert {accusation.peer for accusation in listener.of(Accuse)} == {LIAR}


@pytest.mark.parametrize("kind", BROADCASTS)
@pytest.mark.parametrize("slot", [*SLOTS, Slot(STEPS - 1, 0, 2), Slot(STEPS - 1, 1)])
def test_every_kind_of_word_is_forged_and_can_be_sent(kind, slot):
    """A word that the codec refuses would break the link, and show nothing of the protocol."""
    for seed in range(10):
        made_up = words(kind, seed, slot)
        assert {type(word) for word in made_up} == set(get_args(Message))
        assert all(decode(encode(word)) == word for word in made_up)


def test_some_words_speak_in_a_victims_name_and_some_of_a_slot_that_does_not_exist():
    origins, beyond = set(), set()
    node = Node(ideal.party(0), recipe("plain"), STEPS)
    for seed in range(30):
        made_up = words("plain", seed)
        origins |= {word.origin for word in made_up if isinstance(word, Proposal | DigestEcho | Certificate | Echo)}
        beyond |= {word.slot for word in made_up if not node.exists(word.slot)}
    assert origins == {0, 1, 2, LIAR}
    assert beyond == {Slot(0, 0, 2), Slot(0, 2), Slot(STEPS)}


def test_a_liar_alone_has_no_victim_but_itself():
    assert {word.origin for word in words("reliable", 0, n=2, me=0) if isinstance(word, Proposal)} == {0, 1}
    party = ideal.party(0, 1, 0)
    made_up = forgeries(party, own(party, Slot(0)), sign, Random(0), recipe("reliable"), STEPS)
    assert {word.origin for word in made_up if isinstance(word, Proposal)} == {0}


def test_the_same_seed_forges_the_same():
    assert words("reliable", 1) == words("reliable", 1)
    assert words("reliable", 1) != words("reliable", 2)


@pytest.mark.parametrize(("n", "me", "kinds"), [(4, LIAR, 4), (1, 0, 3)])
def test_a_slander_convicts_nobody_and_is_the_liars_fault(n, me, kinds):
    party = ideal.party(me, n, 0)
    mine = own(party, ideal.FIRST)
    made_up = [slander(party, mine, lambda statement: ideal.sign(me, statement), which) for which in range(256)]
    assert len(set(made_up)) >= kinds
    assert {word.proof.accused for word in made_up} == set(range(n))
    for word in made_up:
        assert decode(encode(word)) == word
        listener = Node(ideal.party(0), recipe("plain"), STEPS)
        assert listener.handle(Received(LIAR, word)) == [Accuse(LIAR, Fault.MALFORMED)]
    assert all(isinstance(word, Evidence) for word in made_up)


def test_an_echo_vouches_for_the_header_it_is_made_of():
    shown = ideal.signed(1, ideal.digest("shown"))
    assert echo_of(shown, sign) == ideal.echo(LIAR, shown)
