"""Examines a home before its node runs: all that would stop it, at once, and each with its remedy."""

import os
import resource
import shutil
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, TypeVar

from p2pnode.assignment import assigned
from p2pnode.config import NodeConfig
from p2pnode.errors import P2PNodeError
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Ask, Identity, unasked
from p2pnode.learning.trainer import resolve_devices
from p2pnode.membership import occupant
from p2pnode.net.reach import Answer, reach
from p2pnode.node import RETAINED_STEPS_MIN
from p2pnode.recipe import Recipe
from p2pnode.settings import split_address
from p2pnode.storage.checkpoint import SPARE_STEPS, load_checkpoint
from p2pnode.storage.signer import DurableSigner
from protocols.header import PeerId

Verdict = Literal["good", "note", "bad"]
Known = TypeVar("Known")

CLOCK_APART_S = 30.0
"""Clocks farther apart make logs hard to compare; nothing else depends on them."""

_BASE_BYTES = 300 * 2**20
"""Of a node whose model is small: torch, mostly."""

_DISK_SPARE_BYTES = 100 * 2**20
"""For logs, evidence and the journal."""

_DESCRIPTORS_SPARE = 64
_DESCRIPTORS_A_MEMBER = 4
"""Two lanes of a link, and of the one that replaces it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Args:
        check: what was looked at.
        verdict: "good"; "note": the node runs, and somebody should know; "bad": it does not run, or not with its peers.
        told: in words, with the remedy where something is wrong.
    """

    check: str
    verdict: Verdict
    told: str


def examine(home: Home, patience_s: float, ask: Ask = unasked) -> list[Finding]:
    """All findings, in the order in which they stop a node. Changes nothing in the home.

    Args:
        home: the node's files; the node may be running.
        patience_s: how long to wait for each peer; all are asked at once.
        ask: gives the passphrase, if the key is sealed.
    """
    examination = _Examination(home, patience_s, ask)
    examination.run()
    return examination.findings


