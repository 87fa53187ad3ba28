"""The command line: exit codes, and help that helps."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from p2pnode import cli
from p2pnode.cli import testnet
from p2pnode.errors import ConfigError, P2PNodeError


def test_exit_codes(call, monkeypatch):
    for error, code, word in ((ConfigError("a [b] c"), 2, "refused"), (P2PNodeError("d [e] f"), 1, "failed")):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(testnet, "_watched", fail)
        assert call("testnet") == (code, "", f"{word} {error}\n")
    assert call("testnet", "--nodes", "many")[0] == 2
    assert call("frobnicate")[0] == 2
    assert call("--help")[0] == 0


def test_as_a_module_too(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "p2pnode", "testnet", "--nodes", "8", "--byzantine", "2", "--out", tmp_path / "net"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "n ≥ 4f+1" in done.stderr
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["testnet"],
        ["keygen"],
        ["init"],
        ["run"],
        ["status"],
        ["top"],
        ["verify-evidence"],
        ["simulate"],
        ["doctor"],
        ["genesis"],
        ["export"],
        ["evaluate"],
    ],
)
def test_every_command_explains_itself(command):
    for flag in ("--help", "-h"):
        told = CliRunner().invoke(cli.app, [*command, flag])
        assert told.exit_code == 0
        assert len(told.output.splitlines()) > 8


def test_it_tells_its_version(call):
    code, out, err = call("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"p2pnode \d+\.\d+\.\d+\n", out)


def test_help_has_examples():
    assert "p2pnode testnet --recipe dsgd --attack sign-flip" in CliRunner().invoke(cli.app, ["testnet", "-h"]).output
    assert "p2pnode init lan --f 1 --address a=" in CliRunner().invoke(cli.app, ["init", "-h"]).output
    simulate = CliRunner().invoke(cli.app, ["simulate", "-h"]).output
    assert "\n   p2pnode simulate --nodes 13 --byzantine 3 --attack equivocate --seeds 20" in simulate
    assert "\n   p2pnode simulate --recipe reliable --byzantine 2 --f 1 --beyond-the-bound" in simulate
