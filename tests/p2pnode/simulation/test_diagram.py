"""The diagram of a run: golden text, and columns that stay columns."""

import numpy as np

from p2pnode.codec import Holding, Want
from p2pnode.node import Connected, Mixed, Received, Started, Trained
from p2pnode.simulation.diagram import diagram
from p2pnode.simulation.network import Bytes, Delivery
from protocols.effects import DigestEcho, Echo, Hello, Proposal, Ready, Report
from protocols.header import PeerId, Slot
from tests.ideal import JUNK, signed
from tests.scenarios import ran

A, B = bytes([0xAB, 0xCD, 0xEF]) * 10 + b"ab", bytes(32)


def told(time, source, to, payload):
    return Delivery(time, PeerId(source), PeerId(to), payload, 0.0)


GOLDEN = """\
     time  n0     n1     n2     n3
    0.000  ○──────▶      │      │      hello, since step 4
    0.250  │      ●      │      │      trained
    1.000  ○────────────────────▶      Proposal 4/0/0 of n0 abcdef
    1.500  ◀────────────────────○      Echo 4/0/0 of n0
    2.000  │      ○──────▶      │      bytes abcdef for 4/0/0
    2.125  │      ◀──────○      │      want abcdef
    2.250  │      ◀──────○      │      holds 2
   30.000  │      │      ◀──────○      DigestEcho 4/0/0 of n0 abcdef
  100.062  │      │      ○──────▶      Ready 4/1/2 of n1 000000
  100.062  ◀─────────────○      │      Report 4/0/0 of n0,n1,n3
  100.500  │      │      │      ●      mixed"""


def test_a_line_for_each_delivery():
    slot, member = Slot(4), PeerId(0)
    deliveries = [
        told(0, 0, 0, Started()),
        told(0, 0, 0, Connected(PeerId(1))),
        told(0, 0, 1, Received(member, Hello(4))),
        told(0.25, 1, 1, Trained(4, A)),
        told(1, 0, 3, Received(member, Proposal(signed(0, A, slot)))),
        told(1.5, 3, 0, Received(PeerId(3), Echo(slot, member, JUNK))),
        told(2, 1, 2, Bytes(slot, A, np.zeros(1, np.float32), True)),
        told(2.125, 2, 1, Want(slot, A)),
        told(2.25, 2, 1, Holding(((slot, A), (slot, B)))),
        told(30, 3, 2, Received(PeerId(3), DigestEcho(signed(0, A, slot)))),
        told(100.0624, 2, 3, Received(PeerId(2), Ready(Slot(4, 1, 2), PeerId(1), B))),
        told(100.0624, 2, 0, Received(PeerId(2), Report(slot, (PeerId(0), PeerId(1), PeerId(3))))),
        told(100.5, 3, 3, Mixed(slot, A)),
    ]
    assert diagram(4, deliveries) == GOLDEN


def test_every_column_is_where_its_head_is():
    _, deliveries = ran("jungle-rb", ("equivocate",), nodes=7, f=2, steps=1)
    head, *lines = diagram(7, deliveries).splitlines()
    assert len(lines) > 500
    places = [head.index(f"n{member}") for member in range(7)]
    for line in lines:
        assert {line[place] for place in places} <= set("│○●▶◀─")
        arrow = [line[place] for place in places]
        assert arrow.count("●") == 1 or (arrow.count("○"), arrow.count("▶") + arrow.count("◀")) == (1, 1)
        assert line[places[0] - 1] == " "
        assert line[places[-1] + 1] == " "


def test_nothing_to_show_is_a_head_alone():
    assert diagram(2, [told(0, 0, 0, Started())]) == "     time  n0     n1"
