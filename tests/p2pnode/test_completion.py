"""What the shell completes is what the command line takes, asked as the shells ask for it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from p2pnode import cli, completion
from p2pnode.__main__ import main
from p2pnode.aggregation import PRE_AGGREGATIONS, RULES
from p2pnode.byzantine import ATTACKS
from p2pnode.errors import ConfigError
from p2pnode.learning import catalogue
from p2pnode.recipe import BROADCASTS, RECIPES

ROOT = Path(__file__).parents[2]

PROGRAM = f"#!{sys.executable}\nfrom p2pnode.__main__ import main\nmain()\n"


@pytest.fixture
def offered(monkeypatch, capsys):
    """The words that bash is offered for the last of a command line."""

    completion.complete(cli.app)

    def ask(line):
        monkeypatch.setenv("_P2PNODE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"p2pnode {line}")
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ") + 1))
        with pytest.raises(SystemExit) as ended:
            cli.app(prog_name="p2pnode")
        assert ended.value.code == 0
        return capsys.readouterr().out.split()

    return ask


@pytest.fixture
def refusal(monkeypatch, capsys):
    """What a command line is refused with."""

    def ask(line):
        monkeypatch.delenv("_P2PNODE_COMPLETE", raising=False)
        monkeypatch.setattr(sys, "argv", ["p2pnode", *line.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return ask


def test_names_complete_wherever_they_are_asked_for(offered):
    for command in ("testnet", "init x", "genesis new x", "plan"):
        assert offered(f"{command} --recipe ") == list(RECIPES)
        assert offered(f"{command} --rule ") == [*PRE_AGGREGATIONS, *RULES]
        assert offered(f"{command} --task ")[: len(catalogue.TASKS)] == list(catalogue.TASKS)
    assert offered("simulate --recipe ") == [*RECIPES, *BROADCASTS]
    assert offered("testnet --recipe=jungle") == ["jungle-rb", "jungle-mda"]
    assert set(offered("run home --attack ")) >= set(ATTACKS)
    assert {"all", "twins"} <= set(offered("simulate --attack "))
    assert offered("testnet --engine ") == ["processes", "netns", "containers"]
    assert offered("experiment file --engine ") == ["local", "ray", "testnet"]


def test_lists_and_pipelines_complete_in_their_last_part(offered):
    assert offered("testnet --attack alie,equi") == ["alie,equivocate"]
    assert offered("testnet --attack alie=") == ["alie=paper", "alie=search"]
    assert "silent,alie" in offered("testnet --attack silent,")
    assert "silent,silent" not in offered("testnet --attack silent,s")
    assert "alie,alie=search" not in offered("testnet --attack alie,a")
    assert offered("testnet --rule arc+nnm+kr") == ["arc+nnm+krum"]
    assert offered("testnet --rule nnm+nn") == []


def test_where_ones_own_code_or_a_file_is_asked_for_the_shell_completes_files(offered):
    for line in ("run home --task ", "export home out --task ", "keygen home --task ", "testnet --perturb hurt."):
        assert offered(line) == []


@pytest.mark.parametrize(
    "line",
    [
        "testnet --engine",
        "testnet --recipe",
        "testnet --broadcast",
        "testnet --gather",
        "testnet --placement",
        "testnet --wire",
        "simulate --schedule",
        "experiment file --engine",
        "run home --log-level",
        "run home --log-format",
        "status home --probe",
        "list",
    ],
)
def test_what_is_offered_is_what_a_refusal_names(offered, refusal, line):
    remedy = refusal(f"{line} nonsense").partition("Remedy: ")[2]
    names = re.split(r", | or ", remedy.partition("choose ")[2].removeprefix("one of ").strip())
    assert offered(f"{line} ") == names


@pytest.mark.parametrize("line", ["testnet --rule", "testnet --attack", "testnet --task", "testnet --vectors"])
def test_what_is_offered_is_known(offered, refusal, line):
    """The refusal says more than names, or not all."""
    known = refusal(f"{line} nonsense")
    missing = [word for word in offered(f"{line} ") if word.partition("=")[0] not in known]
    assert [word for word in missing if word not in PRE_AGGREGATIONS] == []


def test_every_offer_is_for_a_parameter_that_there_is():
    """One that was renamed would go uncompleted, and nobody would see it."""
    there = set()

    def walk(command):
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner)
            there.update(f"{name} {one.name}" for one in inner.params)

    walk(typer.main.get_command(cli.app))
    names = {key.split()[1] for key in there}
    assert [key for key in completion.OFFERS if key not in (there if " " in key else names)] == []


def test_a_plug_in_that_is_in_the_way_is_silent(offered, monkeypatch):
    def refused():
        raise ConfigError("it takes a name")

    monkeypatch.setattr(catalogue, "plugged", refused)
    assert offered("testnet --task ") == []


def test_completing_imports_no_torch():
    code = "import sys\nfrom p2pnode.__main__ import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    asked = {"_P2PNODE_COMPLETE": "complete_bash", "COMP_WORDS": "p2pnode testnet --rule tri", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['p2pnode']\n{code}"],
        env={**os.environ, **asked},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["trimmed-mean", "False"]


def test_bash_completes_when_the_script_is_shown_to_it_or_installed(tmp_path):
    program = tmp_path / "p2pnode"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def bash(script):
        command = ["bash", "--norc", "-c", script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    ask = "COMP_WORDS=(p2pnode testnet --recipe tri); COMP_CWORD=3; _p2pnode_completion p2pnode; echo ${COMPREPLY[@]}"
    assert bash(f'eval "$(p2pnode --show-completion)"; {ask}') == "trimmed\n"
    assert "completion installed" in bash("p2pnode --install-completion; true")
    assert bash(f"source ~/.bashrc; complete -p p2pnode; {ask}").splitlines()[-1] == "trimmed"
