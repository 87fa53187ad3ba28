"""What Prometheus reads of a node: all of it parses, says what the status says, and grows by nothing that peers do."""

import asyncio
import json
import re
from pathlib import Path

import uvloop
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from p2pnode.byzantine.behaviour import liar
from p2pnode.driver import PHASES, Driver
from p2pnode.observe.metrics import exposition, series_max
from protocols.effects import Accuse
from protocols.faults import Fault
from tests.loopback import LogBook, found_network, until

BOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "p2pnode.json"
NAMES = [f"node{i}" for i in range(5)]

LINK = {"control_sent": 10, "control_received": 20, "bulk_sent": 30, "bulk_received": 40, "vectors": 7}
STATUS = {
    "name": "node0",
    "network": "ab" * 32,
    "recipe": "trimmed",
    "step": 3,
    "steps": 9,
    "steps_taken": 2,
    "phase_seconds": 1.5,
    "waits_for": ["node1"],
    "late": [{"peer": "node1", "seconds": 2.5, "deadline": 0.25}],
    "connected": ["node2"],
    "accuracy": 0.75,
    "loss": None,
    "faults": [{"peer": "node2", "fault": "out of turn", "count": 4}],
    "evidence": ["node2"],
    "links": [{"peer": "node1", **LINK}, {"peer": "node2", **LINK, "bulk_sent": 31}],
    "mixed": {"node0": 2, "node1": 1},
    "kept": {"node0": 1},
    "peak_rss_mib": 2.0,
    "banned": ["node2"],
    "phases": {"gradient": 0.5, "idle": 1.0},
}