class _Examination:
    """Checks one thing after another; what depends on something that is wrong is left out."""

    def __init__(self, home: Home, patience_s: float, ask: Ask) -> None:
        self.findings: list[Finding] = []
        self._home = home
        self._patience_s = patience_s
        self._passphrase = ask
        self._runs = False

    def run(self) -> None:
        if not self._look_at_folder():
            return
        home = self._home
        identity = self._ask(
            "key",
            lambda: Identity.load(home.key, self._passphrase),
            lambda key: f"Ed25519, {key.public_key.hex()[:16]}…",
        )
        if identity is not None:
            self._look_at_key_file()
        config = self._ask("settings", lambda: NodeConfig.load(home.config), lambda config: f"of {config.name}")
        genesis = self._ask("genesis", lambda: Genesis.load(home.genesis), _charter)
        if identity is not None and not self._runs:
            self._ask("journal", lambda: DurableSigner(identity, home.journal).close(), lambda _: "whole")
        if config is not None:
            self._look_at_ports(config)
            self._ask("device", lambda: resolve_devices(config.device), lambda found: ", ".join(map(str, found)))
        if identity is None or config is None or genesis is None:
            return
        found = self._ask(
            "member",
            lambda: occupant(home, genesis, config.name, self._passphrase),
            lambda one: f"number {one[0]} of the genesis",
        )
        self._look_at_checkpoint(genesis)
        dimension = self._ask("task", lambda: assigned(home, genesis, config).dimension, lambda d: f"{d:,} parameters")
        if dimension is not None:
            self._look_at_room(4 * dimension, len(genesis.members), genesis.plan, genesis.training.steps)
        self._look_at_descriptors(len(genesis.members))
        if found is not None:
            self._look_at_peers(genesis, *found)

    def _ask(self, check: str, act: Callable[[], Known], told: Callable[[Known], str]) -> Known | None:
        """What `act` comes to, or None and a finding of what is wrong."""
        try:
            known = act()
        except P2PNodeError as error:
            self._find(check, "bad", str(error))
            return None
        except OSError as error:
            self._find(check, "bad", f"{error.filename}: {error.strerror}. Remedy: let this user read it")
            return None
        self._find(check, "good", told(known))
        return known

    def _find(self, check: str, verdict: Verdict, told: str) -> None:
        self.findings.append(Finding(check, verdict, told))

    def _look_at_folder(self) -> bool:
        path = self._home.path
        if not path.is_dir():
            self._find("home", "bad", f"{path}: no such folder. Remedy: make one with `p2pnode keygen` or `init`")
            return False
        try:
            with TemporaryFile(dir=path):
                pass
        except OSError as error:
            self._find("home", "bad", f"{path}: {error.strerror}. Remedy: let this user write there, and make room")
            return False
        holder = self._home.holder()
        self._runs = holder is not None
        self._find("home", "good", f"process {holder} runs its node" if self._runs else "can be written")
        return True

    def _look_at_key_file(self) -> None:
        mode = stat.S_IMODE(self._home.key.stat().st_mode)
        if mode & 0o077:
            self._find("key file", "bad", f"{self._home.key}: mode {mode:04o}. Remedy: chmod 600 {self._home.key}")
        else:
            self._find("key file", "good", "its owner alone reads it")

    def _look_at_ports(self, config: NodeConfig) -> None:
        if self._runs:
            return
        for what, address in (("listen", config.listen), ("admin", config.admin)):
            try:
                socket.create_server(split_address(address)).close()
            except OSError as error:
                told = (
                    f"{what} = {address}: {error.strerror}. Remedy: free it, or change `{what}` in {self._home.config}"
                )
                self._find("ports", "bad", told)
            else:
                self._find("ports", "good", f"{what} = {address} is free")

    def _look_at_checkpoint(self, genesis: Genesis) -> None:
        def unusable(path: Path, why: str) -> None:
            told = f"{path}: {why}. The node goes on with the first model, until an exchange brings its peers'"
            self._find("checkpoint", "note", told)

        checkpoint = load_checkpoint(self._home.checkpoint, genesis.network, unusable)
        if checkpoint is not None:
            self._find("checkpoint", "good", f"of step {checkpoint.step}")

    def _look_at_room(self, vector_bytes: int, n: int, recipe: Recipe, steps: int) -> None:
        """Disk for two checkpoints of model and momentum, and for the vectors of a step and those before it: one's own,
        with a step's that is being written, and over a total broadcast others'; and memory for a step."""
        retained = 1 + RETAINED_STEPS_MIN
        own, others = retained + SPARE_STEPS + 1, retained * (n - 1) if recipe.total else 0
        vectors = 4 + (own + others) * recipe.slots(steps)
        disk, memory = vectors * vector_bytes + _DISK_SPARE_BYTES, (2 * n + 4) * vector_bytes + _BASE_BYTES
        free = shutil.disk_usage(self._home.path).free
        if free < disk:
            self._find("disk", "bad", f"{_mib(free)} are free, {_mib(disk)} are needed. Remedy: make room")
        else:
            self._find("disk", "good", f"{_mib(free)} are free")
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if available < memory and not self._runs:
            told = f"{_mib(available)} are free, and the node may take {_mib(memory)}. Remedy: end other processes"
            self._find("memory", "note", told)

    def _look_at_descriptors(self, n: int) -> None:
        allowed, needed = resource.getrlimit(resource.RLIMIT_NOFILE)[0], _DESCRIPTORS_A_MEMBER * n + _DESCRIPTORS_SPARE
        if allowed < needed:
            told = f"{allowed} files may be open, {needed} are needed. Remedy: ulimit -n {needed}"
            self._find("limits", "bad", told)

    def _look_at_peers(self, genesis: Genesis, me: PeerId, identity: Identity) -> None:
        others = [PeerId(peer) for peer in range(len(genesis.members)) if peer != me]
        answers = reach(self._home, genesis, identity, others, self._patience_s)
        for peer, answer in zip(others, answers, strict=True):
            self.findings.append(_judge(genesis, peer, answer))
        reached = sum(answer.member is not None for answer in answers)
        quorum = genesis.committee.gather_quorum - 1
        if reached < quorum:
            told = f"{reached} reached; the node waits until {quorum} are there, in any order and at any time"
            self._find("peers", "note", told)


def _judge(genesis: Genesis, peer: PeerId, answer: Answer) -> Finding:
    """Whether a member answers at its address, as itself, and by the same clock."""
    member, apart = genesis.members[peer], answer.clock_apart_s
    check, where = f"peer {member.name}", member.address
    if answer.refused:
        return Finding(check, "bad", f"{where}: {answer.trouble}. Remedy: give both nodes the same genesis")
    if answer.member is None:
        told = f"{where}: {answer.trouble}. It may not be started yet; else mend its address, or open its port"
        return Finding(check, "note", told)
    if answer.member != peer:
        other = genesis.members[answer.member].name
        return Finding(check, "bad", f"{where}: {other} answers. Remedy: mend the address in the genesis")
    if abs(apart) > CLOCK_APART_S:
        told = f"reached; its clock is {apart:+.0f} s from this one, which makes logs hard to compare. Remedy: use NTP"
        return Finding(check, "note", told)
    return Finding(check, "good", f"reached at {where}")


def _charter(genesis: Genesis) -> str:
    return f"network {genesis.network.hex()[:16]}…, n={len(genesis.members)}, f={genesis.f}, {genesis.recipe.name}"


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.0f} MiB"
