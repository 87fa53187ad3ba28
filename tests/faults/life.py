"""What a node does with its home from start to crash, and what must hold of all that ever left it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from p2pnode.errors import DiskError, P2PNodeError
from p2pnode.home import Home
from p2pnode.identity import Identity
from p2pnode.storage.checkpoint import OUTBOX_STEPS, Checkpoint, Outbox, Vector, load_checkpoint, save_checkpoint
from p2pnode.storage.signer import DurableSigner
from p2pnode.storage.vectors import digest_of
from protocols.header import FLOAT32, Claim, Header, PeerId, Slot
from tests.faults.disk import Disk, Files, Machine

IDENTITY = Identity.of_seed(b"a node's whole life, many times!")
NETWORK = b"n" * 32
STEPS = 5
LENGTH = 2


class Broken(Exception):
    """A promise was not kept; says which."""


@dataclass
class Ledger:
    """What the world saw of a node, over all its lives.

    Args:
        left: the one statement that left, by place.
        vectors: one's own vectors whose headers left.
        floor: the highest that a life was told is durable.
        put: the last step of which a vector began to be put into the outbox.
        saved: steps of the checkpoints that may be there: the last one that was saved, and those begun after it.
    """

    left: dict[str, Claim] = field(default_factory=dict)
    vectors: dict[Slot, bytes] = field(default_factory=dict)
    floor: int = 0
    put: int = 0
    saved: tuple[int | None, ...] = (None,)

    def copy(self) -> "Ledger":
        return replace(self, left=dict(self.left), vectors=dict(self.vectors))

    def leave(self, claims: list[Claim]) -> None:
        for claim in claims:
            known = self.left.setdefault(claim.place, claim)
            if known.statement != claim.statement:
                raise Broken(f"two statements left for {claim.place}")

    def key(self) -> object:
        return tuple(sorted((p, c.statement) for p, c in self.left.items())), self.floor, self.put, self.saved


@dataclass
class Life:
    """One process of the node, alive.

    Args:
        home: its files.
        ledger: over all lives.
    """

    home: Home
    ledger: Ledger

    def start(self) -> None:
        """As `Driver` does."""
        self.signer = DurableSigner(IDENTITY, self.home.journal)
        self.outbox = Outbox(self.home.outbox, NETWORK)
        self.kept = self.outbox.kept()
        self.checkpoint = load_checkpoint(self.home.checkpoint, NETWORK)

    def run(self) -> None:
        """All steps from the first, whatever was done in them by an earlier life."""
        for step in range(STEPS):
            self._propose(Slot(step))
            self._vouch(step)
            if step:
                self._save(step + 1)
            self._propose(Slot(step, 0, 1))
        self.signer.close()

    def persist(self) -> None:
        """Live, and where the disk refuses, try once more: a node that does not halt must not say too much."""
        try:
            self.run()
        except DiskError:
            for step in range(STEPS + 1):
                with suppress(P2PNodeError):
                    self._vouch(step)
            raise

    def contradict(self) -> None:
        """Try to say something else wherever something was said, and go on where nothing was."""
        self._say([replace(claim, statement=claim.statement + b"!") for claim in self.ledger.left.values()])
        self._vouch(STEPS)
        if f"ready 1 {STEPS} 0 0" not in self.ledger.left:
            raise Broken("it cannot go on")
        self.signer.close()

    def _propose(self, slot: Slot) -> None:
        self.ledger.put = max(self.ledger.put, slot.step)
        vector = self.outbox.get(slot)
        if vector is None:
            vector = self._vector(slot)
            self.outbox.put(slot, vector, digest_of(vector))
        claim = self._header(PeerId(0), slot, vector).proposal()
        if self._say([claim]):
            self.ledger.vectors[slot] = vector.tobytes()

    def _vouch(self, step: int) -> None:
        """A peer's header, echoed, and a word that goes out unsigned."""
        echo = self._header(PeerId(1), Slot(step), self._vector(Slot(step))).echo()
        ready = Claim(step, f"ready 1 {step} 0 0", b"d" * 32)
        self._say([echo], [ready])

    def _say(self, signed: list[Claim], promised: list[Claim] | None = None) -> bool:
        """Handle, make durable, perform: whether anything was said."""
        said = [claim for claim in signed if self.signer.sign(claim) is not None]
        said += [claim for claim in promised or [] if self.signer.promise(claim)]
        if self.signer.dirty:
            self.signer.flush()
        self.ledger.leave(said)
        return bool(said)

    def _save(self, step: int) -> None:
        self.ledger.saved = (*self.ledger.saved, step)
        save_checkpoint(self.home.checkpoint, NETWORK, Checkpoint(step, {"model": self._vector(Slot(step))}))
        self.ledger.saved = (step,)
        self.signer.forget_before(step - 1)
        self.ledger.floor = max(self.ledger.floor, step - 1)

    def _vector(self, slot: Slot) -> Vector:
        return np.full(LENGTH, 10 * slot.step + slot.sub_round, np.float32)

    def _header(self, origin: PeerId, slot: Slot, vector: Vector) -> Header:
        return Header(NETWORK, origin, slot, FLOAT32, LENGTH, digest_of(vector))

    def check(self) -> None:
        """What was promised to be kept is there.

        Raises:
            Broken: if not.
        """
        ledger = self.ledger
        if self.signer.floor < ledger.floor:
            raise Broken(f"the floor fell from {ledger.floor} to {self.signer.floor}")
        for place, claim in ledger.left.items():
            if claim.step >= self.signer.floor and self.signer.promised(place) != claim.statement:
                raise Broken(f"what was said for {place} is forgotten")
        for slot, said in ledger.vectors.items():
            kept = self.kept.get(slot)
            if slot.step > ledger.put - OUTBOX_STEPS and (kept is None or kept.tobytes() != said):
                raise Broken(f"one's own vector of {slot} cannot be sent again")
        step = None if self.checkpoint is None else self.checkpoint.step
        if step not in ledger.saved:
            raise Broken(f"the checkpoint is that of step {step}, where {ledger.saved} was saved")


