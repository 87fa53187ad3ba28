"""Who tests the tests: code made wrong in one place, and the scenario that must notice within so many seeds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from random import Random

import pytest

import protocols.committee
import protocols.signed_echo
from p2pnode.node import Node, Received, Started, Trained
from protocols import effects
from protocols.agreement import Agreement
from protocols.broadcast import Broadcast
from protocols.committee import Committee
from protocols.effects import Deliver, Hello, Proposal
from protocols.header import Slot
from protocols.plain import Plain
from protocols.signed_echo import SignedEcho
from tests.ideal import Faithless, Signer, certificate, digest, echo, party, signed
from tests.liars import Equivocator, Forger, TwoFaced, Withholder
from tests.world import Broken, World


def require(holds, guarantee):
    if not holds:
        raise Broken(guarantee)


# Scenarios: each runs one seed, and raises where a guarantee does not hold.


def calm(seed):
    World(seed, steps=2, sub_rounds=2, duplicates=0.2).run()


def silent(seed):
    World(seed, steps=2, liars={seed % 4: None}).run()


def echo_after_later_words(seed):
    """What a peer far ahead says of later slots comes before its echo, the last one that is needed."""
    node = Node(party(), World(seed).recipe, steps=9)
    node.handle(Started())
    own = signed(0, digest(0))
    node.handle(Trained(0, digest(0)))
    node.handle(Received(1, echo(1, own)))
    node.handle(Received(2, Proposal(signed(2, digest(2), Slot(2 + seed)))))
    certified = node.handle(Received(2, echo(2, own)))
    require(effects.Broadcast(certificate(own, [0, 1, 2])) in certified, "liveness: the echo is not counted")


def equivocator(seed):
    World(seed, steps=2, liars={seed % 4: Equivocator}).run()


def equivocator_among_the_forgetful(seed):
    """The honest keep no record of what they signed, so that only the protocol is in a liar's way."""
    World(seed, steps=4, liars={seed % 4: TwoFaced}, forgetful=Faithless).run()


def two_faced(seed):
    world = World(seed, steps=2, liars={3: TwoFaced}).run()
    require(any(accusation.evidence for _, accusation in world.accusations), "evidence: nobody holds a proof")


def withholder(seed):
    World(seed, steps=2, liars={3: Withholder}).run()


def forger(seed):
    World(seed, steps=2, liars={seed % 4: Forger}).run()


def ahead(seed):
    """One hears everything of two others late, and so is far behind."""
    World(seed, steps=6, ordered=True, delays=lambda source, to, item: to == 2 != source).run()


def severed(seed):
    """A link is lost for a while, and one more member is silent, so that each of the others is needed."""
    random = Random(seed)
    one, other, gone = random.sample(range(4), 3)
    world = World(seed, steps=2, liars={gone: None})
    due, delivery = {random.randrange(40): world.sever}, count()
    world.run(lambda: due.pop(next(delivery), lambda one, other: None)(one, other))


def restarts(seed):
    """Two restart while all are in one step; what one computes again may come out otherwise."""
    world, random = World(seed, liars={3: None} if seed % 2 else {}), Random(seed)
    doomed = random.sample(world.honest, 2)

    def disturb():
        together = len({world.nodes[peer].position.step for peer in world.honest}) == 1
        if doomed and together and random.random() < 0.05:
            world.restart(doomed.pop())

    world.run(disturb)


def restart_with_another_outcome(seed):
    world, random = World(seed, steps=2), Random(seed)
    world.trained = lambda me, step: digest(int(me), step, world.restarts[me])
    doomed = [random.randrange(4)]
    world.run(lambda: doomed and random.random() < 0.05 and world.restart(doomed.pop()))


def cut_off(seed):
    world = World(seed, steps=8)
    for peer in (0, 1, 3):
        world.sever(2, peer)

    def disturb():
        if world.cut and world.nodes[0].position.step >= 5:
            for peer in (0, 1, 3):
                world.connect(2, peer)

    world.run(disturb)


def liar_far_ahead(seed):
    world = World(seed, steps=9, liars={3: None})
    world.post(3, 0, Received(3, Hello(7)))
    world.post(3, 0, Received(3, Proposal(signed(3, digest("lie"), Slot(8)))))
    world.run()


def origin_restarts(seed):
    """Its certificate is lost; the one who has it got it before the bytes, and so never echoed."""
    one = signed(0, digest(seed))
    member, origin = SignedEcho(party(3), Slot(0), 0), SignedEcho(party(0), Slot(0), 0)
    member.handle(0, certificate(one, [0, 1, 2]))
    for again in member.resume(0):
        origin.handle(3, again.message)
    origin.start(one.header.digest)
    require(origin.done, "liveness: its vector is never certified again")


