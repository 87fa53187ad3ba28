"""The worst contraction of one sub-round of averaging agreement, found by enumeration.

The adversary owns every link and all f liars. It decides who hears which values before it has enough, and what the
liars say. The ratio is that of the honest values' spread after the sub-round to the spread before.

A schedule matters only by what it makes two honest members, `us` and `them`, hold when they mix. So the search runs
over pairs of sets of held values, and real code says what each pair is worth: `Gather`, over a real broadcast, whether
it outputs such a set, and the real rule what becomes of it. Three symmetries make that a search over counts; none of
them is an approximation.

* To gather and the broadcasts all other members are alike, and who lies shows nowhere: renaming members renames what
  they output. A set counts by how many honest members and how many liars it holds of.
* They compare digests for equality only, so whether they output hangs on no value. The rule sees values only, and a
  trimmed mean no order: so what a member mixes depends on its own value and on how many others said what.
* The two members are any two: what us − them can be, them − us can be as well.
"""

import struct
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement as multisets
from itertools import product

import pytest
import torch

from p2pnode.aggregation import aggregate
from protocols.committee import Committee
from protocols.effects import Accuse, Broadcast, Deliver, Expect, Fetch, Proposal, Ready, Report, Send
from protocols.faults import Fault
from protocols.gather import Gather
from protocols.header import Slot
from protocols.plain import Plain
from protocols.reliable import Reliable
from protocols.signed_echo import SignedEcho
from tests.ideal import FIRST, certificate, party, sign, signed

BIG = 2.0**60
"""Seen at once in any mean that it enters, and finite."""
LIES = (-BIG, 0, 1, BIG)
HALF_A_SPREAD_OUTSIDE = tuple(k / 4 for k in range(5)), tuple(k / 4 for k in range(-2, 7))
A_SPREAD_OUTSIDE = tuple(k / 2 for k in range(3)), tuple(k / 2 for k in range(-2, 5))
"""Honest values, and lies."""

TRIMMED = [Committee(n, f) for f, sizes in ((1, range(4, 8)), (2, range(7, 11))) for n in sizes]
NEAREST = [Committee(n, 1) for n in range(5, 9)]

EXPECTED = """\
| rule | lies | f | n | plain | signed-echo | reliable |
|---|---|---|---|---|---|---|
| trimmed-mean | any | 1 | 4 | 1 | 1 | 1/2 |
| trimmed-mean | any | 1 | 5 | 1 | 1/2 | 1/3 |
| trimmed-mean | any | 1 | 6 | 2/3 | 1/3 | 1/4 |
| trimmed-mean | any | 1 | 7 | 1/2 | 1/4 | 1/5 |
| trimmed-mean | any | 2 | 7 | 1 | 1 | 2/3 |
| trimmed-mean | any | 2 | 8 | 1 | 1 | 1/2 |
| trimmed-mean | any | 2 | 9 | 1 | 2/3 | 2/5 |
| trimmed-mean | any | 2 | 10 | 1 | 1/2 | 1/3 |
| nearest-neighbour | any | 1 | 5 | 5/3 | 1 | |
| nearest-neighbour | any | 1 | 6 | 5/4 | 3/4 | |
| nearest-neighbour | any | 1 | 7 | 1 | 3/5 | |
| nearest-neighbour | any | 1 | 8 | 5/6 | 1/2 | |
| nearest-neighbour | half a spread outside | 1 | 5 | 4/3 | 5/6 | |
| nearest-neighbour | half a spread outside | 1 | 6 | 1 | 5/8 | |
| nearest-neighbour | half a spread outside | 1 | 7 | 4/5 | 1/2 | |
| nearest-neighbour | half a spread outside | 1 | 8 | 2/3 | 5/12 | |"""


