"""One process holds a home, for as long as it lives and no longer."""

import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pnode.errors import ConfigError
from p2pnode.home import Home

HOLD = (
    "import sys, pathlib; from p2pnode.home import Home\n"
    "with Home(pathlib.Path(sys.argv[1])).occupied(): print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def holder(path):
    """Another process that holds the home until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_every_name_lies_in_the_home_and_means_one_file():
    home = Home(Path("/some/where"))
    names = [name for name in vars(Home) if isinstance(vars(Home)[name], property)]
    files = {getattr(home, name) for name in names}
    assert len(files) == len(names) >= 12
    assert {file.parent for file in files} == {home.path}


def test_a_second_process_is_refused_and_told_which_one_holds_the_home(tmp_path):
    with holder(tmp_path) as process:
        for _ in range(2):
            with (
                pytest.raises(
                    ConfigError, match=f"home {tmp_path}: process {process.pid} runs this node; stop it first"
                ),
                Home(tmp_path).occupied(),
            ):
                pass
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert not Home(tmp_path).pid.exists()
    with Home(tmp_path).occupied():
        assert Home(tmp_path).pid.read_text() == f"{os.getpid()}\n"
    assert not Home(tmp_path).pid.exists()


def test_one_process_cannot_hold_a_home_twice(tmp_path):
    with (
        Home(tmp_path).occupied(),
        pytest.raises(ConfigError, match=f"process {os.getpid()}"),
        Home(tmp_path).occupied(),
    ):
        pass


def test_a_killed_process_leaves_a_pid_file_that_keeps_nobody_out(tmp_path):
    with holder(tmp_path) as process:
        process.kill()
        process.wait(timeout=30)
        assert Home(tmp_path).pid.read_text() == f"{process.pid}\n"
        with Home(tmp_path).occupied():
            assert Home(tmp_path).pid.read_text() == f"{os.getpid()}\n"


def test_a_longer_stale_pid_is_replaced_whole(tmp_path):
    Home(tmp_path).pid.write_text("123456789012345\n")
    with Home(tmp_path).occupied():
        assert Home(tmp_path).pid.read_text() == f"{os.getpid()}\n"


def test_a_failure_inside_gives_the_home_back(tmp_path):
    with pytest.raises(ZeroDivisionError), Home(tmp_path).occupied():
        raise ZeroDivisionError
    with Home(tmp_path).occupied():
        pass


def test_what_is_no_home_is_refused_with_a_remedy(tmp_path):
    for path, reason in ((tmp_path / "none", "No such file"), (Path("/dev/null"), "Not a directory")):
        with (
            pytest.raises(ConfigError, match=f"home {path}: {reason}.*make one with `p2pnode init`"),
            Home(path).occupied(),
        ):
            pass


def test_a_lock_on_a_removed_pid_file_is_not_taken_for_the_home(tmp_path, monkeypatch):
    """The holder leaves between our opening the file and our locking it, and a third process moves in."""
    home, lock = Home(tmp_path), fcntl.flock
    third = []

    def late(fd, operation):
        if not third:
            home.pid.unlink()
            third.append(os.open(home.pid, os.O_RDWR | os.O_CREAT))
            lock(third[0], fcntl.LOCK_EX)
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ConfigError, match="runs this node"), home.occupied():
        pass
    os.close(third[0])
    third.clear()

    def only_removed(fd, operation):
        if not third:
            home.pid.unlink()
            third.append(None)
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", only_removed)
    with home.occupied():
        assert home.pid.read_text() == f"{os.getpid()}\n"
