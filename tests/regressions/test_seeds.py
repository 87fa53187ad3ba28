"""Every seed that ever failed is run again."""

import json
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from p2pnode.cli import app

SEEDS = tomllib.loads((Path(__file__).parent / "seeds.toml").read_text())["seed"]


@pytest.mark.parametrize("entry", SEEDS, ids=lambda entry: entry["options"])
def test_a_seed_that_failed_once_does_not_fail_again(entry):
    told = CliRunner().invoke(app, ["simulate", "--json", "--seeds", "1", *shlex.split(entry["options"])])
    assert json.loads(told.stdout)["violations"] == 0, told.stdout
    assert entry["story"].strip()