def table():
    """The worst ratios found, one row a committee, for people to read."""
    head = ["| rule | lies | f | n | plain | signed-echo | reliable |", "|---|---|---|---|---|---|---|"]
    trimmed = [
        row("trimmed-mean | any", c, *(worst_trimmed(k, c) for k in (Plain, SignedEcho, Reliable))) for c in TRIMMED
    ]
    nearest = [
        row(f"nearest-neighbour | {lies}", c, *(worst_nearest(k, c, grids) for k in (Plain, SignedEcho)), "")
        for lies, grids in (("any", A_SPREAD_OUTSIDE), ("half a spread outside", HALF_A_SPREAD_OUTSIDE))
        for c in NEAREST
    ]
    return "\n".join(head + trimmed + nearest)


def row(what, committee, *ratios):
    return f"| {what} | {committee.f} | {committee.n} | " + " | ".join(map(str, ratios)).rstrip() + " |"


# One honest member, and what the adversary makes it hear.


class Signer:
    """Never signs or promises two statements for one place."""

    def __init__(self, me):
        self.me = me
        self.said = {}

    def promise(self, claim):
        return self.said.setdefault(claim.place, claim.statement) == claim.statement

    def promised(self, place):
        return self.said.get(place)

    def sign(self, claim):
        return sign(self.me, claim.statement) if self.promise(claim) else None


def name(value):
    """Stands for the digest of a vector of one number, and gives the number back."""
    return struct.pack("<d24x", value)


def value_of(digest):
    return struct.unpack("<d24x", digest)[0]


class Listener:
    """A real `Gather` at one honest member, which hears what the adversary lets it hear."""

    def __init__(self, kind, committee, me=0, slot=FIRST):
        self.kind, self.committee, self.slot = kind, committee, slot
        self.gathering = Gather(party(me, committee.n, committee.f, Signer(me)), slot, kind)
        self.others = [member for member in committee.members if member != me]
        self.output, self.reported = None, None

    def start(self, value):
        self._take(self.gathering.start(name(value)))

    def tell(self, origin, value):
        """All messages that make its broadcast deliver this value of the origin, and the bytes."""
        for sender, message in self._words(signed(origin, name(value), self.slot)):
            self._take(self.gathering.handle(sender, message))
        self._take(self.gathering.arrived(name(value)))

    def report(self, sender, members):
        self._take(self.gathering.handle(sender, Report(self.slot, tuple(sorted(members)))))

    def _words(self, of):
        origin = of.header.origin
        if self.kind is SignedEcho:
            return [(origin, certificate(of, self.committee.members[: self.committee.echo_quorum]))]
        readies = self.others[: self.committee.ready_quorum] if self.kind is Reliable else []
        return [(origin, Proposal(of)), *((one, Ready(self.slot, origin, of.header.digest)) for one in readies)]

    def _take(self, effects):
        for effect in effects:
            assert not isinstance(effect, Accuse)
            if isinstance(effect, Deliver):
                assert self.output is None
                self.output = {member: value_of(digest) for member, digest in effect.value.values}
            if isinstance(effect, Broadcast) and isinstance(effect.message, Report):
                self.reported = effect.message.delivered


@cache
def mix(rule, values, f):
    """By the real rule, one's own value first, exactly: float32 tells fractions of so small denominators apart."""
    return Fraction(mixture(rule, values, f)).limit_denominator(64)


def mixture(rule, values, f):
    return aggregate(rule, torch.tensor([[float(value)] for value in values]), f=f, own=0).item()


def outcome(rule, kind, committee, values):
    """What a member mixes that holds just these values, its own the first; None where its `Gather` waits for more."""
    same = tuple(values.index(value) for value in values)
    return mix(rule, values, committee.f) if gathers(kind, committee, same) else None


@cache
def gathers(kind, committee, values):
    """Whether a member that hears of just these values, its own the first, outputs them.

    By the first two symmetries from whom and in which order is no matter, nor what they are, but only which are equal.
    Over a total broadcast all others report what it holds: whether they honestly can is asked of `can_hold`.
    """
    listener = Listener(kind, committee)
    if surplus := len(values) > committee.gather_quorum:  # only what came before the start can exceed n−f
        hear(listener, values)
    listener.start(values[0])
    if not surplus:
        hear(listener, values)
    if kind.total:
        for member in listener.others:
            listener.report(member, committee.members[: report_size(committee)])
    return listener.output == dict(enumerate(values))