def stray_sub_round(seed):
    agreement = Agreement(party(), Slot(0), 2, Plain)
    agreement.handle(1, Proposal(signed(1, digest("a"), Slot(0, 0, 2 + seed))))


def halving(seed):
    for contraction in (Fraction(1, 4 + seed), Fraction(1, 2), Fraction(2, 3), Fraction(4, 5)):
        rounds = protocols.committee.sub_rounds(contraction)
        fewest = rounds == 1 or contraction ** (rounds - 1) > Fraction(1, 2)
        require(contraction**rounds <= Fraction(1, 2), "agreement: the spread is not halved")
        require(fewest, "agreement: fewer sub-rounds would do")


# Mutants: each makes one thing wrong.


def off(name, by):
    return lambda patch: patch.setattr(Committee, name, property(_shifted(getattr(Committee, name).fget, by)))


def _shifted(quorum, by):
    return lambda committee: quorum(committee) + by


def forgets_the_first_header(patch):
    see = Broadcast._see

    def forgetful(self, sender, one):
        if self.signed is not None and not self.mine and self.signed.header != one.header:
            self.signed = None
            if isinstance(self, SignedEcho):
                self._held.clear()
        return see(self, sender, one)

    patch.setattr(Broadcast, "_see", forgetful)


def accepts_repeated_signers(patch):
    patch.setattr(protocols.signed_echo, "pairwise", lambda members: ())


def accepts_short_certificates(patch):
    holds = SignedEcho._holds

    class Lax(Committee):
        echo_quorum = 1

    def lax(self, certificate):
        strict, self.party = self.party, replace(self.party, committee=Lax(self.party.committee.n, 1))
        try:
            return holds(self, certificate)
        finally:
            self.party = strict

    patch.setattr(SignedEcho, "_holds", lax)


def echoes_before_the_bytes_arrive(patch):
    propose = SignedEcho._propose

    def hasty(self, sender, proposal):
        seen = propose(self, sender, proposal)
        return seen + (self._echo(proposal.signed.header.digest) if self.certificate is None else [])

    patch.setattr(SignedEcho, "_propose", hasty)


def delivers_before_the_bytes_arrive(patch):
    def deliver(self):
        self.delivered = True
        return [Deliver(self.certificate.signed.header)]

    patch.setattr(SignedEcho, "_deliver", deliver)


def overlooks_equivocation(patch):
    accuse = Broadcast._accuse
    patch.setattr(
        Broadcast,
        "_accuse",
        lambda self, peer, fault, evidence=None: [] if evidence else accuse(self, peer, fault, evidence),
    )


def trusts_headers(patch):
    patch.setattr(Broadcast, "_verifies", lambda self, one: True)


def takes_any_sub_round(patch):
    def handle(self, sender, message):
        return self._harvest(self._gathers[message.slot.sub_round].handle(sender, message))

    patch.setattr(Agreement, "handle", handle)


def takes_any_slot(patch):
    patch.setattr(Node, "_exists", lambda self, slot: True)


def a_sub_round_too_few(patch):
    right = protocols.committee.sub_rounds
    patch.setattr(protocols.committee, "sub_rounds", lambda contraction: max(1, right(contraction) - 1))


def a_sub_round_too_many(patch):
    right = protocols.committee.sub_rounds
    patch.setattr(protocols.committee, "sub_rounds", lambda contraction: right(contraction) + 1)


def drops_words_about_later_slots(patch):
    patch.setattr(Node, "_hear_out", lambda self: [])


def talks_only_about_its_own_slot(patch):
    speak = Node._speak
    patch.setattr(
        Node, "_speak", lambda self, sender, said: speak(self, sender, said) if said.slot >= self.position else []
    )


def what_waits_holds_up_the_rest(patch):
    received = Node._received

    def queue(self, sender, message):
        if self._exists(message.slot) and self._deferred[sender]:
            self._deferred[sender].append(message)
            return []
        return received(self, sender, message)

    patch.setattr(Node, "_received", queue)


def says_nothing_again(patch):
    for protocol in (SignedEcho, Plain):
        patch.setattr(protocol, "resume", lambda self, peer: [])


def signs_twice_after_a_crash(patch):
    patch.setattr(Signer, "sign", Faithless.sign)


def forgets_what_it_is_told_before_its_start(patch):
    handle = SignedEcho.handle
    patch.setattr(
        SignedEcho,
        "handle",
        lambda self, sender, message: [] if self.mine and self.signed is None else handle(self, sender, message),
    )


