"""One's own model in a network, from one's own code: what `p2pnode.fit` is.

Nothing of the model, the data or the loss is changed; the network is the home's. The model begins with the weights that
the genesis names, whatever it was made with, and holds in the end what was agreed on.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import uvloop
from torch import nn
from torch.utils.data import DataLoader

from p2pnode.config import NodeConfig
from p2pnode.driver import Driver, OnStep, Result
from p2pnode.errors import ConfigError
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.learning.flat import released
from p2pnode.learning.own import Measure, assembled
from p2pnode.observe.levels import Console
from p2pnode.observe.log import open_log
from p2pnode.passphrase import asking
from p2pnode.process import stop_by_signal, told_to_stop


@dataclass(frozen=True, eq=False)
class Fitted:
    """What came of a fit.

    Args:
        model: the module that was given, with the weights that were agreed on, on the device it came from.
        finished: whether the last step was taken; else it was stopped before, and the same call goes on.
        accuracy, loss: of the final model, on the whole test data; None if not finished, or no finite number.
        evidence: files that prove who lied, for `p2pnode verify-evidence`.
        result: what is in `result.json`; None if not finished.
    """

    model: nn.Module
    finished: bool
    accuracy: float | None
    loss: float | None
    evidence: tuple[Path, ...]
    result: Result | None


def fit(
    model: nn.Module,
    data: object,
    loss: Measure,
    home: str | Path,
    *,
    test: object = None,
    metric: Measure | None = None,
    shared: bool = False,
    on_step: OnStep | None = None,
    console: Console = "none",
) -> Fitted:
    """Train a model with the peers of a home until the last step is taken and no peer needs this node.

    SIGINT (Ctrl-C) and SIGTERM stop it in good order: it ends what it is doing, keeps the model of its last step, and
    returns.

    Args:
        model: any module; see the guide for what is exchanged of it.
        data: the node's own training data: a `DataLoader`, a data set with a length, or a pair of tensors.
        loss: (outputs, labels) → the mean loss over the batch, a scalar to differentiate.
        home: the node's folder, as `p2pnode init` or `keygen` made it.
        test: test data, in the same way; None: it is measured on its training data.
        metric: (outputs, labels) → the mean quality over the batch; None: the fraction of labels that are guessed.
        shared: whether every node was given these same data, and is to have a part of them each.
        on_step: is told of every step, in a thread of its own; what it raises ends the fit.
        console: what to show on the terminal: "none", "people" or "json".

    Raises:
        ConfigError: if something in the home is wrong, or the model is another than the genesis'.
        P2PNodeError: if the node failed; as whatever the model, the loss or `on_step` raised.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise ConfigError("fit: an event loop runs in this thread already. Remedy: await p2pnode.fit_async(…) in it")
    in_main = threading.current_thread() is threading.main_thread()  # no other thread hears signals
    with told_to_stop() if in_main else nullcontext() as told:
        return uvloop.run(_fit(model, data, loss, Path(home), test, metric, shared, on_step, console, told))


async def fit_async(
    model: nn.Module,
    data: object,
    loss: Measure,
    home: str | Path,
    *,
    test: object = None,
    metric: Measure | None = None,
    shared: bool = False,
    on_step: OnStep | None = None,
    console: Console = "none",
) -> Fitted:
    """Train a model with the peers of a home, in the running event loop; see `fit`.

    Signals are the caller's business: to cancel it stops the node in good order.
    """
    return await _fit(model, data, loss, Path(home), test, metric, shared, on_step, console, None)


async def _fit(
    model: nn.Module,
    data: object,
    loss: Measure,
    folder: Path,
    test: object,
    metric: Measure | None,
    shared: bool,
    on_step: OnStep | None,
    console: Console,
    told: Callable[[], bool] | None,
) -> Fitted:
    """`fit`; signals stop it where `told` says whether there was one already."""
    home = Home(folder)
    name = NodeConfig.load(home.config).name
    genesis = Genesis.load(home.genesis)
    task = assembled(genesis.training.task, lambda: model, data, loss, test=test, metric=metric, shared=shared)
    training, devices = model.training, {parameter.device for parameter in model.parameters()}
    with home.occupied():
        log = open_log(home.log, name, console)
        try:
            driver = Driver(home, log, ask=asking(), task=task, on_step=on_step)
            if isinstance(data, DataLoader) and data.batch_size != genesis.training.local_batch:
                log.warning("batch size", of_the_loader=data.batch_size, of_the_genesis=genesis.training.local_batch)
            if told is not None:
                stop = stop_by_signal(driver)
                if told():
                    stop()
            result = await driver.run()
        finally:
            released(model.to(devices.pop()) if len(devices) == 1 else model)
            model.train(training)
    return Fitted(
        model,
        result is not None,
        None if result is None else result.accuracy,
        None if result is None else result.loss,
        tuple(sorted(home.evidence.glob("*.evidence"))),
        result,
    )