def hear(listener, values):
    for origin, value in list(enumerate(values))[1:]:
        listener.tell(origin, value)


# Whom two members can hear at once.

CELLS = ((True, True), (True, False), (False, True), (False, False))
"""Whether we hold of a member, and whether they do."""


def pairs(committee, most):
    """(whom we hold, whom they hold): member 0 are we, 1 are they, the last f lie; up to renaming the others.

    From one less than n−f on, so that it is `Gather` which refuses those.
    """
    both, ours, theirs, _ = CELLS
    for us, them, honest, liars in product(
        (both, ours),
        (both, theirs),
        multisets(CELLS, committee.gather_quorum - 2),
        multisets(CELLS, committee.f),
    ):
        held = [{m for m, cell in enumerate((us, them, *honest, *liars)) if cell[side]} for side in (0, 1)]
        if all(committee.gather_quorum - 1 <= len(one) <= most for one in held):
            yield held


@cache
def report_size(committee):
    """How many an honest member names as soon as it may: by more it would be a witness of fewer."""
    listener = Listener(Reliable, committee)
    listener.start(0)
    for origin in listener.others:
        if listener.reported is None:
            listener.tell(origin, 0)
    assert 0 in listener.reported
    return len(listener.reported)


def can_hold(committee, ours, theirs):
    """Whether two members can output these sets at once, whatever honest members report that they honestly can.

    An honest report names its maker. It is the same to all, so its maker prefers whom both hold, and then must take
    a side; only how many take ours matters. Liars report to each what it holds. A report that fits is never worse for
    the adversary: it may withhold the last one until all is delivered that it wants delivered.
    """
    honest, shared = committee.members[: committee.gather_quorum], ours & theirs
    torn = [member for member in honest[2:] if member in shared]
    for ours_of_them in range(len(torn) + 1):
        for_us = {0, *torn[:ours_of_them], *(ours - shared)}
        reports = {p: honest_report(committee, p, shared, ours if p in for_us else theirs) for p in honest}
        if all(outputs(committee, me, held, reports) for me, held in enumerate((ours, theirs))):
            return True
    return False


def honest_report(committee, maker, shared, side):
    names = dict.fromkeys((maker, *sorted(shared), *sorted(side), *committee.members))
    return set(list(names)[: report_size(committee)])


def outputs(committee, me, held, reports):
    """Whether `me` outputs when it holds these: asks `Gather`, to which a report counts by how much of it is not here.

    Own reports always fit, and are `Gather`'s own affair.
    """
    absent = [len(names - held) for member, names in reports.items() if member != me]
    lying = [max(0, report_size(committee) - len(held))] * committee.f
    return has_witnesses(committee, len(held), tuple(sorted(absent + lying)))


@cache
def has_witnesses(committee, held, absent):
    """Whether `Gather` outputs on so many values and such reports, by how many of the reported it does not hold."""
    listener = Listener(Reliable, committee)
    listener.start(0)
    hear(listener, [0] * held)
    for reporter, unknown in zip(listener.others, absent, strict=True):
        names = committee.members[: report_size(committee) - unknown] + committee.members[held : held + unknown]
        listener.report(reporter, names)
    return listener.output is not None


# Trimmed mean.


@cache
def worst_trimmed(kind, committee, most=None):
    """The greatest us − them, over all that two members can hold at once; each holds of `most` members at most.

    The honest values are 0 and 1, both there, so the spread before is 1.
    """
    shapes = {
        shape(committee, ours, theirs)
        for ours, theirs in pairs(committee, most or committee.n)
        if not kind.total or can_hold(committee, ours, theirs)
    }
    return max(greatest_difference(kind, committee, *cells) for cells in shapes)


