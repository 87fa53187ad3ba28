"""What the page for operators quotes is what the node says: messages, series, settings and files of it exist."""

import configparser
import errno
import os
import re
from pathlib import Path

import pytest

from p2pnode.config import NodeConfig
from p2pnode.home import Home
from p2pnode.process import EXIT_FAILED, EXIT_SETTINGS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text()
SOURCES = "\n".join(file.read_text() for file in sorted((ROOT / "p2pnode").rglob("*.py")))
OF_THE_SYSTEM = {os.strerror(number) for number in (errno.ENOSPC, errno.EROFS, errno.EACCES)}


def first_cells(head):
    """The code in the first column of the page's table that begins with this head."""
    table = PAGE[PAGE.index(f"| {head}") :].split("\n\n")[0]
    return [code for line in table.splitlines()[2:] for code in re.findall(r"`([^`]+)`", line.split(" | ")[0])]


def said_somewhere(fragment):
    """Whether some source says this, or that something was discarded that it names."""
    what, _, rest = fragment.partition(" ")
    composed = rest == "discarded" and f'_warn("{what}"' in SOURCES
    return fragment in SOURCES or composed


@pytest.mark.parametrize("message", first_cells("message"))
def test_each_message_of_the_page_is_one_that_a_node_says(message):
    for fragment in message.removeprefix("signed.journal: ").split("…"):
        assert fragment.strip() in OF_THE_SYSTEM or said_somewhere(fragment.strip()), fragment


def test_each_series_to_alert_on_is_told():
    told = (ROOT / "p2pnode" / "observe" / "metrics.py").read_text()
    named = set(re.findall(r"`p2pnode_(\w+?)(?:_total)?`", PAGE))
    assert len(named) > 5
    assert {name for name in named if f'"{name}"' not in told and f'"p2pnode_{name}"' not in told} == set()


def test_each_file_and_setting_of_the_page_exists():
    home = Home(Path("home"))
    files = {getattr(home, name).name for name, kind in vars(Home).items() if isinstance(kind, property)}
    told = {name.rstrip("/") for name in first_cells("| back up?")}
    assert len(told) > 10
    assert told <= files
    assert {"listen", "admin", "linger_s", "checkpoint_every"} <= set(NodeConfig.model_fields)


def test_the_unit_starts_again_what_crashed_and_not_what_a_person_must_mend():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(ROOT / "deploy" / "systemd" / "p2pnode@.service")
    service = unit["Service"]
    assert (service["Restart"], int(service["RestartPreventExitStatus"])) == ("on-failure", EXIT_SETTINGS)
    assert EXIT_FAILED not in (0, EXIT_SETTINGS)
    assert service["ReadWritePaths"] in service["ExecStart"]
