import json

from typer.testing import CliRunner

from p2pnode.bench.app import app
from p2pnode.bench.link import QUICK_SIZES


def test_vectors_cross_between_two_processes_with_tls_and_without():
    result = CliRunner().invoke(app, ["link", "--quick", "--json"], catch_exceptions=False)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["tls"], row["bytes"]) for row in rows] == [
        (tls, size) for tls in (True, False) for size in QUICK_SIZES
    ]
    for row in rows:
        assert row["seconds"] > 0
        assert row["ratio_to_bare"] > 0
        assert row["extra_memory_mib"] is None or row["extra_memory_mib"] >= 0
        for state in ("idle", "bulk"):
            assert 0 < row[f"control_p50_{state}_ms"] <= row[f"control_p99_{state}_ms"]
