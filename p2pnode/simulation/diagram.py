"""A run as a Lamport diagram in text: time runs down, a column for each member, an arrow for each message."""

from collections.abc import Iterable

from p2pnode.codec import Holding, Want
from p2pnode.node import Connected, Received, Started
from p2pnode.simulation.network import Bytes, Delivery, Payload
from protocols.effects import Evidence, Hello, Report
from protocols.header import Slot

_COLUMN = 7
_TIME = 9


def diagram(members: int, deliveries: Iterable[Delivery]) -> str:
    """One line for each delivery but of what every run begins with: when, from whose column to whose, and what."""
    shown = [delivery for delivery in deliveries if not isinstance(delivery.payload, Started | Connected)]
    head = "time".rjust(_TIME) + "  " + "".join(f"n{member}".ljust(_COLUMN) for member in range(members))
    return "\n".join([head.rstrip(), *(_line(members, delivery) for delivery in shown)])


def _line(members: int, delivery: Delivery) -> str:
    source, to = int(delivery.source), int(delivery.to)
    cells = ["│" + " " * (_COLUMN - 1)] * members
    if source == to:
        cells[to] = "●" + " " * (_COLUMN - 1)
    else:
        left, right = sorted((source, to))
        for member in range(left, right):
            cells[member] = "─" * _COLUMN
        cells[right] = "│" + " " * (_COLUMN - 1)
        cells[source] = "○" + cells[source][1:]
        cells[to] = ("▶" if source < to else "◀") + cells[to][1:]
    return f"{delivery.time:{_TIME}.3f}  {''.join(cells)}{_label(delivery.payload)}"


def _label(payload: Payload) -> str:
    if isinstance(payload, Bytes):
        return f"bytes {_short(payload.digest)} for {_place(payload.slot)}"
    if isinstance(payload, Want):
        return f"want {_short(payload.digest)}"
    if isinstance(payload, Holding):
        return f"holds {len(payload.whole)}"
    if not isinstance(payload, Received):
        return type(payload).__name__.lower()
    message = payload.message
    if isinstance(message, Hello):
        return f"hello, since step {message.since}"
    if isinstance(message, Evidence):
        return f"evidence against n{message.proof.accused}"
    name = type(message).__name__
    if isinstance(message, Report):
        return f"{name} {_place(message.slot)} of {','.join(f'n{member}' for member in message.delivered)}"
    digest = getattr(message, "digest", None) or getattr(getattr(message, "signed", None), "header", None)
    named = digest if isinstance(digest, bytes | None) else digest.digest
    return f"{name} {_place(message.slot)} of n{message.origin}" + (f" {_short(named)}" if named else "")


def _place(slot: Slot) -> str:
    return f"{slot.step}/{slot.exchange}/{slot.sub_round}"


def _short(digest: bytes) -> str:
    return digest.hex()[:6]
