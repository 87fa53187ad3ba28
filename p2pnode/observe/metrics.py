"""What a node tells Prometheus: its status, as series.

They are made when somebody asks, of what `/status` tells and the node counts anyway; nothing is counted for them on the
way. Every series is there from the first scrape on, for each member, fault, phase and lane that there is: what peers do
changes values, never how many series there are (`series_max`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from protocols.faults import Fault

_UNKNOWN = float("nan")
"""Of what was not measured yet."""

_PHASES_AT_REST = ("wire", "idle")
"""Phases that a node may not have come to yet."""

_OF_THE_NODE = 8
_OF_THE_PROCESS = 6
_OF_A_MEMBER = 3 + len(Fault)
_OF_ANOTHER = 5 + 4


def series_max(members: int, phases: int) -> int:
    """How many series a node of so many members has, whose time is counted by so many phases."""
    return _OF_THE_NODE + _OF_THE_PROCESS + phases + members * _OF_A_MEMBER + (members - 1) * _OF_ANOTHER


def exposition(status: Mapping[str, Any], accept: str = "") -> tuple[bytes, str]:
    """A status as Prometheus reads it, and its media type.

    Args:
        status: as `/status` tells it.
        accept: the formats that the asker takes, as in HTTP; OpenMetrics if it names that.
    """
    encode, media_type = choose_encoder(accept)
    return encode(_Told(status)), media_type


def families(status: Mapping[str, Any]) -> Iterator[Metric]:
    """Series of one status, and of the process that tells it."""
    yield from _of_the_node(status)
    yield from _of_the_members(status)
    yield from _of_the_others(status)
    yield from ProcessCollector(registry=None).collect()


class _Told(Collector):
    """The same, as the client library asks for them."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        return families(self._status)


def _of_the_node(told: Mapping[str, Any]) -> Iterator[Metric]:
    labels = {"node": told["name"], "network": told["network"], "recipe": told["recipe"]}
    yield InfoMetricFamily("p2pnode_node", "Who the node is, and in which network.", labels)
    yield _gauge("step", "The step that the node is in.", told["step"])
    yield _gauge("steps", "The steps that the network takes.", told["steps"])
    taken = "Steps that the node took part in; of those before a restart all are counted."
    yield CounterMetricFamily("p2pnode_steps_taken", taken, told["steps_taken"])
    yield _gauge("test_loss", "Loss on test samples, as evaluated last.", _known(told["loss"]))
    yield _gauge("test_accuracy_ratio", "Accuracy on test samples, as evaluated last.", _known(told["accuracy"]))
    standing = "For how long the node has been in this phase of this slot: while it waits, for how long it waits."
    yield _gauge("standing_seconds", standing, told["phase_seconds"])
    yield _gauge("memory_peak_bytes", "The most memory that the process held.", told["peak_rss_mib"] * 2**20)
    phases = dict.fromkeys(_PHASES_AT_REST, 0.0) | told["phases"]
    spent = "Where the time went: every moment counts once."
    yield _counter("phase_seconds", spent, ["phase"], (([phase], seconds) for phase, seconds in phases.items()))


def _of_the_members(told: Mapping[str, Any]) -> Iterator[Metric]:
    """Series of every member, the node itself among them."""
    names = [told["name"], *(link["peer"] for link in told["links"])]
    counts = {(row["peer"], row["fault"]): row["count"] for row in told["faults"]}
    faults = (([name, fault.value], counts.get((name, fault.value), 0)) for name in names for fault in Fault)
    yield _counter("peer_faults", "Faults that a member was seen at, by kind.", ["peer", "kind"], faults)
    for what, words in (("mixed", "Vectors of a member that were mixed."), ("kept", "Of these, what the rule kept.")):
        counted = (([name], told[what].get(name, 0)) for name in names)
        yield _counter(f"peer_vectors_{what}", words, ["peer"], counted)
    yield _flags("peer_evidence", "Whether a proof is held that a member equivocated.", names, told["evidence"])


def _of_the_others(told: Mapping[str, Any]) -> Iterator[Metric]:
    """Series of every other member."""
    names = [link["peer"] for link in told["links"]]
    yield _flags("peer_connected", "Whether the link to a member is up.", names, told["connected"])
    yield _flags("peer_awaited", "Whether the node waits, and lacks this member's value.", names, told["waits_for"])
    yield _flags("peer_banned", "Whether a member is banned.", names, told["banned"])
    late = {one["peer"]: one["seconds"] for one in told["late"]}
    overdue = GaugeMetricFamily(
        "p2pnode_peer_late_seconds", "How long a late member's value is awaited.", None, ["peer"]
    )
    for name in names:
        overdue.add_metric([name], late.get(name, 0.0))
    yield overdue
    whole = (([link["peer"]], link["vectors"]) for link in told["links"])
    yield _counter("peer_vectors_received", "Vectors that came whole from a member.", ["peer"], whole)
    way = ["peer", "plane", "direction"]
    sent = (
        ([link["peer"], plane, direction], link[f"{plane}_{direction}"])
        for link in told["links"]
        for plane in ("control", "bulk")
        for direction in ("sent", "received")
    )
    yield _counter("peer_link_bytes", "Bytes of messages (control) and vectors (bulk), TLS not counted.", way, sent)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"p2pnode_{name}", words, value)


def _counter(name: str, words: str, labels: list[str], samples: Iterable[tuple[list[str], float]]) -> Metric:
    family = CounterMetricFamily(f"p2pnode_{name}", words, labels=labels)
    for values, count in samples:
        family.add_metric(values, count)
    return family


def _flags(name: str, words: str, names: list[str], true: list[str]) -> Metric:
    """1 for those of whom it is true, else 0."""
    family = GaugeMetricFamily(f"p2pnode_{name}", words, labels=["peer"])
    for peer in names:
        family.add_metric([peer], float(peer in true))
    return family


def _known(value: float | None) -> float:
    return _UNKNOWN if value is None else value