def read(text):
    """{(series, labels): value} as Prometheus' own client reads it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series, name, **labels):
    return series[f"p2pnode_{name}", tuple(sorted(labels.items()))]


def test_series_say_what_the_status_says():
    series = read(exposition(STATUS)[0].decode())
    assert (value(series, "step"), value(series, "steps"), value(series, "steps_taken_total")) == (3, 9, 2)
    assert value(series, "test_accuracy_ratio") == 0.75
    assert str(value(series, "test_loss")) == "nan", "not measured yet"
    assert value(series, "standing_seconds") == 1.5
    assert value(series, "memory_peak_bytes") == 2 * 2**20
    assert value(series, "node_info", node="node0", network="ab" * 32, recipe="trimmed") == 1
    assert value(series, "phase_seconds_total", phase="gradient") == 0.5
    assert value(series, "phase_seconds_total", phase="wire") == 0
    assert value(series, "peer_faults_total", peer="node2", kind="out of turn") == 4
    assert value(series, "peer_faults_total", peer="node0", kind="malformed") == 0
    assert value(series, "peer_link_bytes_total", peer="node2", plane="bulk", direction="sent") == 31
    assert value(series, "peer_link_bytes_total", peer="node1", plane="control", direction="received") == 20
    of_both = {
        "peer_connected": (0, 1),
        "peer_awaited": (1, 0),
        "peer_banned": (0, 1),
        "peer_evidence": (0, 1),
        "peer_late_seconds": (2.5, 0),
        "peer_vectors_received_total": (7, 7),
        "peer_vectors_mixed_total": (1, 0),
        "peer_vectors_kept_total": (0, 0),
    }
    for name, wanted in of_both.items():
        assert tuple(value(series, name, peer=peer) for peer in ("node1", "node2")) == wanted, name
    assert value(series, "peer_vectors_mixed_total", peer="node0") == 2


def test_the_process_is_told_of_beside_the_node():
    series = read(exposition(STATUS)[0].decode())
    assert series["process_resident_memory_bytes", ()] > 2**20
    assert series["process_cpu_seconds_total", ()] > 0


def test_openmetrics_is_told_to_who_asks_for_it_and_its_strict_parser_takes_it():
    body, media_type = exposition(STATUS, "application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    families = list(openmetrics.text_string_to_metric_families(body.decode()))
    assert {"p2pnode_steps_taken", "p2pnode_peer_late_seconds"} <= {family.name for family in families}
    assert exposition(STATUS)[1].startswith("text/plain; version=0.0.4")


def test_every_series_is_named_by_the_conventions_and_explained():
    for family in text_string_to_metric_families(exposition(STATUS)[0].decode()):
        assert re.fullmatch(r"(p2pnode|process)_[a-z_]+[a-z]", family.name)
        assert family.documentation
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            assert set(sample.labels) <= {"peer", "kind", "phase", "plane", "direction", "node", "network", "recipe"}


def test_whatever_peers_do_no_series_is_added(tmp_path):
    """Liars of every kind of word, faults of every kind, a ban: the same labels as before the first link."""
    _, homes = found_network(tmp_path, 5, 1, steps=6, linger_s=0.5, ban_s=0.5)

    def scraped(driver):
        return read(exposition(json.loads(json.dumps(driver.status())))[0].decode())

    async def work():
        lies = liar(homes[4], ["forge", "equivocate", "replay"], ["node4"])
        drivers = [Driver(home, LogBook(), lies if home is homes[4] else None) for home in homes]
        watched = drivers[0]
        before = scraped(watched)
        runs = [asyncio.create_task(driver.run()) for driver in drivers]
        await until(lambda: all(driver._result is not None for driver in drivers[:4]), "all results", 60)
        for peer in (1, 4):
            for fault in Fault:
                watched._accuse(Accuse(peer, fault))
        after = scraped(watched)
        for driver in drivers:
            driver.stop()
        await asyncio.gather(*runs)
        return before, after

    before, after = uvloop.run(work())
    assert set(before) == set(after)
    assert len(after) == series_max(5, len(PHASES) + 2)
    assert {value for _, labels in after for name, value in labels if name == "peer"} == set(NAMES)
    assert value(after, "peer_faults_total", peer="node4", kind="equivocated") > 0, "the liar was seen"
    assert value(after, "steps_taken_total") == 6
    assert value(after, "peer_vectors_received_total", peer="node1") > 0


# The board.


def board():
    return json.loads(BOARD.read_text())


def expressions():
    told = board()
    asked = [variable["definition"] for variable in told["templating"]["list"] if "definition" in variable]
    return asked + [target["expr"] for panel in told["panels"] for target in panel["targets"]]


def told_by_metrics():
    """Names of series, and of labels: a node's own, and the ones that Prometheus adds."""
    series = read(exposition(STATUS)[0].decode())
    return {name for name, _ in series}, {label for _, labels in series for label, _ in labels} | {"instance"}


def test_every_expression_of_the_board_names_series_and_labels_that_there_are():
    names, labels = told_by_metrics()
    asked = set()
    for expression in expressions():
        asked |= (named := set(re.findall(r"\b(?:p2pnode|process)_\w+", expression)))
        assert named, expression
        assert named <= names, expression
        groups = re.findall(r"(?:by|on|group_left) ?\(([^)]*)\)", expression)
        chosen = [label for group in groups for label in re.split(", *", group)] + re.findall(r"(\w+)=~", expression)
        assert set(chosen) <= labels, expression
        assert expression.count("(") == expression.count(")")
    own = {name for name in names if name.startswith("p2pnode_")}
    assert own == {name for name in asked if name.startswith("p2pnode_")}, "what nobody looks at need not be told"


def test_the_panels_of_the_board_are_named_explained_and_side_by_side():
    taken = set()
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


def test_the_legends_of_the_board_show_labels_that_their_series_have():
    for panel in board()["panels"]:
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = re.match(r"sum by \(([^)]*)\)|avg by \(([^)]*)\)", target["expr"])
            if kept is not None:
                assert shown <= set(re.split(", *", kept[1] or kept[2])), target["expr"]
            assert shown <= told_by_metrics()[1]
