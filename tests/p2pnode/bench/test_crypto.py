import json

import pytest
from typer.testing import CliRunner

from p2pnode.bench.app import app
from p2pnode.bench.crypto import QUICK_SIZES
from protocols.committee import Committee


def test_a_node_checks_what_the_protocol_says_and_nothing_twice():
    result = CliRunner().invoke(app, ["crypto", "--quick", "--json"], catch_exceptions=False)
    rows = {(row["n"], row["what"]): row for row in map(json.loads, result.stdout.splitlines())}
    for n in QUICK_SIZES:
        quorum = Committee(n, (n - 1) // 3).echo_quorum
        count = {what: rows[n, what]["signatures"] for what in ("signed", "headers", "echoes", "certificates")}
        assert count["signed"] == n, "a header, and an echo of each other"
        assert count["headers"] == n - 1
        assert count["echoes"] == quorum - 1
        assert (n - 1) * (quorum - 2) <= count["certificates"] < (n - 1) * (quorum - 1), "but for its own echoes"
        assert sum(rows[n, what]["share"] for what in count) == pytest.approx(1)
        assert all(rows[n, what]["microseconds"] > 0 for what in count)
