import asyncio
import json

import pytest
from typer.testing import CliRunner

from p2pnode.bench import scale
from p2pnode.bench.app import app
from p2pnode.bench.scale import QUICK_POINTS, Point


def test_a_real_node_among_played_ones_costs_what_the_formulas_say():
    result = CliRunner().invoke(app, ["scale", "--quick", "--json"], catch_exceptions=False)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["broadcast"], row["n"], row["d"]) for row in rows] == [
        (point.broadcast, point.n, point.d) for point in QUICK_POINTS
    ]
    for row in rows:
        n, f = row["n"], row["f"]
        for way in ("sent", "received"):
            # What is on its way when a step is taken counts for the next; a link that comes up late is told again.
            assert row[f"messages_{way}"] == pytest.approx(row["messages_by_formula"], rel=0.4)
            assert row[f"bytes_{way}"] == pytest.approx(row["bytes_by_formula"], rel=0.4)
        echoes = row["broadcast"] == "signed-echo"
        assert row["signed"] == pytest.approx(n if echoes else 1, rel=0.2), "a header, and echoes"
        quorum = (n + f) // 2 + 1
        assert row["checked"] == pytest.approx(n - 1 + echoes * (quorum - 1 + (n - 1) * (quorum - 1.5)), rel=0.2)
        assert row["seconds"] > 0
        assert row["peak_mib"] is None or 0 < row["above_idle_mib"] < row["own_mib"] < row["peak_mib"]


def test_it_is_done_when_the_node_is_though_one_of_the_others_never_got_a_link(monkeypatch):
    found = scale._found

    def with_one_that_hurries(folder, *arguments):
        found(folder, *arguments)
        settings = folder / "node0" / "node.toml"
        settings.write_text(settings.read_text().replace("handshake_s = 60.0", "handshake_s = 0.0001"))

    monkeypatch.setattr(scale, "_found", with_one_that_hurries)
    account = asyncio.run(asyncio.wait_for(scale.play(QUICK_POINTS[0], steps=3), 60))
    assert len(account["tallies"]) == 3
    assert account["tallies"][-1]["messages_received"] < 3 * 12 * 0.9, "one of four says nothing"


def test_what_does_not_fit_is_a_row_with_the_reason(monkeypatch):
    monkeypatch.setattr(scale, "_free_bytes", lambda: 2**30)
    monkeypatch.setattr(scale, "POINTS", [Point("signed-echo", 32, 10**8)])
    result = CliRunner().invoke(app, ["scale", "--json"], catch_exceptions=False)
    [row] = map(json.loads, result.stdout.splitlines())
    assert row["bytes_sent"] is None
    assert row["note"].startswith("needs 38.9 GiB of memory, 1.0 are free")
    assert "n=32 f=7 d=1e8: needs" in CliRunner().invoke(app, ["scale"], catch_exceptions=False).stdout


def test_people_get_two_tables(monkeypatch):
    row = scale.Row(
        "signed-echo",
        5,
        1,
        10**6,
        3,
        1,
        16e6,
        17e6,
        16e6,
        12.0,
        11.5,
        12.0,
        6.0,
        19.0,
        0.25,
        400.0,
        277.0,
        64.0,
        16.8,
        354.0,
    )
    monkeypatch.setattr(scale, "measure", lambda _: [row])
    out = CliRunner().invoke(app, ["scale"], catch_exceptions=False).stdout
    for told in (
        "signed-echo n=5 f=1 d=1e6 K=3 lead=1",
        "16.00",
        "17.00",
        "11.5",
        "400",
        "277",
        "16.8",
        "354",
        "0.250",
    ):
        assert told in out