def shape(committee, ours, theirs):
    """How many honest members, and how many liars, both hold of, only we, only they, and neither."""
    cells = Counter(
        (member >= committee.gather_quorum, member in ours, member in theirs) for member in committee.members
    )
    return tuple(tuple(cells[lies, us, them] for us, them in CELLS) for lies in (False, True))


def greatest_difference(kind, committee, honest, liars):
    """Over all values; nothing, where `Gather` at one of the two waits for more than such a set."""
    greatest = Fraction(0)
    for ones in product(*(range(count + 1) for count in honest)):
        if not 0 < sum(ones) < sum(honest):
            continue  # no spread before, none after
        for our_lies, their_lies in told(kind, liars):
            ours = [trimmed(kind, committee, honest, ones, 1, lies) for lies in our_lies]
            theirs = [trimmed(kind, committee, honest, ones, 2, lies) for lies in their_lies]
            if None in ours + theirs:
                return Fraction(0)
            greatest = max(greatest, max(ours) - min(theirs))
    return greatest


def trimmed(kind, committee, honest, ones, side, lies):
    """What one mixes who holds what both hold, and what is in its own cell."""
    high = ones[0] + ones[side]
    low = honest[0] + honest[side] - high
    own, *others = [0] * low + [1] * high
    return outcome("trimmed-mean", kind, committee, (own, *sorted([*others, *lies])))


def told(kind, liars):
    """Pairs of choices: what the liars may tell us, and what they may then tell them.

    Where they can equivocate, the one does not bind the other. Elsewhere who is heard by both tells both the same.
    """
    both, ours, theirs, _ = liars
    if not kind.consistent:
        yield list(multisets(LIES, both + ours)), list(multisets(LIES, both + theirs))
        return
    for shared, us, them in product(multisets(LIES, both), multisets(LIES, ours), multisets(LIES, theirs)):
        yield [shared + us], [shared + them]


@pytest.mark.parametrize("kind", [Plain, SignedEcho, Reliable])
@pytest.mark.parametrize("committee", TRIMMED, ids=str)
def test_the_worst_contraction_of_trimmed_mean_is_the_one_that_the_committee_states(kind, committee):
    stated = committee.trimmed_mean_contraction(consistent=kind.consistent, total=kind.total)
    assert worst_trimmed(kind, committee) == min(1, stated)


@pytest.mark.parametrize("kind", [Plain, SignedEcho])
@pytest.mark.parametrize("committee", TRIMMED, ids=str)
def test_values_that_came_before_the_start_make_no_trimmed_mean_worse(kind, committee):
    exactly = worst_trimmed(kind, committee, most=committee.gather_quorum)
    assert worst_trimmed(kind, committee) == exactly


@pytest.mark.parametrize("committee", TRIMMED, ids=str)
def test_two_members_with_as_few_values_as_witnesses_allow_mix_the_same(committee):
    assert worst_trimmed(Reliable, committee, most=committee.gather_quorum) == 0


@pytest.mark.parametrize("committee", TRIMMED, ids=str)
def test_two_members_with_witnesses_share_n_minus_f_values_and_any_two_such_sets_are_possible(committee):
    for ours, theirs in pairs(committee, committee.n):
        assert can_hold(committee, ours, theirs) == (len(ours & theirs) >= committee.gather_quorum)


def test_the_table_of_worst_contractions():
    assert table() == EXPECTED


# The worst case of witnesses, by real messages.


