"""The six laws, for every protocol and for the node that composes them."""

from itertools import combinations, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import p2pnode.node
from p2pnode.node import Arrived, Node, Received, Started, Trained, Unusable
from p2pnode.recipe import Exchange, Recipe
from protocols.agreement import Agreement
from protocols.effects import Accuse, Certificate, DigestEcho, Echo, Evidence, Hello, Mix, Proposal, Ready, Sighting
from protocols.faults import Equivocation
from protocols.gather import Gather
from protocols.header import SignedHeader, Slot
from protocols.plain import Plain
from protocols.protocol import Party
from protocols.reliable import Reliable
from protocols.signed_echo import SignedEcho
from tests.ideal import JUNK, Signer, certificate, digest, echo, party, proof, ready, report, sign, signed

ME = 1
MEMBERS = range(4)
SUB_ROUNDS = 2
OWN = digest("mine")

SUBJECTS = {
    "plain, as origin": lambda us: Plain(us, Slot(0), ME),
    "plain, as member": lambda us: Plain(us, Slot(0), 0),
    "signed echo, as origin": lambda us: SignedEcho(us, Slot(0), ME),
    "signed echo, as member": lambda us: SignedEcho(us, Slot(0), 0),
    "reliable, as origin": lambda us: Reliable(us, Slot(0), ME),
    "reliable, as member": lambda us: Reliable(us, Slot(0), 0),
    "gather of plain": lambda us: Gather(us, Slot(0), Plain),
    "gather of signed echo": lambda us: Gather(us, Slot(0), SignedEcho),
    "gather of reliable": lambda us: Gather(us, Slot(0), Reliable),
    "agreement over plain": lambda us: Agreement(us, Slot(0), SUB_ROUNDS, Plain),
    "agreement over signed echo": lambda us: Agreement(us, Slot(0), SUB_ROUNDS, SignedEcho),
    "agreement over reliable": lambda us: Agreement(us, Slot(0), SUB_ROUNDS, Reliable),
    "node": lambda us: Node(us, Recipe("", (Exchange("model", "signed-echo", "mean", (SUB_ROUNDS,)),)), steps=3),
    "node over reliable": lambda us: Node(us, Recipe("", (Exchange("model", "reliable", "mean", (SUB_ROUNDS,)),)), 3),
}
PROTOCOLS = [name for name in SUBJECTS if "node" not in name]


class Recording(Signer):
    """Remembers what it was asked to sign."""

    def __init__(self, me):
        super().__init__(me)
        self.asked = []

    def sign(self, claim):
        self.asked.append(claim)
        return super().sign(claim)


class Subject:
    """A protocol or a node, under one way of speaking to it; it asks for its own next move only when that is due."""

    def __init__(self, name):
        self.it = SUBJECTS[name](party(ME, signer=Recording(ME)))
        self.mix = None
        self.started = False

    def take(self, move):
        kind, *arguments = move
        effects = getattr(self, kind)(*arguments)
        assert isinstance(effects, list)
        self.mix = next((effect for effect in effects if isinstance(effect, Mix)), self.mix)
        return effects

    def go(self):
        if not self.started:
            self.started = True
            if isinstance(self.it, Node):
                return self.it.handle(Started())
            may = getattr(self.it, "mine", True)
            return self.it.start(OWN) if may else []
        if self.mix is not None:
            slot, self.mix = self.mix.gathered.slot, None
            mixture = digest("mixed", slot)
            return self.it.handle(p2pnode.node.Mixed(slot, mixture)) if self.node else self.it.mixed(mixture)
        if self.node and self.it.training:
            return self.it.handle(Trained(self.it.position.step, OWN))
        return []

    @property
    def node(self):
        return isinstance(self.it, Node)

    def hear(self, sender, message):
        if self.node:
            return self.it.handle(Received(sender, message))
        return self.it.handle(sender, message) if not isinstance(message, Hello | Evidence) else []

    def arrive(self, named):
        foretold, signer = self.it.claims(named), self.it.party.signer
        signer.asked.clear()
        effects = self.it.handle(Arrived(named)) if self.node else self.it.arrived(named)
        assert signer.asked == foretold, "claims tell what will be signed"
        return effects

    def spoil(self, named):
        return self.it.handle(Unusable(named)) if self.node else self.it.unusable(named)


