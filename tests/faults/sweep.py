"""Every way in which a crash, a full disk or damage can meet a node's life, one after another; each counts its cases.

Cases that cannot be told apart, by the files that are left and by what the world saw, are tried once.
"""

import errno
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from p2pnode.errors import DiskError, JournalError
from p2pnode.home import Home
from tests.faults.disk import Disk, Files
from tests.faults.life import Broken, Ledger, Life, Moment, World


class Cases:
    """Which cases were tried."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def new(self, files: Files, ledger: Ledger) -> bool:
        # The library writes what is in a safetensors file in no certain order.
        content = ((name, sorted(data) if data and ".safetensors" in name else data) for name, data in files.items())
        case = repr((sorted(content), ledger.key()))
        fresh = case not in self._seen
        self._seen.add(case)
        return fresh


def operations(world: World) -> list[str]:
    """What a life does to the disk, in order, and its end."""
    return [moment.operation for moment in _a_life(world)]


def power_cuts(world: World, kinds: Collection[str] = ("lost", "kept", "torn", "zeros")) -> Counter[str]:
    """Before each operation the power fails; each image that the disk may hold is gone on from."""
    cases, tried = Cases(), Counter[str]()
    for moment in _a_life(world):
        for kind, files in moment.disk.images():
            if kind in kinds and cases.new(files, moment.ledger):
                tried[kind] += 1
                world.restart(files, moment.ledger)
    return tried


def kills(world: World) -> int:
    """Before each operation the process is killed, and goes on with what it reads; before each operation of that life
    the power fails, and all is lost that is not durable."""
    cases = Cases()
    for moment in _a_life(world):
        ledger = moment.ledger.copy()
        for later in world.moments(moment.disk.fork().resume(), ledger, Life.check, Life.run):
            _, files = next(later.disk.images())
            if cases.new(files, later.ledger):
                world.restart(files, later.ledger)
    return len(cases)


def interrupted_recoveries(world: World) -> int:
    """The power fails, with a write torn in the middle, and fails again before each operation of what follows."""
    cases = Cases()
    for moment in _a_life(world):
        torn = [files for kind, files in moment.disk.images() if kind in ("torn", "zeros")]
        for files in torn[len(torn) // 2 :: max(1, len(torn))]:
            for later in world.moments(Disk(world.root, files), moment.ledger.copy(), Life.check):
                for _, left in later.disk.images():
                    if cases.new(left, later.ledger):
                        world.restart(left, later.ledger)
    return len(cases)


def refusals(world: World) -> int:
    """Each operation fails once, as on a full disk: the node halts and says why; if it does not halt, nothing that it
    says then is contradicted, whatever a power cut leaves."""
    cases, number = Cases(), 0
    while True:
        disk, ledger = world.founded(), Ledger()
        disk.before = _failing_at(number)
        try:
            world.live(disk, ledger, Life.persist)
        except DiskError as error:
            if str(world.root) not in str(error) or "Remedy: make room" not in str(error):
                raise Broken(f"it does not say what to do: {error}") from error
        else:
            return len(cases)
        for kind, files in disk.images():
            if kind in ("lost", "kept") and cases.new(files, ledger):
                world.restart(files, ledger)
        number += 1


def damages(world: World) -> Counter[str]:
    """Bytes of each file are damaged, of the journal all, or it is emptied or lost: amid a life, and at its end."""
    tried = Counter[str]()
    journal = Home(world.root).journal.name
    life = _a_life(world)
    for moment in (life[len(life) // 2], life[-1]):
        for name, files in _damaged(moment.disk):
            tried["journal" if name == journal else "checkpoint" if "/" not in name else "outbox"] += 1
            try:
                world.live(Disk(world.root, files), moment.ledger.copy(), Life.contradict)
            except JournalError as error:
                if name != journal or journal not in str(error) or "Remedy: give it a new key" not in str(error):
                    raise Broken(f"it refuses for the wrong reason: {error}") from error
            else:
                if name == journal:
                    raise Broken("it signs on, whatever it signed")
    return tried


def _a_life(world: World) -> list[Moment]:
    return world.moments(world.founded(), Ledger(), Life.check, Life.run)


def _damaged(disk: Disk) -> Iterator[tuple[str, Files]]:
    """The files that are durable, with one of them damaged."""
    _, files = next(disk.images())
    for name, content in files.items():
        if content is None or name.endswith(".new"):
            continue
        for place in range(0, len(content), 8 if name.endswith(".safetensors") else 1):
            flipped = bytes([content[place] ^ 1 << place % 8])
            yield name, files | {name: content[:place] + flipped + content[place + 1 :]}
        yield name, files | {name: b""}
        yield name, {other: data for other, data in files.items() if other != name}


def _failing_at(number: int) -> Callable[[str], None]:
    count = itertools.count()

    def before(operation: str) -> None:
        if next(count) == number:
            raise OSError(errno.ENOSPC, "No space left on device")

    return before