class Network:
    """n real gathers over reliable broadcasts; the bytes follow their header at once."""

    def __init__(self, committee):
        self.members = committee.members
        self.gatherings = [
            Gather(party(me, committee.n, committee.f, Signer(me)), FIRST, Reliable) for me in self.members
        ]
        self.pending, self.outputs = [], {}

    def start(self, values):
        for me, value in enumerate(values):
            self._perform(me, self.gatherings[me].start(name(value)))

    def deliver(self, lets_through):
        """All messages, answers included, that the adversary lets through now."""
        while ready := [item for item in self.pending if lets_through(*item)]:
            self.pending = [item for item in self.pending if item not in ready]
            for sender, to, message in ready:
                self._perform(to, self.gatherings[to].handle(sender, message))

    def _perform(self, me, effects):
        for effect in effects:
            match effect:
                case Broadcast(message):
                    self.pending += [(me, to, message) for to in self.members if to != me]
                case Expect(header) | Fetch(header, _):
                    self._perform(me, self.gatherings[me].arrived(header.digest))
                case Deliver(gathered):
                    self.outputs[me] = tuple(value_of(digest) for _, digest in gathered.values)
                case Accuse():
                    raise AssertionError(effect)


@pytest.mark.parametrize("committee", TRIMMED, ids=str)
def test_real_messages_in_a_bad_order_bring_about_the_worst_that_witnesses_allow(committee):
    """f honest members and all liars hold 1. Member 0 hears the honest only; 1 hears all before the reports."""
    n, f = committee.n, committee.f
    network = Network(committee)
    network.start([0] * (n - 2 * f) + [1] * (2 * f))
    honest = committee.members[: n - f]
    network.deliver(lambda _, to, message: to == 0 if isinstance(message, Report) else message.origin in honest)
    assert list(network.outputs) == [0]
    network.deliver(lambda _, to, message: not isinstance(message, Report))
    assert list(network.outputs) == [0]
    network.deliver(lambda _, to, message: True)
    assert set(network.outputs) == set(committee.members)
    low, high = (mix("trimmed-mean", network.outputs[member], f) for member in (0, 1))
    assert (low, high) == (0, Fraction(f, n - 2 * f))
    assert high - low == worst_trimmed(Reliable, committee)


# Five members, one liar: why a liar must not be able to equivocate.

FIVE = Committee(5, 1)
LIAR = 4


def to_each_its_own(me):
    return -BIG if me < 2 else BIG


def sub_round(kind, values, lie, slot):
    """Members 0 and 1 are a camp, 2 and 3 the other; each hears the liar before its second opposite value."""
    return [mixture("trimmed-mean", *hearing(kind, values, lie(me), me, slot)) for me in range(LIAR)]


def hearing(kind, values, lie, me, slot):
    delayed = 3 - me
    listener = Listener(kind, FIVE, me, slot)
    listener.start(values[me])
    listener.tell(LIAR, lie)
    for other in set(range(LIAR)) - {me, delayed}:
        listener.tell(other, values[other])
    assert set(listener.output) == set(FIVE.members) - {delayed}
    listener.tell(delayed, values[delayed])  # too late: a second output would fail the listener
    return tuple(listener.output.values()), FIVE.f


def test_over_plain_links_a_liar_keeps_two_camps_of_five_apart_for_ever():
    values = [0, 0, 1, 1]
    for sub in range(20):
        values = sub_round(Plain, values, to_each_its_own, Slot(0, 0, sub))
        assert values == [0, 0, 1, 1]


@pytest.mark.parametrize("lie", [-BIG, BIG])
def test_over_signed_echo_the_camps_are_at_most_half_as_far_apart_after_every_sub_round(lie):
    values = [0, 0, 1, 1]
    for sub in range(20):
        before = max(values) - min(values)
        values = sub_round(SignedEcho, values, lambda _: lie, Slot(0, 0, sub))
        assert max(values) - min(values) <= before / 2


