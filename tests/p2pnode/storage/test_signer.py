"""Nothing is signed twice: one statement a place, for ever, over restarts, torn tails and forgetting."""

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from p2pnode.errors import ConfigError, DiskError, JournalCorrupt, JournalError, JournalMissing
from p2pnode.identity import Identity, KeyRing
from p2pnode.storage.journal import Journal
from p2pnode.storage.signer import DurableSigner
from protocols.header import FLOAT32, STEP_MAX, Claim, Header, Slot

IDENTITY = Identity.generate()
VERIFY = KeyRing([IDENTITY.public_key])


def header(step, digest=b"d", origin=0):
    return Header(b"n" * 32, origin, Slot(step), FLOAT32, 10, digest * 32)


def claim(step, digest=b"d"):
    return header(step, digest).proposal()


@pytest.fixture
def path(tmp_path):
    return begun(tmp_path / "journal")


def begun(path):
    DurableSigner.begin(IDENTITY, path)
    return path


def signing(path, *claims):
    """What a node signs from start to crash; all of it durable."""
    signer = DurableSigner(IDENTITY, path)
    signatures = [signer.sign(each) for each in claims]
    signer.flush()
    signer.close()
    return signatures


def test_a_statement_is_signed_and_signed_again_but_not_another_for_its_place(path):
    first, again, other, elsewhere = signing(path, claim(3), claim(3), claim(3, b"x"), claim(4, b"x"))
    assert first == again
    assert other is None
    assert VERIFY(0, claim(3).statement, first)
    assert VERIFY(0, claim(4, b"x").statement, elsewhere)


def test_a_restart_changes_nothing(path):
    before = signing(path, claim(3), claim(STEP_MAX, b"y"))
    size = path.stat().st_size
    assert signing(path, claim(3), claim(STEP_MAX, b"y")) == before
    assert signing(path, claim(3, b"x"), claim(STEP_MAX, b"x")) == [None, None]
    assert path.stat().st_size == size


def test_what_is_signed_together_is_signed_with_one_signature(path):
    signer = DurableSigner(IDENTITY, path)
    signer.sign_together([claim(3), claim(4), claim(5)])
    together = [signer.sign(claim(step)) for step in (3, 4, 5)]
    assert len(set(together)) == 1
    assert all(VERIFY(0, claim(step).statement, together[0]) for step in (3, 4, 5))
    assert len(signer.sign(claim(6))) == 64
    signer.sign_together([claim(7)])
    assert len(signer.sign(claim(7))) == 64
    signer.close()


def test_what_a_joint_signature_is_on_binds_asked_for_or_not_and_over_a_restart(path):
    signing(path, claim(3))
    signer = DurableSigner(IDENTITY, path)
    signer.sign_together([claim(3, b"x"), claim(4), claim(5)])
    assert signer.dirty
    joint = signer.sign(claim(4))
    assert not VERIFY(0, claim(3, b"x").statement, joint), "another was signed for its place"
    assert VERIFY(0, claim(5).statement, joint)
    assert signer.sign(claim(3, b"x")) is None
    signer.flush()
    signer.close()
    assert signing(path, claim(4, b"x"), claim(5, b"x")) == [None, None]


def test_places_are_told_apart(path):
    other_slots = [Header(b"n" * 32, 0, slot, FLOAT32, 10, b"y" * 32) for slot in (Slot(3, 0, 1), Slot(3, 1), Slot(30))]
    claims = [each for one in (header(3), *other_slots) for each in (one.proposal(), one.echo())]
    claims += [header(3, b"x", origin=1).echo(), header(0, b"x", origin=3).echo()]
    assert None not in signing(path, *claims)
    assert None not in signing(path, *claims)
    assert signing(path, *(header(3, b"z", origin=origin).echo() for origin in (0, 1))) == [None, None]


def test_what_was_signed_or_promised_is_known_whole_over_a_restart(path):
    signer = DurableSigner(IDENTITY, path)
    ready = Claim(3, "ready 0 3 0 0", b"d" * 32)
    assert signer.promised(ready.place) is None
    assert signer.promise(ready)
    signer.sign(claim(3))
    signer.flush()
    for _ in range(2):
        assert signer.promised(ready.place) == b"d" * 32
        assert signer.promised(claim(3).place) == claim(3).statement
        assert signer.promised(claim(4).place) is None
        signer.close()
        signer = DurableSigner(IDENTITY, path)
    signer.close()


