"""Logs: a JSON object a line in the node's home, and the same for people, or as JSON, on the terminal.

Each line has its time, level, node and event, and where the node is then, step and phase; `peer` if it is about one.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import structlog

from p2pnode.errors import asking_disk
from p2pnode.observe.levels import LEVELS, Console, Level

Log = structlog.typing.FilteringBoundLogger

_INFO = 20


def open_log(
    path: Path,
    name: str,
    console: Console = "none",
    shown: Level = "info",
    where: Callable[[], Mapping[str, Any]] = dict,
) -> Log:
    """A logger that appends to `path`, and shows the same on standard error for people or on standard output as JSON.

    Args:
        path: the file; a line an event, each with its time (UTC), level, node and event, and where the node is.
        name: the node's name.
        console: how to show it besides.
        shown: the least level that is shown; the file has all.
        where: says where the node is; asked by any thread.

    Raises:
        DiskError: if the file cannot be opened.
    """
    with asking_disk(path):
        file = FileIO(path, "a")

    def situate(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**where(), **event}

    log: Log = structlog.wrap_logger(
        _Tee(file, console, shown),
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper("iso", utc=True), situate],
        wrapper_class=structlog.make_filtering_bound_logger(_INFO),
        context_class=dict,
        node=name,
    )
    return log


class _Tee:
    """Writes an event as JSON to the file, and to the terminal as it is wanted there.

    What the file does not take, since its disk is full, goes to the terminal instead, and stops nothing: a node must be
    able to say why it halts.
    """

    def __init__(self, file: FileIO, console: Console, shown: Level) -> None:
        self._file = file
        self._console = console
        self._hidden = LEVELS[: LEVELS.index(shown)]
        self._json = structlog.processors.JSONRenderer()
        self._traced = structlog.processors.ExceptionRenderer()
        self._people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=20)

    def _write(self, **event: object) -> None:
        line = str(self._json(None, "", self._traced(None, "", dict(event))))
        try:
            self._file.write(line.encode() + b"\n")
        except OSError:
            if self._console == "none":
                with suppress(OSError):
                    print(line, file=sys.stderr, flush=True)
        if event["level"] in self._hidden:
            return
        if self._console == "json":
            print(line, flush=True)
        elif self._console == "people":
            print(self._people(None, "", dict(event)), file=sys.stderr, flush=True)

    debug = info = warning = error = critical = exception = _write
