"""How long this machine takes for each piece of a step: real gradients, rules, keys, TLS and files, in a few seconds.

What is measured is seconds of a core, under the load that there will be: as many processes keep the cores busy
meanwhile as there will be other nodes here. So it also shows how much of the cores the nodes will get, on a machine
that does other work.
"""

import asyncio
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TypeAlias, cast

import numpy as np
import torch
import uvloop

from p2pnode.config import NodeConfig
from p2pnode.forecast import Calibration, Mixing
from p2pnode.genesis import Training
from p2pnode.home import Home
from p2pnode.identity import Identity, KeyRing
from p2pnode.init import Place, found
from p2pnode.learning.local import mix_gathered, trainer_of
from p2pnode.learning.task import Task
from p2pnode.net.tls import client_context, server_context
from p2pnode.recipe import Recipe
from p2pnode.storage.journal import Journal
from p2pnode.storage.vectors import digest_of, is_finite
from protocols.header import PeerId

ROUNDS = 4
"""In which all pieces are measured, one after another. The mean counts, as in a run: a core shared with other machines
may for a second be half as fast again as in the next."""

REPEATS = 2
"""Of each piece in a round, after one that loads and compiles."""

BRIEF_S = 0.02
"""Pieces that are shorter are repeated until so much is over: a clock of a processor ticks in microseconds."""

STREAM_BYTES = 16 * 2**20
"""That cross the bare connection: enough for its windows to open."""

STREAM_CHUNK_BYTES = 2**18
WORDS = 300
FLUSHES = 20
WORD = bytes(150)
"""As long as a signed header."""

EVALUATED: int = NodeConfig.model_fields["evaluate_samples"].default
"""Test samples of an evaluation on the way."""

_SPIN = """
import sys, time
while True:
    for _ in range(500000): pass
    sys.stdout.write(f"{time.process_time()}\\n")
    sys.stdout.flush()
"""


Piece: TypeAlias = str | Mixing
"""What is measured: a name in `Calibration`, or a mixture."""

_Contexts: TypeAlias = tuple[ssl.SSLContext, ssl.SSLContext]
"""The server's, and the client's."""


@dataclass(slots=True)
class Crowd:
    """What the busy processes got of the cores, once they are ended."""

    cores: float = 0.0


def calibrate(
    task: Task, training: Training, recipe: Recipe, nodes: int, f: int, mixings: set[Mixing], *, here: bool, tls: bool
) -> Calibration:
    """Measure the pieces of a step on this machine's processor.

    Args:
        task, training, recipe: what one node computes.
        nodes: n.
        f: of the rules.
        mixings: what is mixed; the mean is told no liar.
        here: whether all nodes will run on this machine, or each on one of its own.
        tls: whether vectors travel under TLS.

    Raises:
        ConfigError: if the batch is larger than a node's part of the data.
    """
    cores = os.cpu_count() or 1
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, cores // nodes) if here else threads)
    try:
        with TemporaryDirectory(dir=Path.cwd()) as at:  # on the disk that the homes will be on
            folder, computed = Path(at), _computed(task, training, recipe, nodes, f, mixings)
            contexts = _contexts(folder)
            with _crowded(nodes - 1 if here else 0) as crowd:
                rounds = [_measured(computed) | uvloop.run(_traffic(folder, contexts, tls)) for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    got = min(float(cores), crowd.cores) if here and nodes > 1 else 1.0
    took = {piece: fmean(one[piece] for one in rounds) for piece in rounds[0]}
    mixing = {mixed: took.pop(mixed) for mixed in mixings}
    took["hashing"] /= 4 * task.dimension
    return Calibration(mixing=mixing, cores=got, **cast(dict[str, float], took))


def _computed(
    task: Task, training: Training, recipe: Recipe, nodes: int, f: int, mixings: set[Mixing]
) -> dict[Piece, Callable[[], object]]:
    """What the processor does: pieces of the names that `Calibration` has for them, and mixtures."""
    trainer = trainer_of(training, recipe, task, task.part(0, nodes, 0, training.alpha), 0, 0, "cpu")
    vector = np.random.default_rng(0).standard_normal(task.dimension, np.float32)
    identity = Identity.generate()
    keys, signature = KeyRing([identity.public_key]), identity.sign(WORD)
    return {mixed: _mixing(mixed, task.dimension, f) for mixed in mixings} | {
        "gradient": lambda: trainer.step(training.steps - 1),
        "evaluation": lambda: trainer.evaluate(EVALUATED),
        "hashing": lambda: digest_of(vector) and is_finite(vector),
        "signing": lambda: identity.sign(WORD),
        "checking": lambda: keys(PeerId(0), WORD, signature),
    }


def _measured(computed: Mapping[Piece, Callable[[], object]]) -> dict[Piece, float]:
    return {piece: _cpu(work) for piece, work in computed.items()}


@contextmanager
def _crowded(others: int) -> Iterator[Crowd]:
    """Keep the cores as busy inside as so many other nodes would."""
    crowd = Crowd()
    command = [sys.executable, "-S", "-c", _SPIN]
    # A group of its own: Ctrl-C is for this process, which ends them.
    spinning = [subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) for _ in range(others)]
    try:
        first = [_spent(process) for process in spinning]
        began = time.monotonic()
        yield crowd
        for process in spinning:
            process.kill()
        took = time.monotonic() - began
        last = [_last(process, before) for process, before in zip(spinning, first, strict=True)]
        spent = sum(last) - sum(first)
        # One of so many would have got as much as each of them.
        crowd.cores = spent / took * (others + 1) / others if others else 1.0
    finally:
        for process in spinning:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _spent(process: "subprocess.Popen[bytes]") -> float:
    assert process.stdout is not None
    return float(process.stdout.readline())


