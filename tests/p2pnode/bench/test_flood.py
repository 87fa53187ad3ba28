import json

import pytest
from typer.testing import CliRunner

from p2pnode.bench import flood
from p2pnode.bench.app import app
from p2pnode.bench.flood import QUICK_FLOODS
from p2pnode.errors import ConfigError


def test_the_honest_go_on_under_a_flood_and_are_counted_with_it_and_without():
    result = CliRunner().invoke(app, ["flood", "--quick", "--json"], catch_exceptions=False)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["flood"] for row in rows] == list(QUICK_FLOODS)
    for row in rows:
        assert row["steps_per_second"] > 0
        assert row["ratio"] > 0
        assert row["megabytes_per_second"] >= 0
        assert row["victim_cores"] is None or -2 < row["victim_cores"] < 2
        assert row["banned"] in (True, False)


def test_a_flood_that_is_none_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"'sand': no such flood. Remedy: choose from tiny frames, "):
        CliRunner().invoke(app, ["flood", "--flood", "sand"], catch_exceptions=False)


def test_people_get_a_table(monkeypatch):
    monkeypatch.setattr(flood, "measure", lambda *_: [flood.Row("slow writers", 12.5, 0.97, 0.015, 3.25, True)])
    out = CliRunner().invoke(app, ["flood"], catch_exceptions=False).stdout
    for told in ("1 floods of one of 4 honest nodes", "slow writers", "12.5", "0.97", "+0.015", "3.2", "yes"):
        assert told in out
