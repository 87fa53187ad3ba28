"""Scores, bans and what is kept of them: nothing here waits, for the time is passed in."""

import math

import blake3
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pnode.net.conduct import BAN_MAX_S, THRESHOLD, Conduct
from protocols.faults import Fault

N, F = 7, 2
BAN_S, FORGIVE_S = 60.0, 3600.0
NETWORK = b"n" * 32
LIGHT = [fault for fault in Fault if fault is not Fault.EQUIVOCATED]


def conduct(banned_max=F, ban_s=BAN_S):
    return Conduct(N, banned_max, ban_s, FORGIVE_S)


def faults_until_banned(one, peer, now, apart=0.0, most=1000):
    """How many faults, so many seconds apart, it takes; and when that was."""
    for count in range(1, most):
        if one.charge(peer, Fault.MALFORMED, now):
            return count, now
        now += apart
    return None


def test_ten_malformed_frames_ban_though_they_come_one_at_a_time():
    assert faults_until_banned(conduct(), 1, 0.0)[0] == THRESHOLD
    assert faults_until_banned(conduct(), 1, 0.0, apart=FORGIVE_S / 5)[0] <= 10


def test_faults_far_apart_are_forgiven():
    assert faults_until_banned(conduct(), 1, 0.0, apart=FORGIVE_S) is None
    one = conduct()
    one.charge(1, Fault.MALFORMED, 0.0)
    for halvings in range(5):
        assert one.score(1, halvings * FORGIVE_S) == pytest.approx(0.5**halvings)


def test_a_proof_of_equivocation_bans_at_once():
    one = conduct()
    assert one.charge(3, Fault.EQUIVOCATED, 5.0) == BAN_S
    assert one.banned(3, 5.0) == BAN_S
    assert one.banned(3, 5.0 + BAN_S) == 0.0


def test_each_ban_lasts_twice_as_long_as_the_last_up_to_the_bound():
    one, now, periods = conduct(), 0.0, []
    for _ in range(80):
        periods.append(one.charge(1, Fault.EQUIVOCATED, now))
        now += periods[-1]
    assert periods[:11] == [BAN_S * 2**k for k in range(11)]
    assert periods[11:] == [BAN_MAX_S] * 69


def test_who_is_banned_pays_already_for_what_it_said_before():
    one = conduct()
    one.charge(1, Fault.EQUIVOCATED, 0.0)
    for _ in range(20):
        assert one.charge(1, Fault.EQUIVOCATED, 1.0) == 0.0
    assert one.banned(1, 1.0) == BAN_S - 1.0
    assert one.charge(1, Fault.MALFORMED, BAN_S) == 0.0
    assert one.score(1, BAN_S) == 1.0


def test_no_more_are_banned_at_a_time_than_may_lie_and_the_next_one_is_when_there_is_room():
    one = conduct()
    assert [bool(one.charge(peer, Fault.EQUIVOCATED, 0.0)) for peer in (1, 2, 3)] == [True, True, False]
    assert one.all_banned(0.0) == (1, 2)
    assert one.charge(3, Fault.MALFORMED, BAN_S - 1) == 0.0
    assert one.charge(3, Fault.MALFORMED, BAN_S) == BAN_S


def test_where_nobody_may_lie_or_no_ban_is_wanted_nobody_is_banned():
    for one in (conduct(banned_max=0), conduct(ban_s=0.0)):
        assert not any(one.charge(1, Fault.EQUIVOCATED, now) for now in range(100))


# Over a restart.


def kept(one, now, wall):
    return one.dump(NETWORK, now, wall)


def test_scores_and_bans_outlive_a_restart_and_the_time_that_it_took():
    one = conduct()
    one.charge(1, Fault.EQUIVOCATED, 100.0)
    one.charge(2, Fault.MALFORMED, 100.0)
    data = kept(one, 110.0, wall=5000.0)
    other = conduct()
    assert other.restore(data, NETWORK, now=3.0, wall=5020.0)
    assert other.banned(1, 3.0) == pytest.approx(BAN_S - 30.0)
    assert other.score(2, 3.0) == pytest.approx(0.5 ** (30 / FORGIVE_S))
    assert other.charge(1, Fault.EQUIVOCATED, 100.0) == 2 * BAN_S, "it knows that this is the second one"


def test_a_clock_that_goes_back_makes_no_ban_longer_and_one_that_leaps_ends_them():
    one = conduct()
    one.charge(1, Fault.EQUIVOCATED, 0.0)
    for wall, left in ((0.0, BAN_S), (-(10.0**9), BAN_S), (10.0**9, 0.0)):
        other = conduct()
        assert other.restore(kept(one, 0.0, wall=0.0), NETWORK, 0.0, wall)
        assert other.banned(1, 0.0) == left


def test_whatever_is_damaged_anywhere_is_not_taken_and_not_fatal():
    one = conduct()
    one.charge(1, Fault.EQUIVOCATED, 0.0)
    data = kept(one, 0.0, 0.0)
    damaged = [data[:length] for length in range(len(data))]
    damaged += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))]
    for spoiled in [*damaged, data + b"x", b""]:
        other = conduct()
        assert not other.restore(spoiled, NETWORK, 0.0, 0.0)
        assert len(other) == 0
    assert not conduct().restore(data, b"m" * 32, 0.0, 0.0), "the members of another network are others"


