"""The way in: `scripts/venv` tells what it lacks, and what it made once works wherever the project goes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Python as `scripts/venv` uses it, whose installations take no network: $AGE is its age, and $LACKS what fails.
PYTHON = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case "$*" in
  -c*) [ "${AGE:-new}" = new ] ;;
  --version) echo Python 3.9.2 ;;
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && [ "${LACKS:-}" != venv ] && touch .venv/pip ;;
  "-m pip --version") [ -e .venv/pip ] ;;
  "-m pip install"*) [ "${LACKS:-}" != network ] && echo "#!$PWD/.venv/bin/python" > .venv/bin/p2pnode ;;
esac
"""


class Project:
    """A copy of what `scripts/venv` reads, and a Python that does as it is told."""

    def __init__(self, folder):
        self.folder = folder / "a project"
        (self.folder / "scripts").mkdir(parents=True)
        for name in ("scripts/venv", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder / name)
        self.python = folder / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.calls = folder / "calls"

    def venv(self, *arguments, **settings):
        """(exit code, what it said, what it asked Python to do)."""
        self.calls.write_text("")
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(self.python), "CALLS": str(self.calls), **settings}
        command = [str(self.folder / "scripts/venv"), *arguments]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert ended.stdout == ""
        return ended.returncode, ended.stderr, self.calls.read_text()


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("settings", "code", "told", "anew"),
    [
        ({"AGE": "old"}, 2, "needs Python 3.11 or later; {python} is Python 3.9.2. Remedy:", True),
        ({"PYTHON": "nosuchpython"}, 2, "there is no nosuchpython. Remedy:", True),
        ({"LACKS": "venv"}, 2, "no environment to install into: see above. Remedy:", True),
        ({"LACKS": "network"}, 1, "p2pnode is not installed: see above. Remedy:", False),
    ],
)
def test_what_is_lacking_is_told_with_a_remedy_and_made_good_the_next_time(project, settings, code, told, anew):
    ended, said, _ = project.venv(**settings)
    assert ended == code
    assert told.format(python=project.python) in said
    assert "command not found" not in said
    ended, _, calls = project.venv()
    assert ended == 0
    assert ("-m venv" in calls) == anew
    assert "-m pip install" in calls


def test_it_is_installed_once_and_again_when_what_is_wanted_changes(project):
    assert "-m venv" in project.venv("dev")[2]
    assert project.venv("dev")[1:] == project.venv()[1:] == ("", "")
    (project.folder / "constraints.txt").write_text("torch==3\n")
    _, _, calls = project.venv()
    assert "-m pip install" in calls
    assert "-m venv" not in calls


@pytest.mark.parametrize("go", [shutil.move, shutil.copytree])
def test_a_project_that_was_moved_or_copied_gets_an_environment_of_its_own(project, tmp_path, go):
    project.venv()
    go(project.folder, tmp_path / "elsewhere")
    project.folder = tmp_path / "elsewhere"
    _, _, calls = project.venv()
    assert "-m venv --clear" in calls
    assert str(tmp_path / "elsewhere") in (project.folder / ".venv/bin/p2pnode").read_text()