def _last(process: "subprocess.Popen[bytes]", before: float) -> float:
    """What an ended process said last, if the end of it is a whole line."""
    assert process.stdout is not None
    lines = process.stdout.read().split(b"\n")
    return float(lines[-2]) if len(lines) > 1 else before


def _cpu(work: Callable[[], object]) -> float:
    """Seconds of a core, of all threads, that a call takes."""
    work()
    calls, began = 0, time.process_time()
    while calls < REPEATS or time.process_time() - began < BRIEF_S:
        work()
        calls += 1
    return (time.process_time() - began) / calls


def _mixing(mixed: Mixing, length: int, f: int) -> Callable[[], object]:
    rule, count = mixed
    draws = np.random.default_rng(0)
    rows = [draws.standard_normal(length, np.float32) for _ in range(count)]
    model = torch.zeros(length)

    def mix() -> None:
        mixture, _ = mix_gathered(rule, rows, 0 if rule == "mean" else f, 0, model, lambda _: None)
        model.copy_(torch.as_tensor(mixture))

    return mix


class _End(asyncio.Protocol):
    """One end of a bare connection: answers each word, or only counts."""

    def __init__(self) -> None:
        self.here = asyncio.Event()
        self.count = 0
        self.goal = 0
        self.answers = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio's

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        if self.answers:
            assert self.transport is not None
            self.transport.write(data)
        if self.count >= self.goal:
            self.here.set()

    def expect(self, nbytes: int) -> Awaitable[bool]:
        """Come back when so many more bytes are here."""
        self.count, self.goal = 0, nbytes
        self.here.clear()
        return self.here.wait()


async def _traffic(folder: Path, contexts: _Contexts, tls: bool) -> dict[Piece, float]:
    """Seconds of a core of a byte, a word and a flush; and of a flush by the clock."""
    far, near, server = await _connected(contexts)
    word = await _words(far, near)
    if not tls:  # words are always under TLS
        server.close()
        far, near, server = await _connected(None)
    carrying = await _stream(far, near)
    for end in (far, near):
        assert end.transport is not None
        end.transport.close()
    server.close()
    with TemporaryDirectory(dir=folder) as at:
        flushing, flush_wait = await _flushes(Path(at) / "journal")
    return {"carrying": carrying, "word": word, "flushing": flushing, "flush_wait": flush_wait}


async def _connected(contexts: _Contexts | None) -> tuple[_End, _End, asyncio.Server]:
    server_side, client_side = contexts or (None, None)
    loop, far = asyncio.get_running_loop(), _End()
    server = await loop.create_server(lambda: far, "127.0.0.1", 0, ssl=server_side)
    name = None if contexts is None else ""
    _, near = await loop.create_connection(
        _End, *server.sockets[0].getsockname(), ssl=client_side, server_hostname=name
    )
    while far.transport is None:
        await asyncio.sleep(0)
    return far, near, server


def _contexts(folder: Path) -> _Contexts:
    places = [Place(name, f"127.0.0.1:{port}", {}) for port, name in enumerate(("far", "near"), start=1)]
    training = {"task": "digits", "steps": 1, "local_batch": 1, "momentum": 0.0, "lr": 1.0}
    genesis = found(folder / "net", places, {"f": 0, "recipe": {"name": "dsgd"}, "training": training})
    far, near = (Home(folder / "net" / place.name) for place in places)
    return server_context(far, genesis), client_context(near, genesis)


async def _words(far: _End, near: _End) -> float:
    far.answers = True
    assert near.transport is not None
    began = time.process_time()
    for _ in range(WORDS):
        answered = near.expect(len(WORD))
        near.transport.write(WORD)
        await answered
    far.answers = False
    return (time.process_time() - began) / (2 * WORDS)


async def _stream(far: _End, near: _End) -> float:
    data = memoryview(np.random.default_rng(0).bytes(STREAM_BYTES))  # no byte twice: vectors are in no cache either
    assert near.transport is not None
    began = time.process_time()
    for begin in range(0, STREAM_BYTES, STREAM_CHUNK_BYTES):
        taken = far.expect(STREAM_CHUNK_BYTES)
        near.transport.write(data[begin : begin + STREAM_CHUNK_BYTES])
        await taken
    return (time.process_time() - began) / STREAM_BYTES


async def _flushes(path: Path) -> tuple[float, float]:
    Journal.make(path)
    journal, loop = Journal(path), asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as clerk:
        processor, clock = time.process_time(), time.monotonic()
        for _ in range(FLUSHES):
            journal.append(WORD)
            if journal.quick:  # as the driver does
                journal.flush()
            else:
                await loop.run_in_executor(clerk, journal.flush)
        spent = time.process_time() - processor, time.monotonic() - clock
    journal.close()
    return spent[0] / FLUSHES, spent[1] / FLUSHES
