"""How tests call the command line, and see that what is refused is not begun."""

import asyncio
import socket
import subprocess
import sys

import pytest

from p2pnode import cli


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command line as `python -m p2pnode` does: (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["p2pnode", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.run(0.0)
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture
def no_sockets(monkeypatch):
    """Whoever opens a socket of the network or starts a process fails the test."""

    class LocalSocket(socket.socket):
        def __init__(self, family=socket.AF_INET, *args, **kwargs):
            assert family == socket.AF_UNIX, "begun although it is refused"  # the event loop has one of its own
            super().__init__(family, *args, **kwargs)

    def refused(*args, **kwargs):
        raise AssertionError("begun although it is refused")

    monkeypatch.setattr(socket, "socket", LocalSocket)
    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