@pytest.mark.parametrize(
    "told",
    [
        "",
        "[" * 100_000,
        "[1]",
        '{"network": "%s", "at": 0}',
        '{"network": "%s", "at": NaN, "peers": {}}',
        '{"network": "%s", "at": 0, "peers": {"7": [1, 0, 0]}}',
        '{"network": "%s", "at": 0, "peers": {"-1": [1, 0, 0]}}',
        '{"network": "%s", "at": 0, "peers": {"x": [1, 0, 0]}}',
        '{"network": "%s", "at": 0, "peers": {"1": [1, 0, 0], "2": [1, 0]}}',
        '{"network": "%s", "at": 0, "peers": {"1": [6, 0, 0]}}',
        '{"network": "%s", "at": 0, "peers": {"1": [NaN, 0, 0]}}',
        '{"network": "%s", "at": 0, "peers": {"1": [1, 0.5, 0]}}',
        '{"network": "%s", "at": 0, "peers": {"1": [1, -1, 0]}}',
        '{"network": "%s", "at": 0, "peers": {"1": [1, 0, Infinity]}}',
    ],
)
def test_what_nobody_writes_is_not_taken_even_under_a_right_checksum(told):
    body = told.replace("%s", NETWORK.hex()).encode()
    one = conduct()
    assert not one.restore(b"p2pnode conduct 1\n" + blake3.blake3(body).digest() + body, NETWORK, 0.0, 0.0)
    assert len(one) == 0


@given(now=st.floats(0, 1e9), later=st.floats(0, 10))
@example(now=452402.3152921686, later=0.0)  # of which (now + day) - now is more than a day
def test_the_longest_ban_comes_back_whenever_it_is_written(now, later):
    """Whatever is lost in the last digit of a time."""
    one = conduct(ban_s=BAN_MAX_S)
    one.charge(1, Fault.EQUIVOCATED, now)
    other = conduct()
    assert other.restore(kept(one, now + later, 0.0), NETWORK, 3.0, 0.0)
    assert other.banned(1, 3.0) == pytest.approx(BAN_MAX_S - later, abs=1e-3)


def test_the_file_of_the_largest_network_is_small():
    one = Conduct(1024, 341, BAN_S, FORGIVE_S)
    for peer in range(1024):
        for now in range(4):
            one.charge(peer, Fault.MALFORMED, now + math.pi)
    assert len(one.dump(NETWORK, 9.9, 1e9 + 0.1)) < 100_000


class Misbehaviour(RuleBasedStateMachine):
    """Up to f liars do what they like, at any time, over restarts; the others do nothing that counts.

    The model keeps every fault and sums it up anew.
    """

    @initialize(liars=st.sets(st.integers(0, N - 1), max_size=F))
    def begin(self, liars):
        self.liars = sorted(liars)
        self.now, self.wall = 0.0, 1e9
        self.it = conduct()
        self.held = {peer: [] for peer in range(N)}
        self.bans = dict.fromkeys(range(N), 0)
        self.until = dict.fromkeys(range(N), 0.0)

    @rule(seconds=st.sampled_from([0.0, 0.5, 30.0, 600.0, FORGIVE_S, 50_000.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.wall += seconds

    @precondition(lambda self: self.liars)
    @rule(data=st.data(), fault=st.sampled_from([*LIGHT, *LIGHT, Fault.EQUIVOCATED]))
    def a_liar_misbehaves(self, data, fault):
        peer = data.draw(st.sampled_from(self.liars))
        period = self.it.charge(peer, fault, self.now)
        if self.now < self.until[peer]:
            assert period == 0.0
            return
        self.held[peer].append((self.now, THRESHOLD if fault is Fault.EQUIVOCATED else 1.0))
        assert bool(period) == (self.owed(peer) > THRESHOLD - 1e-9)
        if period:
            assert period == min(BAN_S * 2 ** self.bans[peer], BAN_MAX_S)
            self.bans[peer] += 1
            self.until[peer] = self.now + period
            self.held[peer] = []

    @rule(down=st.sampled_from([0.0, 10.0, 10_000.0]))
    def restarts(self, down):
        data = self.it.dump(NETWORK, self.now, self.wall)
        self.it = conduct()
        self.now += down
        self.wall += down
        assert self.it.restore(data, NETWORK, self.now, self.wall)

    def owed(self, peer):
        return sum(weight * 0.5 ** ((self.now - at) / FORGIVE_S) for at, weight in self.held[peer])

    @invariant()
    def scores_and_bans_are_the_models(self):
        for peer in range(N):
            assert self.it.score(peer, self.now) == pytest.approx(self.owed(peer), abs=1e-6)
            left = self.it.banned(peer, self.now)
            assert left == pytest.approx(max(0.0, self.until[peer] - self.now), abs=1e-3)

    @invariant()
    def the_honest_are_never_banned_and_a_quorum_is_always_left(self):
        banned = self.it.all_banned(self.now)
        assert set(banned) <= set(self.liars)
        assert len(banned) <= F

    @invariant()
    def memory_is_bounded_by_the_members(self):
        assert len(self.it) <= len(self.liars)


TestMisbehaviour = Misbehaviour.TestCase
TestMisbehaviour.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(charges=st.lists(st.tuples(st.integers(0, N - 1), st.sampled_from(list(Fault)), st.floats(0, 1e5)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_whoever_misbehaves_however_many_they_are_a_quorum_is_never_shut_out(charges):
    one, now = conduct(), 0.0
    for peer, fault, apart in charges:
        now += apart
        one.charge(peer, fault, now)
        assert len(one.all_banned(now)) <= F
        assert one.score(peer, now) <= THRESHOLD
        assert len(one) <= N
