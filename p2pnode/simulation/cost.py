"""What a quiet run costs: messages and bytes by formula, to hold a simulated run against."""

from dataclasses import dataclass

from p2pnode.codec import encode
from p2pnode.recipe import Exchange
from p2pnode.simulation.scenario import Scenario
from p2pnode.storage.vectors import ARRAYS
from protocols.effects import Certificate, DigestEcho, Echo, Hello, Message, Proposal, Ready, Report
from protocols.header import (
    DIGEST_BYTES,
    NETWORK_BYTES,
    SIGNATURE_BYTES,
    Header,
    PeerId,
    SignedHeader,
    Slot,
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What all members send together.

    Args:
        messages: words; vectors are not counted.
        bytes: of words and vectors.
    """

    messages: int
    bytes: int


def quiet(scenario: Scenario, length: int) -> Cost:
    """The cost of a run in which nobody lies, nothing is lost, and all links are alike.

    Where delays differ much, who is slow leaves out an echo that nobody needs any more, or asks for bytes: a few
    messages less or more.

    Args:
        scenario: what is run.
        length: elements of a vector.
    """
    n = scenario.nodes
    messages, size = n * (n - 1), n * (n - 1) * len(encode(Hello(0)))
    for step in range(scenario.steps):
        cost = of_step(scenario, length, step)
        messages, size = messages + cost.messages, size + cost.bytes
    return Cost(messages, size)


def of_step(scenario: Scenario, length: int, step: int) -> Cost:
    """The part of `quiet` that is of one step, from 0; its `steps` do not matter."""
    n, vector_bytes = scenario.nodes, ARRAYS[scenario.recipe.dtype].itemsize * length
    messages, size = 0, 0
    origins = 1 if scenario.alone else n
    for exchange in scenario.recipe.exchanges:
        slots = exchange.sub_rounds(step)
        for message, count in _words(scenario, exchange, Slot(step)):
            messages += slots * origins * count
            size += slots * origins * count * len(encode(message))
        size += slots * origins * (n - 1) * vector_bytes
    return Cost(messages, size)


def _words(scenario: Scenario, exchange: Exchange, slot: Slot) -> list[tuple[Message, int]]:
    """A message of each kind in one member's broadcast, and how many of it there are."""
    n, committee, me = scenario.nodes, scenario.committee, PeerId(0)
    digest, signature = bytes(DIGEST_BYTES), bytes(SIGNATURE_BYTES)
    signed = SignedHeader(Header(bytes(NETWORK_BYTES), me, slot, scenario.recipe.dtype, 1, digest), signature)
    words: list[tuple[Message, int]] = [(Proposal(signed), n - 1)]
    if exchange.broadcast == "signed-echo":
        echoes = tuple((member, signature) for member in committee.members[1 : committee.echo_quorum])
        words += [(Echo(slot, me, signature), n - 1), (Certificate(signed, echoes), n - 1)]
    if exchange.broadcast == "reliable":
        words += [(DigestEcho(signed), n * (n - 1)), (Ready(slot, me, digest), n * (n - 1))]
        if not scenario.alone:
            words.append((Report(slot, committee.members[: exchange.quorum(committee)]), n - 1))
    return words
