"""Trials run side by side: in processes of this machine, or as tasks of a Ray cluster.

An engine is a function of the trials that yields what happens to them, in order of time. When it is closed, because of
Ctrl-C or an error, all that it runs is ended. One failed trial, or a worker that is killed, costs that trial only.
"""

import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread

import torch

from p2pnode.errors import P2PNodeError
from p2pnode.experiment.grid import Experiment, key_of
from p2pnode.experiment.store import Record, Store
from p2pnode.simulation.trial import Outcome, Trial, perform

_REPORT_EVERY_S = 0.2

Perform = Callable[[Trial, Callable[[int, int], None] | None], Outcome]
"""(trial, told of (step, steps)) → outcome; a function of a module, for it is called in other processes."""


@dataclass(frozen=True, slots=True)
class Began:
    """A trial, by its index, has a worker."""

    index: int


@dataclass(frozen=True, slots=True)
class Stepped:
    """A trial has taken so many of its steps."""

    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial is over: with an outcome, or with an error whose first line is the cause; and its worker, if it died."""

    index: int
    outcome: Outcome | None
    error: str | None
    died: bool = False


Event = Began | Stepped | Ended
Engine = Callable[[Sequence[Trial], Perform, int], Generator[Event, None, None]]
"""(trials, how to perform one, workers; 0: as many as there are cores) → events."""


def conduct(
    experiment: Experiment,
    store: Store,
    engine: Engine,
    watch: Callable[[Sequence[Trial], Event], None],
    workers: int = 0,
    perform: Perform = perform,
) -> None:
    """Run all trials that have no outcome in the store yet, and keep what comes out; failed ones are tried again.

    Args:
        experiment: which trials.
        store: what is known, and where to.
        engine: how they are run.
        watch: told of the trials that are run, and of each event, after it was kept.
        workers: how many at a time; 0: as many as there are cores.
        perform: what runs one.
    """
    done = {key for key, record in store.records.items() if record.outcome is not None}
    trials = [trial for trial in experiment.trials if key_of(trial) not in done]
    with closing(engine(trials, perform, workers)) as events:
        for event in events:
            if isinstance(event, Ended):
                store.append(Record.of(trials[event.index], event.outcome, event.error))
            watch(trials, event)


# Processes of this machine.


@dataclass(slots=True)
class _Worker:
    """A process and the trial that it is at."""

    process: SpawnProcess
    index: int


def local(trials: Sequence[Trial], perform: Perform, workers: int = 0) -> Generator[Event, None, None]:
    """Run the trials in processes of this machine, each with one thread; see `Engine`."""
    waiting = deque(range(len(trials)))
    crew: dict[Connection, _Worker] = {}
    try:
        while waiting or crew:
            while waiting and len(crew) < (workers or os.cpu_count() or 1):
                pipe, worker = _hire(waiting.popleft(), trials, perform)
                crew[pipe] = worker
                yield Began(worker.index)
            ready = wait(list(crew))
            for pipe in [pipe for pipe in crew if pipe in ready]:
                worker = crew[pipe]
                event = _receive(pipe, worker)
                if isinstance(event, Ended) and (event.died or not waiting):
                    _dismiss(pipe, crew.pop(pipe))
                yield event
                if isinstance(event, Ended) and pipe in crew:
                    worker.index = waiting.popleft()
                    _send(pipe, (worker.index, trials[worker.index]))
                    yield Began(worker.index)
    finally:
        for pipe, worker in crew.items():
            _dismiss(pipe, worker)


def _hire(index: int, trials: Sequence[Trial], perform: Perform) -> tuple[Connection, _Worker]:
    """Start a worker on a trial."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # so that the worker's death ends the pipe
    _send(ours, perform)
    _send(ours, (index, trials[index]))
    return ours, _Worker(process, index)


def _send(pipe: Connection, message: object) -> None:
    """Send to a worker; if it is dead, receiving from it will tell."""
    with suppress(OSError):
        pipe.send(message)


def _receive(pipe: Connection, worker: _Worker) -> Event:
    try:
        event: Event = pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Ended(worker.index, None, f"the worker died ({how})", died=True)
    return event


def _dismiss(pipe: Connection, worker: _Worker) -> None:
    worker.process.kill()  # it holds nothing that must be put in order
    worker.process.join()
    pipe.close()


def _work(pipe: Connection) -> None:
    """What a worker does: perform what it is sent, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        perform: Perform = pipe.recv()
        while True:
            index, trial = pipe.recv()
            pipe.send(attempt(index, trial, perform, pipe.send))
    except (EOFError, OSError):
        return  # nobody waits for it


def _end_with_parent() -> None:
    """Whoever started this process may be killed, too; then nobody would end it, in the middle of a trial."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


# What all engines' workers do.


def attempt(index: int, trial: Trial, perform: Perform, report: Callable[[Stepped], None]) -> Ended:
    """Perform a trial in this process, reporting its steps now and then; what it raises is the error it ended with.

    It has one thread, so that sums come out the same however many trials run side by side.
    """
    torch.set_num_threads(1)
    said = 0.0

    def progress(step: int, steps: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _REPORT_EVERY_S:
            said = time.monotonic()
            report(Stepped(index, step, steps))

    try:
        return Ended(index, perform(trial, progress), None)
    except P2PNodeError as error:
        return Ended(index, None, str(error))
    except Exception as error:  # whatever it is, the other trials go on
        return Ended(index, None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
