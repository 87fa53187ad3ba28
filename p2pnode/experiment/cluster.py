"""Trials as tasks of a Ray cluster: the one at RAY_ADDRESS, else one of this machine's cores, for as long as they run.

Every machine of the cluster needs the same p2pnode, and the data where the experiment says.
"""

import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from p2pnode.errors import ConfigError
from p2pnode.experiment.engine import Began, Ended, Event, Perform, Stepped, attempt
from p2pnode.simulation.trial import Trial

if TYPE_CHECKING:
    from ray.util.queue import Queue

_POLL_S = 0.2


def on_ray(trials: Sequence[Trial], perform: Perform, workers: int = 0) -> Generator[Event, None, None]:
    """Run each trial as a Ray task of one core; see `p2pnode.experiment.engine.Engine`.

    Args:
        trials: what to run.
        perform: what runs one.
        workers: cores of the cluster that is started; 0: all. A cluster that runs already has its own.

    Raises:
        ConfigError: if Ray is not installed, or does not start.
    """
    ray = _started(workers)
    from ray.util.queue import Queue

    try:
        reports = Queue(actor_options={"num_cpus": 0})
        task = ray.remote(num_cpus=1, max_retries=0)(_perform)
        shared = ray.put(perform)
        running = {task.remote(index, trial, shared, reports): index for index, trial in enumerate(trials)}
        while running:
            done, _ = ray.wait(list(running), timeout=_POLL_S)
            yield from _reported(reports, set(running.values()))
            for reference in done:
                yield _result(ray, reference, running.pop(reference))
    finally:
        ray.shutdown()


def _started(workers: int) -> Any:  # noqa: ANN401  a library that may be missing
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "engine = 'ray': Ray is not installed. Remedy: install p2pnode[ray], or choose --engine local"
        ) from error
    cores = None if "RAY_ADDRESS" in os.environ else workers or os.cpu_count()
    try:
        ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray has no class of its own for what may go wrong here
        raise ConfigError(
            f"engine = 'ray': Ray does not start: {error}. Remedy: set RAY_ADDRESS to a cluster that runs, or unset it"
        ) from error
    return ray


def _perform(index: int, trial: Trial, perform: Perform, reports: "Queue") -> Ended:
    """The task."""
    reports.put(Began(index))
    return attempt(index, trial, perform, reports.put)


def _reported(reports: "Queue", running: set[int]) -> list[Event]:
    """What the running trials have reported since."""
    events: list[Event] = reports.get_nowait_batch(reports.qsize())
    return [event for event in events if isinstance(event, Began | Stepped) and event.index in running]


def _result(ray: Any, reference: object, index: int) -> Ended:  # noqa: ANN401  as above
    try:
        ended: Ended = ray.get(reference)
    except Exception as error:  # a task that died raises any of Ray's
        return Ended(index, None, f"the worker died ({type(error).__name__}: {error})", died=True)
    return ended
