"""What the pages say is so: links lead somewhere, commands are the command line's, the reference is the code's."""

import re
import shlex
import subprocess
from collections import Counter
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from markdown_it import MarkdownIt

from p2pnode.cli import app
from scripts import reference
from tests.fuzz import guided

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

MARKDOWN = MarkdownIt("commonmark").enable("table")

COMMAND = re.compile(r"(?:\S*/)?(?:p2pnode|scripts/(?P<script>\w+))")
"""A word that is a program of ours, from wherever it is called."""

BEFORE = re.compile(r"sudo|nice|-n|\d+|[A-Z0-9_]+=.*")
"""Words that may stand before it."""

JOINTS = re.compile(r"&&|[|;>()]")
"""Between two command lines in one line."""

of_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def tokens(page):
    for token in MARKDOWN.parse(page.read_text()):
        yield token
        yield from token.children or ()


def links(page):
    """Where a page's links and images lead, those to other machines left out."""
    for token in tokens(page):
        target = token.attrs.get("href", token.attrs.get("src"))
        if target is not None and not re.match(r"[a-z]+:", target):
            yield target


def anchors(page):
    """Those that GitHub and the site give alike: a heading's second place in a page they number differently."""
    headings = [
        "".join(child.content for child in body.children)
        for head, body in pairwise(MARKDOWN.parse(page.read_text()))
        if head.type == "heading_open"
    ]
    slugs = Counter(re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings)
    return {slug for slug, count in slugs.items() if count == 1}


def blocks(page):
    return [token.content for token in tokens(page) if token.type in ("fence", "code_block")]


def command_lines(text):
    """The words of each command line of ours, from its program on."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in JOINTS.split(line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # half of a quotation: what a program printed, or wrote
                continue
            while words and BEFORE.fullmatch(words[0]):
                del words[0]
            if words and COMMAND.fullmatch(words[0]):
                yield words


@cache
def programs():
    """Program → its command line, a typer command."""
    ours = typer.main.get_command(app)
    return {
        "p2pnode": ours,
        "scripts/testnet": ours.commands["testnet"],
        "scripts/bench": reference.measurements_command(),
        "scripts/soak": reference.soak_command(),
    }


def found(words):
    """(command, its name, the words left to it) of a command line; the command is None for another script's."""
    script = COMMAND.fullmatch(words[0])["script"]
    name, *left = words
    name = "p2pnode" if script is None else f"scripts/{script}"
    assert script is None or (ROOT / name).exists(), f"no such script: {name}"
    command = programs().get(name)
    while hasattr(command, "commands") and left and not left[0].startswith("-"):
        name, *left = left
        assert name in command.commands, f"no such command: {name}"
        command = command.commands[name]
    return command, name, left


def options(command):
    return {option for one in getattr(command, "params", ()) for option in one.opts} | {"--help", "-h"}


def parse(words):
    """Read a command line as its program does, and run nothing.

    Raises:
        Exception, SystemExit: the program's own, for what it would refuse.
    """
    command, name, left = found(words)
    if hasattr(command, "commands"):  # its own options do something as soon as they are read
        assert set(left) <= options(command), f"no such option: {left}"
    elif command is not None:
        with suppress(typer.Exit):  # of --help
            command.make_context(name, left)
    elif name == "scripts/fuzz":
        guided.arguments().parse_args(left)


@of_each_page
def test_every_link_leads_somewhere(page):
    """In the repository; in the site it does too, as `scripts/docs` sees to."""
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target}: there is no such file"
        assert there.is_relative_to(ROOT), f"{target}: leads out of the repository"
        assert not anchor or anchor in anchors(there), f"{target}: that page has no such heading, or has it twice"


@of_each_page
def test_every_command_line_is_one_that_its_program_takes(page):
    for text in blocks(page):
        for words in command_lines(text):
            try:
                parse(words)
            except (Exception, SystemExit) as error:
                pytest.fail(f"{shlex.join(words)}: {error}")


@of_each_page
def test_every_option_in_a_sentence_is_one_that_its_command_has(page):
    """Not everything may be said there that the command asks for."""
    for token in tokens(page):
        for words in command_lines(token.content) if token.type == "code_inline" else ():
            command, _, left = found(words)
            unknown = {word.partition("=")[0] for word in left if word.startswith("--")} - options(command)
            assert command is None or not unknown, f"{token.content}: no such option: {unknown}"


def test_command_lines_are_found_wherever_they_stand():
    text = """
    $ left alone
    sudo .venv/bin/p2pnode testnet --engine netns && p2pnode report runs/x  # comment --nope
    A_B=… p2pnode run a \\
      --log-level warning > log
    scripts/test tests/protocols -x | tee it's
    docker run p2pnode run a
    """
    assert [shlex.join(words) for words in command_lines(text)] == [
        "p2pnode testnet --engine netns".replace("p2pnode", ".venv/bin/p2pnode"),
        "p2pnode report runs/x",
        "p2pnode run a --log-level warning",
        "scripts/test tests/protocols -x",
    ]


def test_the_reference_is_what_the_code_says():
    """Where it is not: scripts/docs reference."""
    assert reference.PAGE.read_text() == reference.page()


SETTINGS = [table for _, tables in reference.FILES.values() for table in tables.values()]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.__name__)
def test_every_setting_has_its_meaning_and_no_other_is_told(settings):
    assert list(reference.documented(settings)) == list(settings.model_fields)


def test_the_site_builds_with_every_page_and_no_broken_link(tmp_path):
    mkdocs = ROOT / ".venv-docs" / "bin" / "mkdocs"
    if not mkdocs.exists():
        pytest.skip("what makes the site is not installed here. Remedy: scripts/docs")
    command = [mkdocs, "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    front = (tmp_path / "site" / "index.html").read_text()
    for file in (ROOT / "docs").glob("*.md"):
        assert f'href="{file.stem}.html"' in front, f"{file.name} is not in the menu"