def test_over_signed_echo_the_liar_finds_no_quorum_for_either_of_two_lies():
    echoes = Counter()
    for me in range(LIAR):
        told_me = signed(LIAR, name(to_each_its_own(me)))
        listener = Listener(SignedEcho, FIVE, me)
        listener.gathering.handle(LIAR, Proposal(told_me))
        answers = listener.gathering.arrived(told_me.header.digest)
        echoes[told_me] += sum(isinstance(answer, Send) and answer.to == LIAR for answer in answers)
        camp = [0, 1] if me < 2 else [2, 3]
        too_small = certificate(told_me, [*camp, LIAR])
        assert listener.gathering.handle(LIAR, too_small) == [Accuse(LIAR, Fault.MALFORMED)]
    assert sorted(echoes.values()) == [2, 2]
    assert max(echoes.values()) + FIVE.f < FIVE.echo_quorum


# Nearest-neighbour averaging.


@cache
def worst_nearest(kind, committee, grids, surplus=False):
    """The greatest ratio over all honest values on the grid that reach from 0 to 1, so the spread before is 1; f = 1.

    By the symmetries above a case is how many honest members have which value, which two of these values are ours and
    theirs, and what each of us does not hold: the liar's value, or one honest value, of which only how much it is
    matters; with `surplus` also nothing, where all came before the start. Whatever the one misses, the other may miss
    anything: the link of each is the adversary's.

    In one thing this rule does know numbers: of vectors as far away, it leaves the last member's out. All cases have
    one numbering, first the liar and then the honest by value. So each can happen, and what is found is no more than
    the worst. That it is the worst, where lies may go a whole spread outside, follows from its being as bad as proven.
    """
    honest_grid, lies = grids
    return max(
        difference(kind, committee, Counter((0, 1, *honest)), choice, surplus)
        for honest in multisets(honest_grid, committee.n - 3)
        for choice in ([(lie,) for lie in lies] if kind.consistent else [lies])
    )


def difference(kind, committee, counts, lies, surplus):
    """How far two honest members can end apart, when the liar may choose anew among these lies for each of them."""
    reach = {own: list(mixtures(kind, committee, counts, own, lies, surplus)) for own in counts}
    highest = {own: max(ends) for own, ends in reach.items()}
    lowest = {own: min(ends) for own, ends in reach.items()}
    return max(highest[us] - lowest[them] for us, them in product(counts, counts) if us != them or counts[us] > 1)


def mixtures(kind, committee, counts, own, lies, surplus):
    """All that a member with this value can end with."""
    others = counts - Counter([own])
    everyone = sorted(others.elements())
    honest = [sorted((others - Counter([missed])).elements()) for missed in others] + [everyone] * surplus
    heard = [everyone, *([lie, *some] for lie, some in product(lies, honest))]
    return (outcome("nearest-neighbour", kind, committee, (own, *values)) for values in heard)


@pytest.mark.parametrize("kind", [Plain, SignedEcho])
@pytest.mark.parametrize("committee", NEAREST, ids=str)
def test_the_worst_contraction_of_nearest_neighbour_averaging_is_the_one_that_the_committee_states(kind, committee):
    stated = committee.nearest_neighbour_contraction(consistent=kind.consistent)
    assert worst_nearest(kind, committee, A_SPREAD_OUTSIDE) == stated


@pytest.mark.parametrize("kind", [Plain, SignedEcho])
@pytest.mark.parametrize("committee", NEAREST, ids=str)
def test_nor_do_values_that_came_before_the_start_make_nearest_neighbour_averaging_worse(kind, committee):
    exactly = worst_nearest(kind, committee, A_SPREAD_OUTSIDE)
    assert worst_nearest(kind, committee, A_SPREAD_OUTSIDE, surplus=True) == exactly


@pytest.mark.parametrize(("kind", "known"), [(Plain, Fraction(4)), (SignedEcho, Fraction(5, 2))])
@pytest.mark.parametrize("committee", NEAREST, ids=str)
def test_lies_half_a_spread_outside_at_most_do_less_to_nearest_neighbour_averaging(kind, known, committee):
    found = worst_nearest(kind, committee, HALF_A_SPREAD_OUTSIDE)
    assert found == known / (committee.n - 2)
    assert found < committee.nearest_neighbour_contraction(consistent=kind.consistent)