def test_a_promise_binds_what_is_signed_and_a_signature_binds_what_is_promised(path):
    for _ in range(2):
        signer = DurableSigner(IDENTITY, path)
        assert signer.promise(claim(3))
        assert signer.promise(claim(3))
        assert not signer.promise(claim(3, b"x"))
        assert signer.sign(claim(3, b"x")) is None
        assert VERIFY(0, claim(3).statement, signer.sign(claim(3)))
        assert signer.sign(claim(4))
        assert not signer.promise(claim(4, b"x"))
        assert signer.promised(claim(4).place) == claim(4).statement
        signer.flush()
        signer.close()


def test_what_was_promised_is_dirty_until_it_is_flushed(path):
    signer = DurableSigner(IDENTITY, path)
    signer.promise(claim(1))
    assert signer.dirty
    signer.flush()
    signer.promise(claim(1))
    signer.promise(claim(1, b"x"))
    signer.promised(claim(1).place)
    assert not signer.dirty
    signer.close()


def test_promises_are_kept_from_the_floor_on_and_below_it_nothing_new_is_promised(path):
    signer = DurableSigner(IDENTITY, path)
    assert all(signer.promise(claim(step)) for step in (1, 2, 3))
    signer.flush()
    signer.forget_before(2)
    for _ in range(2):
        assert [signer.promised(claim(step).place) for step in (1, 2, 3)] == [
            None,
            claim(2).statement,
            claim(3).statement,
        ]
        assert [signer.promise(claim(step)) for step in (0, 1, 2, 3)] == [False, False, True, True]
        assert not signer.promise(claim(2, b"x"))
        signer.close()
        signer = DurableSigner(IDENTITY, path)
    signer.close()


@pytest.mark.parametrize("statement", [b"", b"\x00", bytes(range(256)), b"\xff" * 1000])
@pytest.mark.parametrize("place", ["", "p", "échos 1023 9223372036854775807 255 65535"])
def test_a_statement_and_its_place_may_be_any(path, place, statement):
    odd = Claim(STEP_MAX, place, statement)
    [before] = signing(path, odd)
    signer = DurableSigner(IDENTITY, path)
    assert signer.promised(place) == statement
    assert signer.sign(odd) == before
    assert not signer.promise(Claim(STEP_MAX, place, statement + b"\x00"))
    signer.close()


def test_what_was_signed_is_dirty_until_it_is_flushed(path):
    signer = DurableSigner(IDENTITY, path)
    assert not signer.dirty
    signer.sign(claim(1))
    assert signer.dirty
    signer.flush()
    signer.sign(claim(1))
    signer.sign(claim(1, b"x"))
    assert not signer.dirty
    signer.close()


def test_a_signature_whose_record_could_not_be_written_is_not_given_and_none_after_it(path, monkeypatch):
    signer = DurableSigner(IDENTITY, path)
    with monkeypatch.context() as full:
        full.setattr("os.write", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(DiskError, match=f"{path}: disk full. Remedy: "):
            signer.sign(claim(1))
    for _ in range(2):
        with pytest.raises(JournalError, match=r"an earlier write failed\. Remedy: start the node again"):
            signer.sign(claim(1))
        with pytest.raises(JournalError, match="an earlier write failed"):
            signer.flush()
        assert signer.dirty
    signer.close()
    assert signing(path, claim(1, b"x"), claim(1))[1] is None


def test_a_key_without_its_record_signs_nothing_and_gets_no_new_one(path):
    """Who lost it may have signed anything."""
    signing(path, claim(1))
    with pytest.raises(ConfigError, match=f"{path}: exists. Remedy: choose another folder"):
        DurableSigner.begin(IDENTITY, path)
    assert signing(path, claim(1, b"x")) == [None]
    path.unlink()
    for _ in range(2):
        with pytest.raises(JournalMissing, match=f"{path}: there is none.*must not sign.*Remedy: give it a new key"):
            DurableSigner(IDENTITY, path)
        assert not path.exists()
    path.touch()
    with pytest.raises(JournalCorrupt, match=f"{path}: its beginning is lost.*Remedy: give it a new key"):
        DurableSigner(IDENTITY, path)


def test_the_record_of_another_key_is_not_taken_for_ones_own(path):
    signing(path, claim(1))
    with pytest.raises(ConfigError, match=f"{path}: what another key signed. Remedy: put back"):
        DurableSigner(Identity.generate(), path)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x02\0\0",
        b"\x02" + bytes(9),
        b"\x01",
        b"\x01" + bytes(8) + b"\0\x02a",
        b"\x01" + bytes(9) + b"\x01\xff",
        b"\x04",
    ],
    ids=["empty", "short floor", "long floor", "short", "cut place", "no text", "unknown"],
)
def test_a_whole_record_that_no_signer_writes_is_refused(path, record):
    journal = Journal(path)
    journal.append(record)
    journal.flush()
    journal.close()
    with pytest.raises(JournalCorrupt, match=f"{path}: it holds a record that no signer writes.*Remedy: give it a new"):
        DurableSigner(IDENTITY, path)


