"""One node as a process: its home locked, its log open, its signals heard, its exit code true.

SIGTERM and SIGINT stop the node in good order, from before it is made to its end: it finishes what it is doing, keeps
the model of its last step, and exits with 0. Another SIGTERM changes nothing, since supervisors repeat it. A SIGINT
after that, the second Ctrl-C, ends the process at once, as a crash would: nothing that was signed is lost by it.
"""

import asyncio
import gc
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

import uvloop

from p2pnode.config import NodeConfig
from p2pnode.driver import Driver, Prepare, Tamper
from p2pnode.errors import ConfigError, P2PNodeError
from p2pnode.home import Home
from p2pnode.identity import Ask, unasked
from p2pnode.learning.own import built_own
from p2pnode.observe.levels import Console, Level
from p2pnode.observe.log import Log, open_log
from p2pnode.observe.tensorboard import Scalars

EXIT_GOOD, EXIT_FAILED, EXIT_SETTINGS = 0, 1, 2

_WRITE_EVERY_S = 1.0
"""How often a point is written for TensorBoard, if there is a new step."""

_STOPS = (signal.SIGTERM, signal.SIGINT)


def run_node(
    home: Home,
    attacks: Sequence[str] = (),
    liars: Collection[str] = (),
    console: Console = "none",
    ask: Ask = unasked,
    source: str | None = None,
    shown: Level = "info",
    tensorboard: Path | None = None,
) -> int:
    """Run the node of a home until it is done, or told to stop by SIGTERM or SIGINT; its exit code.

    Args:
        home: the node's files.
        attacks: makes a Byzantine peer of it, for tests; none leaves it honest.
        liars: names of the members that lie with it.
        console: how to show on the terminal what happens.
        ask: gives the passphrase, if the key is sealed.
        source: where its owner says the task's code is; None leaves it to `node.toml`.
        shown: the least level of what is shown.
        tensorboard: folder to write what is learned to, for TensorBoard; None for nowhere.

    Raises:
        ConfigError: if something in the home is wrong; nothing was started.
        DiskError: if its disk is full from the start.
    """
    config = NodeConfig.load(home.config)
    with home.occupied(), told_to_stop() as told:
        driver: Driver | None = None
        log = open_log(
            home.log, config.name, console, shown, lambda: driver.whereabouts() if driver is not None else {}
        )
        try:
            task = None if source is None else built_own(source, Path(config.data_dir) if config.data_dir else None)
            driver = Driver(home, log, *_lies(home, attacks, liars, log, ask), ask, task)
        except ConfigError as error:
            log.error("refused", reason=str(error))  # noqa: TRY400  told to the user without a traceback
            raise
        except P2PNodeError as error:
            log.error("halted", reason=str(error))  # noqa: TRY400
            return EXIT_FAILED
        gc.freeze()  # torch's hundred thousands of objects stay: to look through them takes time of steps
        return uvloop.run(_run(driver, log, told, tensorboard))


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """Remember a signal to stop that comes before the loop runs, and hears it; whether there was one."""
    heard: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        heard.append(number)

    before = {number: signal.signal(number, hear) for number in _STOPS}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _run(driver: Driver, log: Log, told: Callable[[], bool], tensorboard: Path | None) -> int:
    stop = stop_by_signal(driver)
    if told():
        stop()
    writing = asyncio.create_task(_write(driver, log, tensorboard)) if tensorboard is not None else None
    try:
        await driver.run()
        if writing is not None:
            writing.cancel()
            await writing
    except P2PNodeError as error:
        log.error("failed", reason=str(error))  # noqa: TRY400
        return EXIT_FAILED
    except Exception as error:
        log.exception("failed", reason=repr(error), exc_info=True)
        return EXIT_FAILED
    return EXIT_GOOD


def stop_by_signal(driver: Driver) -> Callable[[], None]:
    """Have SIGTERM and SIGINT stop the driver of the running loop in good order; what they do then."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        driver.stop()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    for number in _STOPS:
        loop.add_signal_handler(number, stop)
    return stop


async def _write(driver: Driver, log: Log, folder: Path) -> None:
    """Write now and then what the node learns, and once more when this is cancelled. A full disk ends the writing, and
    not the node."""
    try:
        with closing(Scalars(folder, driver.config.name)) as scalars:
            with suppress(asyncio.CancelledError):
                while True:
                    scalars.note(driver.status())
                    await asyncio.sleep(_WRITE_EVERY_S)
            scalars.note(driver.status())
    except P2PNodeError as error:
        log.warning("nothing more for TensorBoard", reason=str(error))


def _lies(
    home: Home, attacks: Sequence[str], liars: Collection[str], log: Log, ask: Ask = unasked
) -> tuple[Tamper | None, Prepare | None]:
    """What makes a liar of the node, and of what it trains on."""
    if not attacks:
        return None, None
    from p2pnode.byzantine.behaviour import liar
    from p2pnode.byzantine.labels import poisoned

    log.warning("this node is Byzantine", attacks=",".join(attacks))
    return liar(home, attacks, liars, ask), partial(poisoned, attacks=attacks)
