"""A picture of nodes in the terminal, a row each, that goes on while they run: where they are, and whom they wait for.

Each node is asked by a thread of its own, so one that is stopped holds up no other's row; its peers' rows name it.
"""

import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from p2pnode.asking import ask
from p2pnode.errors import ConfigError, P2PNodeError
from p2pnode.home import Home

EVERY_S = 0.5
"""How often nodes are asked and the picture is drawn: who is late is seen within a second."""

_PATIENCE_S = 1.0
"""A node that has not answered for so long is asked again."""

_TRAIL = 20
"""Looks over which steps a second are counted."""

_NAMES_MAX = 3
"""Members named in a column of a row; `--json` names all."""

_COLUMNS = ("node", "step", "steps/s", "loss", "accuracy", "does", "waits for", "late", "banned", "proofs", "MiB")
_NUMBERS = ("step", "steps/s", "loss", "accuracy", "MiB")


def homes_of(folders: Sequence[Path]) -> list[Home]:
    """The homes among these folders, and right below those that are none, as of a testnet's.

    Raises:
        ConfigError: if there is none in one of them.
    """
    homes: list[Home] = []
    for folder in folders:
        found = [Home(folder)] if Home(folder).config.exists() else _homes_below(folder)
        if not found:
            raise ConfigError(
                f"{folder}: neither a home nor a folder of homes. Remedy: name one that a node was made in"
            )
        homes += found
    return homes


def _homes_below(folder: Path) -> list[Home]:
    paths = [file.parent for file in folder.glob("*/node.toml")]
    return [Home(path) for path in sorted(paths, key=lambda path: _counted(path.name))]


def _counted(name: str) -> list[tuple[int, str]]:
    """Orders node2 before node10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


class Watched:
    """What is known of one node.

    Args:
        home: its files.
        ask: asks it.
    """

    def __init__(self, home: Home, ask: Callable[[Home], dict[str, Any]]) -> None:
        self.home = home
        self._ask = ask
        self._told: dict[str, Any] = {}
        self._answered: float | None = None
        self._asked: Future[dict[str, Any]] | None = None
        self._trail: deque[tuple[float, int]] = deque(maxlen=_TRAIL)

    def look(self, threads: ThreadPoolExecutor, now: float) -> None:
        """Take the answer that came, if one did, and ask again."""
        if self._asked is not None and not self._asked.done():
            return
        if self._asked is not None and self._asked.exception() is None:
            self._take(self._asked.result(), now)
        self._asked = threads.submit(self._ask, self.home)

    def _take(self, told: dict[str, Any], now: float) -> None:
        if self._trail and told["seconds"] < self._trail[-1][0]:  # it was started again
            self._trail.clear()
        self._told, self._answered = told, now
        self._trail.append((told["seconds"], told["steps_taken"]))

    def row(self, now: float) -> dict[str, Any]:
        """What is told of it; `silent` is for how many seconds it has not answered, None if it never did."""
        told = self._told
        silent = None if self._answered is None else round(now - self._answered, 3)
        if not told:
            return {"node": self.home.path.name, "silent": silent}
        waiting = told["waiting"]
        return {
            "node": told["name"],
            "silent": silent,
            **{key: told[key] for key in ("seconds", "step", "steps", "loss", "accuracy", "phase", "phase_seconds")},
            "steps_per_second": self._rate(),
            "waits_for": [] if waiting is None else waiting["missing"],
            "late": told["late"],
            "banned": told["banned"],
            "evidence": told["evidence"],
            "peak_rss_mib": told["peak_rss_mib"],
        }

    def _rate(self) -> float | None:
        """Steps a second over the last looks, by the node's own clock."""
        if not self._trail or self._trail[-1][0] == self._trail[0][0]:
            return None
        (began, first), (ended, last) = self._trail[0], self._trail[-1]
        return round((last - first) / (ended - began), 3)


def pictures(homes: Sequence[Home], every_s: float = EVERY_S) -> Iterator[list[dict[str, Any]]]:
    """The rows of all nodes, again and again, so many seconds apart; the first when all have had time to answer."""
    nodes = [Watched(home, lambda home: ask(home, "/status", _PATIENCE_S)) for home in homes]
    threads = ThreadPoolExecutor(len(nodes), thread_name_prefix="top")
    try:
        for node in nodes:
            node.look(threads, time.monotonic())
        while True:
            time.sleep(every_s)
            now = time.monotonic()
            for node in nodes:
                node.look(threads, now)
            yield [node.row(now) for node in nodes]
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def show(homes: Sequence[Home], console: Console, every_s: float, *, once: bool, as_json: bool) -> None:
    """Show pictures until Ctrl-C: on a terminal in place, for machines as JSON, a line each; or one, and no more.

    Raises:
        P2PNodeError: if one is wanted, and no node answers.
    """
    looks = pictures(homes, every_s)
    if once or not (as_json or console.is_terminal):
        next(looks)  # of one look no steps a second can be told
        rows = next(looks)
        if all(row["silent"] is None for row in rows):
            raise P2PNodeError("no node answers; start one with `p2pnode run HOME`")
        _print(rows, console, as_json=as_json)
        return
    try:
        if as_json:
            for rows in looks:
                _print(rows, console, as_json=True)
        else:
            with Live(console=console, auto_refresh=False) as live:
                for rows in looks:
                    live.update(table(rows), refresh=True)
    except KeyboardInterrupt:
        return


def _print(rows: list[dict[str, Any]], console: Console, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"at": round(time.time(), 3), "nodes": rows}), flush=True)
    else:
        console.print(table(rows))


def table(rows: list[dict[str, Any]]) -> Table:
    """The picture for people."""
    drawn = Table()
    for name in _COLUMNS:
        drawn.add_column(name, justify="right" if name in _NUMBERS else "left")
    for row in rows:
        if "step" not in row:
            drawn.add_row(row["node"], *[""] * 4, Text("no answer yet", "dim"))
            continue
        silent = row["silent"] > 2 * _PATIENCE_S
        does = f"no answer for {row['silent']:.0f} s" if silent else f"{row['phase']} {row['phase_seconds']:.1f} s"
        drawn.add_row(
            row["node"],
            f"{row['step']} / {row['steps']}",
            _number(row["steps_per_second"], ".1f"),
            _number(row["loss"], ".4f"),
            _number(row["accuracy"], ".4f"),
            Text(does, "bold red" if silent else ""),
            _few(f"{one['peer']}: no {one['lacks']}" for one in row["waits_for"]),
            Text(_few(f"{one['peer']} {one['seconds']:.1f} s" for one in row["late"]), "yellow"),
            _few(row["banned"]),
            _few(row["evidence"]),
            f"{row['peak_rss_mib']:.0f}",
        )
    return drawn


def _few(words: "Sequence[str] | Iterator[str]") -> str:
    """The first of them, a line each, and how many more."""
    all_of_them = list(words)
    more = len(all_of_them) - _NAMES_MAX
    return "\n".join(all_of_them[:_NAMES_MAX] + ([f"+{more}"] if more > 0 else []))


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"