# Everything that can be decoded, most of it wrong, and near enough to right to get somewhere.

slots = st.sampled_from(
    [Slot(0), Slot(0), Slot(0, 0, 1), Slot(0, 0, SUB_ROUNDS), Slot(0, 1), Slot(1), Slot(2), Slot(9)]
)
members = st.sampled_from([*MEMBERS, 0, ME])
digests = st.sampled_from([OWN, digest("a"), digest("b"), digest("c")])


@st.composite
def headers(draw):
    one = signed(draw(st.sampled_from([*MEMBERS, 0, ME, 1023])), draw(digests), draw(slots))
    return draw(st.sampled_from([one, one, one, SignedHeader(one.header, JUNK)]))


@st.composite
def certificates(draw):
    one = draw(headers())
    who = draw(
        st.sampled_from([[0, 1, 2], [0, 2, 3], [0, 1, 2, 3]]) | st.lists(st.sampled_from([*MEMBERS, 9]), max_size=5)
    )
    whole = certificate(one, who)
    return draw(st.sampled_from([whole, whole, Certificate(one, tuple((member, JUNK) for member in who))]))


@st.composite
def echoes(draw):
    one, who = draw(headers()), draw(members)
    return draw(st.sampled_from([echo(who, one), echo(who, one), Echo(one.header.slot, one.header.origin, JUNK)]))


@st.composite
def readies(draw):
    return Ready(draw(slots), draw(st.sampled_from([*MEMBERS, 0, ME, 1023])), draw(digests))


@st.composite
def reports(draw):
    right = st.sampled_from([whole for size in (3, 4) for whole in combinations(MEMBERS, size)])
    return report(*draw(right | right | st.lists(st.sampled_from([*MEMBERS, 1023]), max_size=5)), slot=draw(slots))


@st.composite
def proofs(draw):
    one, other, slot = draw(headers()), draw(headers()), draw(slots)
    right = proof(*(signed(draw(members), digest(value), slot) for value in ("a", "b")))
    return Evidence(draw(st.sampled_from([right, Equivocation(one, other), Equivocation(one, one)])))


messages = st.one_of(
    headers().map(Proposal),
    headers().map(Sighting),
    certificates(),
    echoes(),
    headers().map(DigestEcho),
    readies(),
    reports(),
    st.integers(0, 2**63 - 1).map(Hello),
    proofs(),
)
others = st.sampled_from([peer for peer in MEMBERS if peer != ME])
moves = st.one_of(
    st.tuples(st.just("hear"), others, messages),
    st.tuples(st.just("hear"), others, messages),
    st.tuples(st.just("arrive"), digests),
    st.tuples(st.just("spoil"), digests),
    st.tuples(st.just("go")),
)
talks = st.lists(moves, max_size=40)
every_subject = pytest.mark.parametrize("name", SUBJECTS)
quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@every_subject
@quick
@given(talk=talks)
def test_deterministic_total_and_idempotent(name, talk):
    one, other = Subject(name), Subject(name)
    for move in talk:
        effects = one.take(move)
        assert other.take(move) == effects
        if move[0] != "go":
            assert one.take(move) == other.take(move) == []


@every_subject
def test_bounded_whatever_a_flood_says(name, monkeypatch):
    monkeypatch.setattr(p2pnode.node, "DEFERRED_MAX", 16)
    subject, random, weights = Subject(name), Random(1), {}
    subject.take(("go",))
    subject.take(("go",))
    for number in range(8001):
        slot = Slot(random.choice([0, 0, 0, 1, 2]), 0, random.choice([0, 0, 1, 2]))
        one = signed(random.choice(MEMBERS), digest("flood", number), slot)
        sender = random.choice([0, 2, 3])
        who = random.sample(MEMBERS, 3)
        message = random.choice(
            [
                Proposal(one),
                Sighting(one),
                echo(sender, one),
                certificate(one, sorted(who)),
                certificate(one, who),
                DigestEcho(one),
                ready(one),
                report(*sorted(who), slot=slot),
                report(*who, slot=slot),
                Evidence(proof(one, signed(one.header.origin, digest("another", number), slot))),
                Evidence(proof(one, one)),
            ]
        )
        if not (subject.node and subject.it.congested(sender)):
            subject.take(("hear", sender, message))
        subject.take((random.choice(["arrive", "spoil"]), one.header.digest))
        if number % 4000 == 0:
            weights[number] = weight(subject.it)
    n, slots_in_play = len(MEMBERS), 3 * SUB_ROUNDS
    assert weights[8000] == weights[4000], "the second half of the flood left something behind"
    assert weights[8000] <= 40 * n * n * slots_in_play


