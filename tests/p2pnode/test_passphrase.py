"""A passphrase comes from a file, the environment or a terminal that does not show it; without one it is said how."""

import getpass
import os
import pty
import subprocess
import sys

import pytest

from p2pnode.errors import ConfigError
from p2pnode.passphrase import VARIABLE, asking

ASK = "from p2pnode.passphrase import asking; print(asking(new=True)() == 'päss word'.encode())"


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def typing(monkeypatch):
    """A terminal on which this is typed, line by line."""
    prompts = []

    def types(*lines):
        left = list(lines)
        monkeypatch.setattr(getpass, "getpass", lambda prompt: (prompts.append(prompt), left.pop(0))[1])
        return prompts

    return types


@pytest.mark.parametrize("content", [b"pass word", b"pass word\n", b"pass word\r\n"])
def test_a_file_holds_it_but_for_the_end_of_its_line(tmp_path, monkeypatch, content):
    monkeypatch.setenv(VARIABLE, "another")
    (tmp_path / "secret").write_bytes(content)
    assert asking(tmp_path / "secret")() == b"pass word"


def test_what_lies_in_a_file_is_taken_to_the_byte(tmp_path):
    (tmp_path / "secret").write_bytes(b" \xff\n\n")
    assert asking(tmp_path / "secret")() == b" \xff\n"


def test_the_environment_holds_it_and_then_nobody_is_asked(monkeypatch, typing):
    prompts = typing()
    monkeypatch.setitem(os.environb, VARIABLE.encode(), b"p\xff")
    assert asking(new=True)() == b"p\xff"
    assert prompts == []


def test_it_is_typed_once_however_often_it_is_needed_and_a_new_one_twice(typing):
    prompts = typing("one")
    ask = asking()
    assert [ask(), ask()] == [b"one"] * 2
    typing("two", "two")
    assert asking(new=True)() == b"two"
    assert prompts == ["Passphrase of the key: ", "Passphrase of the key: ", "The same again: "]


@pytest.mark.parametrize(
    ("typed", "reason"),
    [(("one", "onf"), "the two passphrases differ; nothing was changed. Remedy"), (("", ""), "is empty. Remedy")],
)
def test_a_slip_of_the_finger_seals_nothing(typing, typed, reason):
    typing(*typed)
    with pytest.raises(ConfigError, match=reason):
        asking(new=True)()


def test_what_holds_none_is_told_with_a_remedy(tmp_path, monkeypatch):
    for content, reason in ((None, "No such file"), (b"\n", "is empty"), (b"x" * 5000, "more than 4096 bytes")):
        if content is not None:
            (tmp_path / "secret").write_bytes(content)
        with pytest.raises(ConfigError, match=f"{reason}.*Remedy: "):
            asking(tmp_path / "secret")()
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(ConfigError, match="is empty"):
        asking()()


def test_a_terminal_does_not_show_what_is_typed():
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", ASK], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        for prompt in (b"Passphrase of the key: ", b"The same again: "):
            while not shown.endswith(prompt):
                shown += os.read(ours, 1024)
            os.write(ours, "päss word\n".encode())
        while not shown.endswith(b"True\r\n"):
            shown += os.read(ours, 1024)
        assert process.wait() == 0
    os.close(ours)
    assert b"word" not in shown


def test_without_a_terminal_it_is_said_where_else_it_may_come_from():
    ended = subprocess.run(
        [sys.executable, "-c", ASK], stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=False
    )
    assert ended.returncode == 1
    assert b"no terminal to ask on. Remedy: set P2PNODE_PASSPHRASE, or name a file by --passphrase-file" in ended.stderr
    assert ended.stdout == b""
