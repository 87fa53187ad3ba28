"""What the documents tell to type is what the command line takes."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from p2pnode import cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {"p2pnode": [], ".venv/bin/p2pnode": [], "scripts/testnet": ["testnet"]}


def told(document):
    """Command lines of p2pnode in a document, without what stands before and after them."""
    text = document.read_text().replace("\\\n", " ")
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    lines += re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)  # a table of figures has the commands that made them
    for line in lines:
        words = [
            word for word in shlex.split(line, comments=True) if word != "sudo" and not word.startswith("P2PNODE_")
        ]
        if words and words[0] in PROGRAMS and not {"…", "|"} & set(words):
            yield PROGRAMS[words[0]] + words[1:]


def disarmed(command):
    """The command, which takes its arguments and does nothing."""
    for inner in getattr(command, "commands", {}).values():
        disarmed(inner)
    command.callback = lambda **_: None
    return command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_document_is_one(document):
    command = disarmed(get_command(cli.app))
    for words in told(document):
        assert command.main(words, standalone_mode=False) in (None, 0), words


def test_the_commands_of_a_newcomer_are_read():
    commands = [words for document in DOCUMENTS for words in told(document)]
    assert ["testnet", "--out", "runs/first"] in commands
    assert ["testnet", "--out", "runs/undefended", "--recipe", "dsgd", "--attack", "sign-flip"] in commands
    assert len(commands) > 40
    with pytest.raises(Exception, match="No such option"):
        disarmed(get_command(cli.app)).main(["testnet", "--recpe", "monna"], standalone_mode=False)
