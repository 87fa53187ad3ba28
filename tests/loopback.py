"""Small real networks on loopback: homes that run at once; and waiting for something without guessing how long."""

import asyncio
import time
from pathlib import Path

from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.init import Place, found
from p2pnode.testnet import free_ports

PATIENCE_S = 30.0
"""For what takes milliseconds on an idle machine; only a failing test waits so long."""

SETTINGS = {"device": "cpu", "threads": 1, "reconnect_s": 0.2, "linger_s": 10.0}
"""Of nodes, unless told otherwise: deadlines are short, and where there is a GPU it stands by, for only on a CPU are
the vectors that tests compare equal to the last bit."""


def found_network(
    folder: Path,
    nodes: int,
    f: int = 0,
    *,
    steps: int = 6,
    recipe: dict | None = None,
    vectors: str = "tls",
    **settings,
) -> tuple[Genesis, list[Home]]:
    """The homes of a network of `nodes` on free ports, that learns digits and keeps its deadlines short."""
    settings = {**SETTINGS, **settings}
    places = [Place(f"node{i}", f"127.0.0.1:{port}", settings) for i, port in enumerate(free_ports(nodes))]
    values = {
        "f": f,
        "recipe": recipe or {},
        "vectors": vectors,
        "training": {"task": "digits", "steps": steps, "local_batch": 16, "momentum": 0.9, "lr": 0.5},
    }
    genesis = found(folder, places, values)
    return genesis, [Home(folder / place.name) for place in places]


async def until(true, what: str = "", seconds: float = PATIENCE_S) -> None:
    """Wait until `true()`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.01)


class LogBook:
    """A log that keeps (event, details) in order."""

    def __init__(self):
        self.said = []

    def _write(self, event, **details):
        self.said.append((event, details))

    debug = info = warning = error = exception = _write

    def of(self, event):
        return [details for said, details in self.said if said == event]
