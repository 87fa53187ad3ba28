"""Trials on real networks, one after another: processes, sockets and signatures in the place of the simulator."""

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.numpy import load_file

from p2pnode.errors import ConfigError
from p2pnode.experiment.engine import Event, Perform, local
from p2pnode.simulation.checks import diameter
from p2pnode.simulation.trial import Outcome, Trial
from p2pnode.testnet import NodeView, Plan, Testnet

STALL_S = 120.0
"""A network of which no honest node takes a step for so long has failed."""


def on_testnets(trials: Sequence[Trial], perform: Perform, workers: int = 0) -> Generator[Event, None, None]:
    """Run each trial as a testnet, one at a time, whatever simulates them; see `p2pnode.experiment.engine.Engine`."""
    return local(trials, on_testnet, 1)


def on_testnet(trial: Trial, progress: Callable[[int, int], None] | None = None) -> Outcome:
    """Run a trial on a testnet, in the place of `p2pnode.simulation.trial.perform`.

    What is learned depends on which messages come first, so it is not a function of the trial. The schedule, the device
    and the curve of a trial are the simulator's; real nodes are measured at the end.

    Raises:
        ConfigError: for a choice that is none, or that no theorem covers.
        TestnetFailed: if honest nodes failed or stalled.
    """
    if trial.beyond_the_bound and trial.f:
        raise ConfigError(
            "beyond_the_bound = true: real nodes run only what a theorem covers. Remedy: leave it out, or choose f = 0 "
            "to see a network without a defence"
        )
    began = time.monotonic()
    with TemporaryDirectory(prefix="p2pnode-") as folder:
        net = Path(folder) / "net"
        summary = asyncio.run(_run(_plan(trial, net), progress))
        models = [load_file(net / node["name"] / "checkpoint.safetensors")["model"] for node in summary["honest"]]
    return Outcome(
        {node["name"]: node["accuracy"] for node in summary["honest"]},
        summary["accuracy_mean"],
        summary["accuracy_min"],
        diameter(models),
        [],
        round(time.monotonic() - began, 3),
        0,
        None,
    )


async def _run(plan: Plan, progress: Callable[[int, int], None] | None) -> dict[str, Any]:
    steps = plan.values["training"]["steps"]

    def watch(nodes: list[NodeView]) -> None:
        if progress is not None:
            progress(min(node.step for node in nodes if node.honest), steps)

    return await Testnet(plan, time.time(), watch).run()


def _plan(trial: Trial, out: Path) -> Plan:
    recipe = {"name": trial.recipe, "broadcast": trial.broadcast, "rule": trial.rule, "sub_rounds": trial.sub_rounds}
    values = {
        "seed": trial.seed,
        "f": trial.f,
        "recipe": recipe | dict(trial.options),
        "training": trial.training().model_dump(),
    }
    liars = trial.byzantine if trial.attack else 0
    data_dir = None if trial.data_dir is None else str(trial.data_dir.resolve())
    return Plan(out, values, trial.nodes, liars, trial.attack, data_dir, STALL_S)