def correct_traffic(name):
    """All that correct peers can ever say to `ME`, and the bytes that come."""
    kind = next((kind for kind in ("plain", "reliable") if kind in name), "signed echo")
    told = []
    for slot, origin in product([Slot(0), Slot(0, 0, 1)], MEMBERS):
        one = signed(origin, digest("true", origin, slot), slot)
        if origin == ME:
            one = signed(ME, OWN if slot == Slot(0) else digest("mixed", Slot(0)), slot)
        if isinstance(SUBJECTS[name](party(ME)), Plain | SignedEcho | Reliable):
            if (slot, origin) != (Slot(0), _origin(name)):
                continue
        elif kind == "reliable" and origin != ME and (slot == Slot(0) or "gather" not in name):
            told += [("hear", origin, report(*members, slot=slot)) for members in ((0, 1, 2), (0, 1, 2, 3), (1, 2, 3))]
        if isinstance(SUBJECTS[name](party(ME)), Gather) and slot != Slot(0):
            continue
        told.append(("arrive", one.header.digest))
        if origin != ME:
            told.append(("hear", origin, Proposal(one)))
        for peer in (0, 2, 3) if kind == "signed echo" else ():
            told += [("hear", peer, Sighting(one)), ("hear", peer, certificate(one, [0, 2, 3]))]
            told += [("hear", peer, echo(peer, one))] * (origin == ME)
        for peer in (0, 2, 3) if kind == "reliable" else ():
            told += [("hear", peer, DigestEcho(one)), ("hear", peer, ready(one))]
    return told


def _origin(name):
    return ME if "origin" in name else 0


@every_subject
@quick
@given(data=st.data())
def test_innocent_in_any_order_again_and_again(name, data):
    subject, traffic = Subject(name), correct_traffic(name)
    for move in data.draw(st.lists(st.sampled_from([*traffic, ("go",)]), max_size=60)):
        assert not any(isinstance(effect, Accuse) for effect in subject.take(move)), move


@pytest.mark.parametrize("name", PROTOCOLS)
@quick
@given(before=talks, after=talks)
def test_finished_once_done(name, before, after):
    subject = Subject(name)
    for move in before:
        subject.take(move)
    for _ in range(SUB_ROUNDS):
        subject.take(("go",))
        for move in correct_traffic(name) * 2:
            subject.take(move)
        subject.take(("go",))
    if not before:
        assert subject.it.done, "correct peers finish it"
    if subject.it.done:
        for move in after:
            assert move[0] == "go" or subject.take(move) == []


@pytest.mark.parametrize("name", PROTOCOLS)
@quick
@given(data=st.data())
def test_correct_peers_finish_it_though_it_starts_after_them(name, data):
    subject, traffic = Subject(name), correct_traffic(name)
    for move in data.draw(st.permutations(traffic)):
        subject.take(move)
    for _ in range(1 + SUB_ROUNDS):
        subject.take(("go",))
        for move in traffic * 2:
            subject.take(move)
    assert subject.it.done


def weight(thing):
    """How many values are reachable, apart from what all instances share."""
    if isinstance(thing, Party | Recipe | type):
        return 0
    if isinstance(thing, dict):
        return sum(1 + weight(value) for value in thing.values())
    if isinstance(thing, list | tuple | set | frozenset):
        return sum(1 + weight(value) for value in thing)
    return 1 + weight(vars(thing)) if hasattr(thing, "__dict__") else 1


def test_signatures_are_ideal():
    assert len(sign(1, b"a")) == len(JUNK)
    assert len({sign(1, b"a"), sign(2, b"a"), sign(1, b"b")}) == 3