@dataclass(frozen=True)
class Moment:
    """What is there before an operation of a life, or at its end: a life may stop here.

    Args:
        operation: what would come next.
        disk: as it is.
        ledger: what the world saw until now.
    """

    operation: str
    disk: Disk
    ledger: Ledger


class World:
    """Lives one after another, on disks under one folder.

    Args:
        patch: undoes what is done to `os`.
        root: the home; emptied for each life.
    """

    def __init__(self, patch: pytest.MonkeyPatch, root: Path) -> None:
        self._machine = Machine(patch)
        self.root = root

    def live(self, disk: Disk, ledger: Ledger, *acts: Callable[[Life], None]) -> None:
        """A life that nothing interrupts: it starts, and does these things."""
        self._machine.disk = disk
        try:
            life = Life(Home(self.root), ledger)
            life.start()
            for act in acts:
                act(life)
        finally:
            self._machine.disk = None
            disk.shut()

    def moments(self, disk: Disk, ledger: Ledger, *acts: Callable[[Life], None]) -> list[Moment]:
        """A life, and where it may stop."""
        seen: list[Moment] = []
        disk.before = lambda operation: seen.append(Moment(operation, disk.fork(), ledger.copy()))
        self.live(disk, ledger, *acts)
        return [*seen, Moment("end", disk.fork(), ledger.copy())]

    def founded(self) -> Disk:
        """A home that never ran."""
        self.root.mkdir(exist_ok=True)
        Home(self.root).journal.unlink(missing_ok=True)
        DurableSigner.begin(IDENTITY, Home(self.root).journal)
        journal = Home(self.root).journal
        return Disk(self.root, {journal.name: journal.read_bytes()})

    def restart(self, files: Files, ledger: Ledger) -> None:
        """After a power cut: nothing is lost, nothing is contradicted, it goes on, and comes back once more."""
        disk, ledger = Disk(self.root, files), ledger.copy()
        self.live(disk, ledger, Life.check, Life.contradict)
        self.live(disk, ledger, Life.check)
