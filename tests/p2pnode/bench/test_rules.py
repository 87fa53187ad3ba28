import json

import pytest
import torch
from typer.testing import CliRunner

from p2pnode.aggregation import RULES
from p2pnode.bench import rules as bench
from p2pnode.bench.memory import forget_peak
from p2pnode.errors import ConfigError

AS_USUAL = torch.get_num_threads()


@pytest.fixture(autouse=True)
def _threads_as_before():
    yield
    torch.set_num_threads(AS_USUAL)


def invoke(*arguments):
    return CliRunner().invoke(bench.app, ["rules", "--quick", *arguments], catch_exceptions=False)


def test_every_rule_is_timed_beside_the_mean_in_lines_of_json():
    result = invoke("--json", "--size", "7,1,50", "--size", "9,2,20")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    for n, f, d in ((7, 1, 50), (9, 2, 20)):
        timed = {row["rule"]: row for row in rows if (row["n"], row["f"], row["d"], row["device"]) == (n, f, d, "cpu")}
        assert {"torch.mean", "torch.sort", *RULES} <= set(timed)
        assert timed["torch.mean"]["ratio_to_mean"] == 1
        for row in timed.values():
            assert row["note"] or row["ratio_to_mean"] == row["seconds"] / timed["torch.mean"]["seconds"]


def test_what_a_rule_refuses_is_a_row_with_the_reason():
    rows = {row.rule: row for row in bench.measure([(4, 2, 10)], repeats=1)}
    assert rows["trimmed-mean"].seconds is None
    assert "needs at least 5 vectors, got 4" in rows["trimmed-mean"].note
    assert rows["mean"].seconds > 0


def test_people_get_a_table():
    out = invoke("--size", "4,2,10").stdout
    assert "× mean" in out
    assert "trimmed-mean" in out
    assert "n=4 f=2 d=10" in out
    assert "needs at least" in " ".join(out.split())


@pytest.mark.parametrize("text", ["10", "10,2", "a,b,c", "3,3,5", "3,-1,5", "3,1,0"])
def test_a_size_that_is_none_is_refused_with_the_remedy(text):
    with pytest.raises(ConfigError, match=r"--size .* Remedy: write as 10,2,1000000"):
        bench.parse_size(text)


def test_the_memory_that_a_call_holds_is_seen():
    if forget_peak() is None:
        pytest.skip("this system does not say how much memory a process has held")
    _, held = bench._first(lambda: torch.ones(8 << 20, dtype=torch.float32), "cpu")
    assert 30 << 20 <= held <= 60 << 20