def test_below_the_floor_nothing_new_is_signed_and_above_it_nothing_is_forgotten(path):
    signing(path, *(claim(step) for step in range(10)))
    full = path.stat().st_size
    signer = DurableSigner(IDENTITY, path)
    signer.forget_before(7)
    assert path.stat().st_size < full / 2
    signer.close()
    for _ in range(2):
        signer = DurableSigner(IDENTITY, path)
        assert signer.floor == 7
        assert [signer.sign(claim(step)) for step in range(7)] == [None] * 7
        assert [signer.sign(claim(step, b"x")) for step in range(10)] == [None] * 10
        assert None not in [signer.sign(claim(step)) for step in range(7, 11)]
        signer.flush()
        signer.close()


def test_the_floor_never_sinks(path):
    signer = DurableSigner(IDENTITY, path)
    for step, floor in ((5, 5), (3, 5), (5, 5), (6, 6)):
        signer.forget_before(step)
        assert signer.floor == floor
    signer.close()
    assert signing(path, claim(5), claim(6))[0] is None


def test_a_journal_torn_or_damaged_anywhere_never_leads_to_a_second_statement(path):
    """What a torn record held was never sent; whatever was flushed before it stays signed, or nothing is signed."""
    first = signing(path, claim(1))
    durable = path.stat().st_size
    signing(path, claim(2))
    whole = path.read_bytes()
    for end in range(durable, len(whole)):
        path.write_bytes(whole[:end])
        assert signing(path, claim(1), claim(1, b"x")) == [*first, None]
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x40]) + whole[position + 1 :])
        with pytest.raises(JournalCorrupt):
            DurableSigner(IDENTITY, path)


class Node(RuleBasedStateMachine):
    """Signs, sends, crashes and forgets in any order; what left the node must never contradict itself."""

    make_path = None

    @initialize()
    def begin(self):
        self.path = self.make_path()
        self.sent = {}
        self.unsent = {}
        self.signed = defaultdict(set)
        self.signer = DurableSigner(IDENTITY, self.path)
        self.durable = self.path.stat().st_size

    @rule(step=st.integers(0, 6), place=st.sampled_from("ab"), said=st.sampled_from([b"x", b"y", b"z"]))
    def sign(self, step, place, said):
        one = Claim(step, f"{place} {step}", said)
        signature = self.signer.sign(one)
        if signature is not None:
            assert VERIFY(0, said, signature)
            assert self.unsent.setdefault(one.place, said) == said
            assert self.sent.get(one.place, said) == said
            self.signed[one.place].add(said)
        else:
            assert step < self.signer.floor or self.signed[one.place] - {said}

    @rule(step=st.integers(0, 6), place=st.sampled_from("ab"), said=st.sampled_from([b"x", b"y", b"z"]))
    def promise(self, step, place, said):
        """Words that go out unsigned bind as signed ones do."""
        one = Claim(step, f"{place} {step}", said)
        if self.signer.promise(one):
            assert self.signer.promised(one.place) == said
            assert self.unsent.setdefault(one.place, said) == said
            assert self.sent.get(one.place, said) == said
            self.signed[one.place].add(said)
        else:
            assert step < self.signer.floor or self.signed[one.place] - {said}

    @rule()
    def what_was_sent_is_known(self):
        for place, said in self.sent.items():
            forgotten = int(place.split()[1]) < self.signer.floor
            assert self.signer.promised(place) == (None if forgotten else said)

    @rule()
    def send(self):
        self.signer.flush()
        self.durable = self.path.stat().st_size
        self.sent |= self.unsent
        self.unsent = {}

    @rule(torn=st.integers(0, 200))
    def crash(self, torn):
        """Of what was not flushed, any part may be on disk."""
        self.signer.close()
        end = min(self.durable + torn, self.path.stat().st_size)
        self.path.write_bytes(self.path.read_bytes()[:end])
        self.unsent = {}
        self.signer = DurableSigner(IDENTITY, self.path)
        self.durable = self.path.stat().st_size

    @precondition(lambda self: not self.unsent)
    @rule(step=st.integers(0, 6))
    def forget(self, step):
        self.signer.forget_before(step)
        self.durable = self.path.stat().st_size

    def teardown(self):
        self.signer.close()


def test_no_history_of_crashes_makes_a_node_contradict_itself(tmp_path_factory):
    Node.make_path = staticmethod(lambda: begun(tmp_path_factory.mktemp("node") / "journal"))
    run_state_machine_as_test(
        Node,
        settings=settings(
            max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
