"""Forks nodes from one process that has torch and the data loaded, so that many nodes pay for that once.

A node that runs elsewhere, as in a container, is forked too: into the command that runs it there, and ends with it.

Run as `python -m p2pnode.spawner`. Orders come as JSON lines on standard input, reports go as JSON lines to standard
output. When standard input ends, however its other side ended, every node is stopped and reported.
"""

import ctypes
import gc
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

STOP_S = 10.0
"""A node that is told to stop saves what it has and ends within 5 s; one that does not is killed after this."""

_SIGNALLED = 128
"""What shells and container engines add to the number of a signal that ended something."""

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Serve orders until standard input ends."""
    nodes: dict[int, str] = {}
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    orders = b""
    while True:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 512)
            _report_ended(nodes)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, orders = (orders + data).split(b"\n")
            for line in lines:
                _obey(json.loads(line), nodes)
    _stop(nodes)


def _obey(order: dict[str, Any], nodes: dict[int, str]) -> None:
    if "load" in order:
        _load(order["load"])
        return
    pid = os.fork()
    if pid == 0:
        _become_node(order)
    nodes[pid] = order["name"]
    _report(name=order["name"], pid=pid)


def _load(order: dict[str, Any]) -> None:
    """Load torch and the task's data, to be shared by all nodes."""
    import torch

    torch.set_num_threads(1)  # a thread pool does not survive a fork
    from p2pnode import process  # noqa: F401
    from p2pnode.errors import ConfigError
    from p2pnode.learning.own import built_own
    from p2pnode.learning.task import build

    data_dir = Path(order["data_dir"]) if order["data_dir"] else None
    try:
        if order["source"] is None:
            build(order["task"], data_dir)
        else:
            built_own(order["source"], data_dir)
    except ConfigError as error:
        _report(refused=str(error))
    else:
        gc.collect()
        gc.freeze()  # to look through what all share, each node would write to it, and so have it all for itself
        _report(loaded=True)


def _become_node(order: dict[str, Any]) -> NoReturn:
    code = 1
    try:
        _die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        home_path = Path(order["home"])
        output = os.open(home_path / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for fd, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
            os.dup2(fd, target)
        if order.get("command") is not None:
            os.execvp(order["command"][0], order["command"])
        from p2pnode import hosts
        from p2pnode.errors import ConfigError, P2PNodeError
        from p2pnode.home import Home
        from p2pnode.process import EXIT_FAILED, EXIT_SETTINGS, run_node

        if order.get("namespace") is not None:
            hosts.enter(order["namespace"])
        try:
            written = order.get("tensorboard")
            folder = Path(written) if written is not None else None
            code = run_node(Home(home_path), order["attacks"], order["liars"], tensorboard=folder)
        except P2PNodeError as error:
            print(error, file=sys.stderr)
            code = EXIT_SETTINGS if isinstance(error, ConfigError) else EXIT_FAILED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_with_parent() -> None:
    """Ask the kernel to kill this node if the spawner dies without stopping it (Linux; elsewhere a no-op)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _report_ended(nodes: dict[int, str]) -> None:
    while nodes:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        _report(name=nodes.pop(pid), exit=_exit_code(status))


def _exit_code(status: int) -> int:
    """Of a process; negative if a signal ended it, or what it stands for: a command says 128 + the signal's number."""
    code = os.waitstatus_to_exitcode(status)
    return code if code <= _SIGNALLED else _SIGNALLED - code


def _stop(nodes: dict[int, str]) -> None:
    """End every node: in good order if it can, otherwise by force, stopped ones too."""
    for pid in nodes:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + STOP_S
    while nodes and time.monotonic() < deadline:
        _report_ended(nodes)
        time.sleep(0.02)
    for pid in nodes:
        os.kill(pid, signal.SIGKILL)
    while nodes:
        _report_ended(nodes)
        time.sleep(0.02)


def _report(**fields: object) -> None:
    """Tell the other side, if it is still there."""
    try:
        os.write(1, json.dumps(fields).encode() + b"\n")
    except BrokenPipeError:
        return


if __name__ == "__main__":
    main()
