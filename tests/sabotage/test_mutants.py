"""Who tests the tests: code made wrong in one place, and what notices it within so many seeds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest

import p2pnode.aggregation.coordinate
import p2pnode.aggregation.distance
import p2pnode.learning.local
import protocols.committee
import protocols.reliable
import protocols.signed_echo
from p2pnode.node import Node, Received, Release, Started, Trained
from p2pnode.recipe import choose
from p2pnode.simulation.checks import Violation
from p2pnode.simulation.network import Network
from p2pnode.simulation.process import Disk
from p2pnode.simulation.sweep import Sweep
from p2pnode.storage.vectors import Vectors, Verdict
from protocols import effects
from protocols.agreement import Agreement
from protocols.broadcast import Broadcast
from protocols.committee import Committee
from protocols.conviction import Convictions
from protocols.effects import Deliver, DigestEcho, Hello, Proposal, Ready, Report
from protocols.faults import Equivocation
from protocols.gather import Gather
from protocols.header import Header, Slot
from protocols.plain import Plain
from protocols.reliable import Reliable
from protocols.signed_echo import SignedEcho
from tests.ideal import Signer, certificate, digest, echo, party, signed


def require(holds, guarantee):
    if not holds:
        raise Violation(guarantee, "")


# Scenarios: each runs one seed, and raises where a guarantee does not hold.


def simulated(recipe, nodes, attacks="", schedule="random", *, byzantine=1, steps=1, **options):
    """Runs in the simulator; several schedules, split at commas, take turns."""
    attack = tuple(attacks.split(",")) if attacks else ()
    schedules = tuple(schedule.split(","))
    lying = byzantine if attack else 0
    sweep = Sweep(nodes, lying, byzantine, recipe, (attack,), schedules, steps, **options)

    def run(seed):
        network = Network(sweep.scenario(seed), seed)
        network.run()
        return network

    run.sweep = sweep
    return run


def convicts(seed):
    require(simulated("trimmed", 5, "equivocate", steps=3)(seed).convicted, "evidence")


def echo_after_later_words(seed):
    """What a peer far ahead says of later slots comes before its echo, the last one that is needed."""
    node = Node(party(), choose("trimmed", Committee(5, 1)), steps=9)
    node.handle(Started())
    own = signed(0, digest(0))
    node.handle(Trained(0, digest(0)))
    node.handle(Received(1, echo(1, own)))
    node.handle(Received(2, Proposal(signed(2, digest(2), Slot(2 + seed)))))
    certified = node.handle(Received(2, echo(2, own)))
    require(effects.Broadcast(certificate(own, [0, 1, 2])) in certified, "liveness")


def liar_far_ahead(seed):
    """One liar claims to be far ahead, and to have forgotten what is here."""
    node = Node(party(), choose("trimmed", Committee(5, 1)), steps=9)
    node.handle(Started())
    node.handle(Received(3, Hello(7)))
    node.handle(Received(3, Proposal(signed(3, digest("lie"), Slot(7)))))
    require(node.position == Slot(0), "liveness")


def origin_restarts(seed):
    """Its certificate is lost; the one who has it got it before the bytes, and so never echoed."""
    one = signed(0, digest(seed))
    member, origin = SignedEcho(party(3), Slot(0), 0), SignedEcho(party(0), Slot(0), 0)
    member.handle(0, certificate(one, [0, 1, 2]))
    for again in member.resume(0):
        if isinstance(again, effects.Send):
            origin.handle(3, again.message)
    origin.start(one.header.digest)
    require(origin.done, "liveness")


def ready_member_restarts(seed):
    """One delivers what the liar proposed, with the help of one that crashes, while the third has heard little."""
    named, disks = digest(seed), [Signer(member) for member in range(3)]
    first, second, third = (Reliable(party(member, signer=disks[member]), Slot(0), 3) for member in range(3))
    for other in (1, 3):
        first.handle(other, Ready(Slot(0), 3, named))
    for other in (0, 3):
        second.handle(other, Ready(Slot(0), 3, named))
    third.handle(0, Ready(Slot(0), 3, named))
    second = Reliable(party(1, signer=disks[1]), Slot(0), 3)
    for word in second.handle(0, Ready(Slot(0), 3, named)):
        if isinstance(word, effects.Broadcast):
            third.handle(1, word.message)
    require(third.arrived(named), "totality")


def reporter_restarts(seed):
    """Its first report names a liar whose value nobody remembers any more."""
    gathering, values = Gather(party(0), Slot(0), Reliable), [digest(seed, member) for member in range(4)]
    gathering.start(values[0])
    for member in range(3):
        gathering.handle(member, DigestEcho(signed(member, values[member])))
        for other in (1, 2, 3):
            gathering.handle(other, Ready(Slot(0), member, values[member]))
        gathering.arrived(values[member])
    gathering.handle(1, Report(Slot(0), (0, 1, 3)))
    gathering.handle(2, Report(Slot(0), (0, 1, 2)))
    gathering.handle(1, Report(Slot(0), (0, 1, 2)))
    require(gathering.gathered, "liveness")


def stray_sub_round(seed):
    agreement = Agreement(party(), Slot(0), 2, Plain)
    agreement.handle(1, Proposal(signed(1, digest("a"), Slot(0, 0, 2 + seed))))


def halving(seed):
    for contraction in (Fraction(1, 4 + seed), Fraction(1, 2), Fraction(2, 3), Fraction(4, 5)):
        rounds = protocols.committee.sub_rounds(contraction)
        fewest = rounds == 1 or contraction ** (rounds - 1) > Fraction(1, 2)
        require(contraction**rounds <= Fraction(1, 2) and fewest, "agreement")


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
            self._held.clear()
        return see(self, sender, one)

    patch.setattr(Broadcast, "_see", forgetful)
    patch.setattr(Disk, "promise", lambda self, claim: True)


def echoes_every_header(patch):
    echoing = Reliable._echo

    def generous(self):
        self._my_echo, self._equivocated = None, False
        return echoing(self)

    def see(self, sender, one):
        self.signed = one
        return [effects.Expect(one.header)]

    patch.setattr(Reliable, "_echo", generous)
    patch.setattr(Reliable, "_see", see)
    patch.setattr(Disk, "promise", lambda self, claim: True)


def counts_a_vote_again(patch):
    def add(self, member, digest):
        self.votes[member] = digest
        self.count[digest] += 1
        return self.count[digest]

    patch.setattr(protocols.reliable._Tally, "add", add)


def accepts_repeated_signers(patch):
    patch.setattr(protocols.signed_echo, "pairwise", lambda members: ())


def lets_the_origin_vouch_twice(patch):
    holds = SignedEcho._holds

    def lax(self, certificate):
        echoes = tuple(one for one in certificate.echoes if one[0] != self.origin)
        with pytest.MonkeyPatch.context() as fewer:
            off("echo_quorum", -(len(echoes) < len(certificate.echoes)))(fewer)
            return holds(self, replace(certificate, echoes=echoes))

    patch.setattr(SignedEcho, "_holds", lax)


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


def votes_before_the_bytes_arrive(patch):
    see = Reliable._see

    def hasty(self, sender, one):
        seen = see(self, sender, one)
        if self.signed is None:
            return seen
        self._held.add(self.signed.header.digest)
        out = seen + self._echo()
        self._held.discard(self.signed.header.digest)
        return out

    patch.setattr(Reliable, "_see", hasty)


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


def accuses_whoever_shows_a_second_header(patch):
    accuse = Broadcast._accuse

    def blame(self, peer, fault, evidence=None):
        messenger = self.party.committee.members[(peer + 1) % self.party.committee.n]
        return accuse(self, messenger if evidence else peer, fault, evidence)

    patch.setattr(Broadcast, "_accuse", blame)


def keeps_a_proof_to_itself(patch):
    patch.setattr(Convictions, "found", lambda self, proof: self.held.setdefault(proof.accused, proof) and [])


def never_shows_a_proof_again(patch):
    patch.setattr(Convictions, "resume", lambda self, peer: [])


def trusts_proofs(patch):
    patch.setattr(Equivocation, "holds", lambda self, network, verify: True)


def trusts_headers(patch):
    patch.setattr(Broadcast, "_verifies", lambda self, one: True)


def takes_any_sub_round(patch):
    def handle(self, sender, message):
        return self._harvest(self._gathers[message.slot.sub_round].handle(sender, message))

    patch.setattr(Agreement, "handle", handle)


def takes_any_slot(patch):
    patch.setattr(Node, "exists", lambda self, slot: True)


def a_sub_round_too_few(patch):
    right = protocols.committee.sub_rounds
    patch.setattr(protocols.committee, "sub_rounds", lambda contraction: max(1, right(contraction) - 1))


def a_sub_round_too_many(patch):
    right = protocols.committee.sub_rounds
    patch.setattr(protocols.committee, "sub_rounds", lambda contraction: right(contraction) + 1)


def waits_for_no_witnesses(patch):
    begin = Gather.__init__

    def init(self, *arguments):
        begin(self, *arguments)
        self._with_witnesses = False

    patch.setattr(Gather, "__init__", init)
    patch.setattr(Gather, "_report", lambda self, sender, report: [])


def takes_a_reporter_for_a_witness(patch):
    patch.setattr(Gather, "_count_witnesses", lambda self: len(self._reports))


def waits_for_a_witness_too_few(patch):
    count = Gather._count_witnesses
    patch.setattr(Gather, "_count_witnesses", lambda self: count(self) + 1)


def keeps_to_a_members_first_report(patch):
    report = Gather._report
    patch.setattr(
        Gather,
        "_report",
        lambda self, sender, told: [] if sender in self._reports else report(self, sender, told),
    )


def forgets_that_it_was_ready(patch):
    patch.setattr(Signer, "promised", lambda self, place: None)


def never_asks_for_bytes(patch):
    patch.setattr(Reliable, "_fetch", lambda self, digest, holders: effects.Fetch(_header(self, digest), ()))


def _header(broadcast, digest) -> Header:
    return broadcast.party.header(broadcast.origin, broadcast.slot, digest)


def lets_go_of_others_bytes_at_once(patch):
    patch.setattr(Node, "_release", lambda self, before: Release(before, Slot(self.oldest)))


def throws_away_what_it_has(patch):
    judge = Vectors.judge

    def hasty(self, peer, slot, digest, nbytes):
        wanted = self._wanted.get(digest)
        if self.get(digest) is not None and (wanted is None or peer not in wanted.senders):
            return Verdict.DISCARD
        return judge(self, peer, slot, digest, nbytes)

    patch.setattr(Vectors, "judge", hasty)


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
        if self.exists(message.slot) and self._deferred.get(sender):
            self._deferred[sender].append(message)
            return []
        return received(self, sender, message)

    patch.setattr(Node, "_received", queue)


def says_nothing_again(patch):
    for protocol in (SignedEcho, Plain, Reliable, Gather):
        patch.setattr(protocol, "resume", lambda self, peer: [])


def restates_nothing(patch):
    patch.setattr(Node, "_restate", lambda self: [])


def skips_the_flush(patch):
    patch.setattr(Disk, "flush", lambda self: None)


def signs_for_a_step_not_a_slot(patch):
    patch.setattr(Slot, "place", property(lambda self: str(self.step)))


def computes_again_what_it_proposed(patch):
    patch.setattr(Disk, "propose", lambda self, slot, digest, vector: (digest, vector))


def forgets_what_it_is_told_before_its_start(patch):
    patch.setattr(SignedEcho, "_refused", lambda self: [])


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


def mixes_with(rule, **changed):
    """The rule as if fewer lied than do."""

    def change(patch):
        mix = p2pnode.learning.local.mix

        def wrong(name, vectors, *, f, **options):
            return mix(rule or name, vectors, f=changed.get("f", f), **options)

        patch.setattr(p2pnode.learning.local, "mix", wrong)

    return change


@dataclass(frozen=True)
class Mutant:
    """Args:
    change: makes the code wrong.
    scenario: the one that notices.
    guarantee: what it finds broken, or the error that the code runs into.
    seeds: within so many.
    """

    change: Callable[[pytest.MonkeyPatch], None]
    scenario: Callable[[int], object]
    guarantee: str
    seeds: int


TWO_FACED = "equivocate,selective"
TORN = "crash,power-cut"

MUTANTS = {
    # Signed echo broadcast.
    "echo quorum − 1": Mutant(off("echo_quorum", -1), simulated("signed-echo", 4, TWO_FACED), "consistency", 40),
    "echo quorum + 1": Mutant(off("echo_quorum", 1), simulated("signed-echo", 4, "silent"), "liveness", 1),
    "forgets the first header": Mutant(
        forgets_the_first_header, simulated("trimmed", 5, "equivocate"), "consistency", 100
    ),
    "accepts repeated signers": Mutant(accepts_repeated_signers, simulated("trimmed", 5, "forge"), "consistency", 150),
    "lets the origin vouch twice": Mutant(
        lets_the_origin_vouch_twice, simulated("signed-echo", 4, "forge"), "consistency", 300
    ),
    "accepts short certificates": Mutant(
        accepts_short_certificates, simulated("trimmed", 5, "forge"), "consistency", 20
    ),
    "echoes before the bytes arrive": Mutant(
        echoes_before_the_bytes_arrive, simulated("signed-echo", 4, "withhold"), "availability", 5
    ),
    "delivers before the bytes arrive": Mutant(
        delivers_before_the_bytes_arrive, simulated("trimmed", 5, "withhold"), "availability", 5
    ),
    "overlooks equivocation": Mutant(overlooks_equivocation, convicts, "evidence", 1),
    "blames the messenger": Mutant(
        accuses_whoever_shows_a_second_header, simulated("signed-echo", 4, "equivocate"), "innocence", 10
    ),
    "evidence not relayed": Mutant(keeps_a_proof_to_itself, convicts, "evidence", 5),
    "never shows a proof again": Mutant(
        never_shows_a_proof_again, simulated("trimmed", 5, "equivocate", "isolate-one", steps=3), "evidence", 20
    ),
    "trusts proofs": Mutant(trusts_proofs, simulated("trimmed", 5, "forge"), "innocence", 5),
    "trusts headers": Mutant(trusts_headers, simulated("trimmed", 5, "forge"), "innocence", 5),
    "forgets what it is told before its start": Mutant(
        forgets_what_it_is_told_before_its_start, simulated("trimmed", 5, "silent", TORN, steps=2), "liveness", 100
    ),
    "keeps the certificate of another to itself": Mutant(
        keeps_the_certificate_of_another_to_itself, origin_restarts, "liveness", 1
    ),
    # Reliable broadcast.
    "echo quorum − 1, reliable": Mutant(off("echo_quorum", -1), simulated("reliable", 4, TWO_FACED), "totality", 100),
    "echo quorum + 1, reliable": Mutant(off("echo_quorum", 1), simulated("reliable", 4, "silent"), "liveness", 1),
    "ready on f readies": Mutant(off("one_honest", -1), simulated("reliable", 4, "forge"), "totality", 150),
    "ready on f+2 readies": Mutant(off("one_honest", 1), simulated("reliable", 4, TWO_FACED), "totality", 150),
    "delivers on 2f readies": Mutant(off("ready_quorum", -1), simulated("reliable", 4, TWO_FACED), "totality", 150),
    "delivers on 2f+2 readies": Mutant(off("ready_quorum", 1), simulated("reliable", 4, "silent"), "liveness", 1),
    "echoes every header": Mutant(echoes_every_header, simulated("reliable", 4, "equivocate"), "consistency", 20),
    "counts a vote again": Mutant(counts_a_vote_again, simulated("reliable", 4, TWO_FACED), "totality", 300),
    "votes before the bytes arrive": Mutant(
        votes_before_the_bytes_arrive, simulated("reliable", 4, "withhold"), "availability", 5
    ),
    "never asks for bytes": Mutant(never_asks_for_bytes, simulated("reliable", 4, "withhold"), "totality", 40),
    "forgets that it was ready": Mutant(forgets_that_it_was_ready, ready_member_restarts, "totality", 1),
    # Gather, with and without witnesses.
    "gather quorum − 1": Mutant(off("gather_quorum", -1), simulated("trimmed", 5), "quorum", 1),
    "gather quorum + 1": Mutant(off("gather_quorum", 1), simulated("trimmed", 5, "silent"), "liveness", 1),
    "waits for no witnesses": Mutant(
        waits_for_no_witnesses, simulated("jungle-rb", 4, "equivocate", sub_rounds=1), "witness", 20
    ),
    "takes a reporter for a witness": Mutant(
        takes_a_reporter_for_a_witness, simulated("jungle-rb", 4, "equivocate", sub_rounds=1), "witness", 100
    ),
    "waits for a witness too few": Mutant(
        waits_for_a_witness_too_few, simulated("jungle-rb", 4, "equivocate", sub_rounds=1), "witness", 150
    ),
    "keeps to a member's first report": Mutant(keeps_to_a_members_first_report, reporter_restarts, "liveness", 1),
    # Agreement and its rules.
    "takes any sub-round": Mutant(takes_any_sub_round, stray_sub_round, "IndexError", 1),
    "a sub-round too few": Mutant(a_sub_round_too_few, halving, "agreement", 1),
    "a sub-round too many": Mutant(a_sub_round_too_many, halving, "agreement", 1),
    "trims f − 1": Mutant(mixes_with(None, f=0), simulated("trimmed", 5, "random"), "validity", 10),
    "averages where it should trim": Mutant(mixes_with("mean"), simulated("trimmed", 5, "sign-flip"), "validity", 10),
    "leaves out f − 1 of the far": Mutant(mixes_with(None, f=0), simulated("monna", 6, "random"), "validity", 10),
    "takes the median for the trimmed mean": Mutant(
        mixes_with("median"), simulated("trimmed", 9, byzantine=2), "agreement", 100
    ),
    # The node.
    "takes any slot": Mutant(takes_any_slot, simulated("trimmed", 5, "forge"), "IndexError", 5),
    "drops words about later slots": Mutant(
        drops_words_about_later_slots, simulated("trimmed", 5, "", "starve-one", steps=3), "liveness", 20
    ),
    "talks only about its own slot": Mutant(
        talks_only_about_its_own_slot, simulated("trimmed", 5, "silent", steps=2), "liveness", 10
    ),
    "what waits holds up the rest": Mutant(what_waits_holds_up_the_rest, echo_after_later_words, "liveness", 1),
    "lets go of others' bytes at once": Mutant(
        lets_go_of_others_bytes_at_once, simulated("jungle-rb", 4, "twins", "newest-first,starve-one"), "liveness", 100
    ),
    "throws away what it has": Mutant(
        throws_away_what_it_has, simulated("jungle-mda", 7, "twins", "newest-first", steps=2), "liveness", 100
    ),
    "never jumps": Mutant(never_jumps, simulated("trimmed", 5, "", "isolate-one", steps=9), "liveness", 100),
    "jumps on one word": Mutant(jumps_on_one_word, liar_far_ahead, "liveness", 1),
    # Over crashes.
    "says nothing again": Mutant(says_nothing_again, simulated("trimmed", 5, "silent", "isolate-one"), "liveness", 40),
    "restates nothing": Mutant(
        restates_nothing, simulated("trimmed", 5, "silent", "power-cut", steps=3), "liveness", 20
    ),
    "skips the flush": Mutant(skips_the_flush, simulated("trimmed", 5, TWO_FACED, TORN, steps=2), "consistency", 150),
    "signs for a step, not a slot": Mutant(
        signs_for_a_step_not_a_slot, simulated("jungle-rb", 4, steps=1, sub_rounds=2), "liveness", 1
    ),
    "computes again what it proposed": Mutant(
        computes_again_what_it_proposed, simulated("trimmed", 5, "silent", TORN, steps=2), "liveness", 20
    ),
}


def noticed(scenario, seed):
    """The guarantee that did not hold, or the error that the code ran into."""
    try:
        scenario(seed)
    except Violation as violation:
        return violation.guarantee
    except (LookupError, AssertionError) as error:
        return type(error).__name__
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed_by_its_scenario(name, monkeypatch):
    mutant = MUTANTS[name]
    mutant.change(monkeypatch)
    kills = (noticed(mutant.scenario, seed) for seed in range(mutant.seeds))
    assert next(filter(None, kills), f"survived {mutant.seeds} seeds") == mutant.guarantee


@pytest.mark.parametrize("name", MUTANTS)
def test_the_code_as_it_is_passes_the_scenario_of(name):
    for seed in range(min(20, MUTANTS[name].seeds)):
        MUTANTS[name].scenario(seed)


def test_the_documentation_lists_every_mutant_and_its_seeds():
    documented = (Path(__file__).parents[2] / "docs/protocols.md").read_text()
    for name, mutant in MUTANTS.items():
        assert f"| {name} | {mutant.guarantee} | {mutant.seeds} |" in documented