def keeps_the_certificate_of_another_to_itself(patch):
    resume = SignedEcho.resume

    def reticent(self, peer):
        kept = None if self.mine else self.certificate
        if kept is None:
            return resume(self, peer)
        self.certificate = None
        try:
            return resume(self, peer)
        finally:
            self.certificate = kept

    patch.setattr(SignedEcho, "resume", reticent)


def never_jumps(patch):
    patch.setattr(Node, "_catch_up", lambda self: [])


def jumps_on_one_word(patch):
    catch_up = Node._catch_up

    def credulous(self):
        held, self.party = self.party, replace(self.party, committee=Committee(self.party.committee.n, 0))
        try:
            return catch_up(self)
        finally:
            self.party = held

    patch.setattr(Node, "_catch_up", credulous)


@dataclass(frozen=True)
class Mutant:
    """Args:
    change: makes the code wrong.
    scenario: the one that notices.
    guarantee: what it finds broken, or the error that the code runs into.
    seeds: within so many.
    """

    change: Callable[[pytest.MonkeyPatch], None]
    scenario: Callable[[int], None]
    guarantee: str
    seeds: int


MUTANTS = {
    "echo quorum − 1": Mutant(off("echo_quorum", -1), equivocator, "consistency", 10),
    "echo quorum + 1": Mutant(off("echo_quorum", 1), silent, "liveness", 1),
    "gather quorum − 1": Mutant(off("gather_quorum", -1), calm, "quorum", 1),
    "gather quorum + 1": Mutant(off("gather_quorum", 1), silent, "liveness", 1),
    "forgets the first header": Mutant(forgets_the_first_header, equivocator_among_the_forgetful, "consistency", 20),
    "accepts repeated signers": Mutant(accepts_repeated_signers, forger, "consistency", 5),
    "accepts short certificates": Mutant(accepts_short_certificates, forger, "consistency", 5),
    "echoes before the bytes arrive": Mutant(echoes_before_the_bytes_arrive, withholder, "availability", 1),
    "delivers before the bytes arrive": Mutant(delivers_before_the_bytes_arrive, calm, "availability", 1),
    "overlooks equivocation": Mutant(overlooks_equivocation, two_faced, "evidence", 1),
    "trusts headers": Mutant(trusts_headers, forger, "innocence", 5),
    "takes any sub-round": Mutant(takes_any_sub_round, stray_sub_round, "IndexError", 1),
    "takes any slot": Mutant(takes_any_slot, forger, "IndexError", 5),
    "a sub-round too few": Mutant(a_sub_round_too_few, halving, "agreement", 1),
    "a sub-round too many": Mutant(a_sub_round_too_many, halving, "agreement", 1),
    "drops words about later slots": Mutant(drops_words_about_later_slots, ahead, "liveness", 1),
    "talks only about its own slot": Mutant(talks_only_about_its_own_slot, silent, "liveness", 10),
    "says nothing again": Mutant(says_nothing_again, severed, "liveness", 5),
    "signs twice after a crash": Mutant(signs_twice_after_a_crash, restart_with_another_outcome, "innocence", 20),
    "forgets what it is told before its start": Mutant(
        forgets_what_it_is_told_before_its_start, restarts, "liveness", 20
    ),
    "keeps the certificate of another to itself": Mutant(
        keeps_the_certificate_of_another_to_itself, origin_restarts, "liveness", 1
    ),
    "never jumps": Mutant(never_jumps, cut_off, "liveness", 1),
    "jumps on one word": Mutant(jumps_on_one_word, liar_far_ahead, "liveness", 1),
    "what waits holds up the rest": Mutant(what_waits_holds_up_the_rest, echo_after_later_words, "liveness", 1),
}


def noticed(scenario, seed):
    """The guarantee that did not hold, or the error that the code ran into."""
    try:
        scenario(seed)
    except Broken as broken:
        return str(broken).split(":")[0]
    except (LookupError, AssertionError) as error:
        return type(error).__name__
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed_by_its_scenario(name, monkeypatch):
    mutant = MUTANTS[name]
    mutant.change(monkeypatch)
    kills = (noticed(mutant.scenario, seed) for seed in range(mutant.seeds))
    assert next(filter(None, kills), f"survived {mutant.seeds} seeds") == mutant.guarantee


SCENARIOS = {mutant.scenario for mutant in MUTANTS.values()}


@pytest.mark.parametrize("scenario", sorted(SCENARIOS, key=lambda scenario: scenario.__name__))
def test_the_code_as_it_is_passes_every_scenario(scenario):
    for seed in range(min(40, max(mutant.seeds for mutant in MUTANTS.values() if mutant.scenario is scenario))):
        scenario(seed)
