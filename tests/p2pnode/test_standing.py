"""Why a node waits: who is missing, what of it is, since when, and what it said last."""

import numpy as np
import pytest

from p2pnode.codec import Finished, Holding, Want
from p2pnode.lookout import Lookout
from p2pnode.node import Arrived, Node, Received, Started, Trained
from p2pnode.punctuality import FIRST_S
from p2pnode.recipe import Exchange, Recipe
from p2pnode.standing import Standing
from p2pnode.storage.vectors import Vectors, digest_of
from protocols.effects import DigestEcho, Expect, Hello, Proposal
from protocols.header import Slot
from tests.ideal import certificate, digest, echo, party, signed

NAMES = ["node0", "node1", "node2", "node3"]
SLOT = {"step": 0, "exchange": 0, "sub_round": 0}
VECTORS = [np.full(1, member, dtype=np.float32) for member in range(4)]


class Setting:
    """Member 0 of four, in its first slot, its own value announced at second 100."""

    def __init__(self):
        recipe = Recipe("test", (Exchange("model", "signed-echo", "median", (2,)),))
        self.node = Node(party(), recipe, 2)
        self.vectors = Vectors(1)
        self.lookout = Lookout(self.node, self.vectors)
        self.standing = Standing(self.node, self.lookout, self.vectors, NAMES)
        self.handle(Started())
        self.standing.note("training", 90.0)
        self.handle(Trained(0, digest(0)))
        self.lookout.note(100.0)
        self.standing.note("waiting", 100.0)

    def handle(self, event):
        for effect in self.node.handle(event):
            if isinstance(effect, Expect):
                self.vectors.expect(effect.header)

    def hear(self, sender, message, now):
        self.standing.heard(sender, message, now)
        self.handle(Received(sender, message))

    def announce(self, member, now):
        self.hear(member, Proposal(signed(member, digest_of(VECTORS[member]))), now)

    def bring(self, member, now):
        self.standing.heard(member, None, now)
        self.vectors.take(digest_of(VECTORS[member]), VECTORS[member])
        self.handle(Arrived(digest_of(VECTORS[member])))

    def certify(self, member, now):
        self.hear(member, certificate(signed(member, digest_of(VECTORS[member])), [0, 1, 2]), now)

    def told(self, now, connected=(1, 2, 3), banned=()):
        return self.standing.told(connected, banned, now)

    def missing(self, now, **state):
        return {one["peer"]: one for one in self.told(now, **state)["waiting"]["missing"]}


def test_a_slot_and_a_phase_are_told_with_since_when():
    setting = Setting()
    told = setting.told(103.5)
    assert {key: told[key] for key in SLOT} == SLOT
    assert (told["phase"], told["phase_seconds"]) == ("waiting", 3.5)
    setting.standing.note("waiting", 104.0)
    assert setting.told(105.0)["phase_seconds"] == 5.0, "noted again is not begun again"
    setting.standing.note("mixing", 106.0)
    assert setting.told(107.0)["phase_seconds"] == 1.0


def test_the_same_phase_of_the_next_slot_begins_anew():
    setting = Setting()
    setting.node.position = Slot(0, 0, 1)
    setting.standing.note("waiting", 110.0)
    assert setting.told(111.0)["phase_seconds"] == 1.0


def test_of_each_that_is_missing_it_is_told_what_is():
    setting = Setting()
    setting.announce(2, 100.5)
    setting.announce(3, 100.6)
    setting.bring(3, 100.7)
    told = setting.told(101.0)["waiting"]
    assert (told["here"], told["needed"], told["deadline"]) == (1, 3, FIRST_S)
    lacks = {peer: one["lacks"] for peer, one in setting.missing(101.0).items()}
    assert lacks == {"node1": "announcement", "node2": "bytes", "node3": "confirmation"}
    setting.certify(3, 100.9)
    assert set(setting.missing(101.0)) == {"node1", "node2"}
    assert setting.told(101.0)["waiting"]["here"] == 2


def test_who_is_waited_for_is_late_by_the_deadline_and_tells_when_it_spoke_last():
    setting = Setting()
    setting.announce(2, 100.25)
    assert not any(one["late"] for one in setting.missing(100 + FIRST_S).values())
    now = 100 + FIRST_S + 0.5
    missing = setting.missing(now, connected=(1, 2))
    assert all(one["late"] for one in missing.values())
    assert [one["connected"] for one in missing.values()] == [True, True, False]
    assert missing["node1"]["said"] is None
    assert missing["node2"]["said"] == {"what": "proposal", **SLOT, "seconds": 1.25}
    owed = {**SLOT, "seconds": FIRST_S + 0.5, "deadline": FIRST_S}
    assert setting.told(now)["late"][1] == {"peer": "node2", **owed, "said": missing["node2"]["said"]}
    assert "node2" not in [one["peer"] for one in setting.told(now, banned=(2,))["late"]]


def test_who_waits_for_nobody_says_so():
    setting = Setting()
    for member in (1, 2):
        setting.announce(member, 101.0)
        setting.bring(member, 101.0)
        setting.certify(member, 101.0)
    assert setting.told(102.0)["waiting"] is None
    assert setting.told(102.0)["waits_for"] == []


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (Hello(3), {"what": "hello"}),
        (Finished(), {"what": "finished"}),
        (Holding(), {"what": "holding"}),
        (None, {"what": "vector"}),
        (Want(Slot(1, 0, 1), digest(1)), {"what": "want", "step": 1, "exchange": 0, "sub_round": 1}),
        (echo(1, signed(0, digest(0))), {"what": "echo", **SLOT}),
        (DigestEcho(signed(2, digest(2))), {"what": "digest echo", **SLOT}),
    ],
    ids=lambda value: value["what"] if isinstance(value, dict) else "",
)
def test_whatever_was_said_last_has_a_name_and_its_slot(message, wanted):
    setting = Setting()
    setting.standing.heard(1, Hello(0), 100.0)
    setting.standing.heard(1, message, 101.0)
    assert setting.missing(102.0)["node1"]["said"] == {**wanted, "seconds": 1.0}
