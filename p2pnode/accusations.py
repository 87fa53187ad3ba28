"""What a node holds against its peers: counted, punished, and kept over a restart.

Faults are counted while the node runs; a proof of equivocation is kept for ever, a file a liar; scores and bans
(`p2pnode.net.conduct`) are kept in one file. Whoever writes these files decides when and in which thread: what is to be
written is returned as a job.
"""

import shlex
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from p2pnode.codec import decode_evidence, encode_evidence
from p2pnode.config import NodeConfig
from p2pnode.durable import make_folder, replace_file, write_all
from p2pnode.errors import WireError
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.net.conduct import Conduct
from p2pnode.observe.log import Log
from protocols.faults import Equivocation, Fault
from protocols.header import PeerId, Verify

Job: TypeAlias = Callable[[], None]


class Accusations:
    """The faults of all members, as one of them sees them, with what was kept of them before a restart.

    Args:
        home: where proofs and bans lie.
        genesis, config: who the members are, and how long a ban lasts.
        verify: checks the signatures in a proof.
        log: is told of each new fault, each ban, and what was kept and is of no use.
    """

    def __init__(self, home: Home, genesis: Genesis, config: NodeConfig, verify: Verify, log: Log) -> None:
        self._home = home
        self._genesis = genesis
        self._log = log
        self.faults: Counter[tuple[PeerId, Fault]] = Counter()
        self.proofs = self._recall_proofs(verify)
        self.conduct = self._recall_conduct(config)
        self.conduct_kept = True
        """Whether the file holds what is held against peers now."""

    def count(self, peer: PeerId, fault: Fault) -> None:
        """Take note of a fault; the first of its kind is told."""
        self.faults[peer, fault] += 1
        if self.faults[peer, fault] == 1:
            self._log.warning("fault", peer=self._name(peer), fault=fault.value)

    def charge(self, peer: PeerId, fault: Fault) -> float:
        """Raise the peer's score; how many seconds it is banned for from now because of it, 0 where it is not."""
        seconds = self.conduct.charge(peer, fault, time.monotonic())
        self.conduct_kept = False
        if seconds:
            self._log.warning("banned", peer=self._name(peer), seconds=seconds)
        return seconds

    def welcome(self, peer: PeerId) -> bool:
        return not self.conduct.banned(peer, time.monotonic())

    def banned(self) -> tuple[PeerId, ...]:
        return self.conduct.all_banned(time.monotonic())

    def told(self) -> list[dict[str, Any]]:
        """The faults so far, as `/status` tells them."""
        ordered = sorted(self.faults.items(), key=lambda item: (item[0][0], item[0][1].value))
        return [{"peer": self._name(peer), "fault": fault.value, "count": count} for (peer, fault), count in ordered]

    def evidence(self) -> list[dict[str, Any]]:
        """The proofs that are held, for `/history`: what was signed twice, and how to check it; in any thread."""
        return [
            {
                "accused": self._name(peer),
                "step": proof.first.header.slot.step,
                "exchange": proof.first.header.slot.exchange,
                "sub_round": proof.first.header.slot.sub_round,
                "digests": [signed.header.digest.hex() for signed in (proof.first, proof.second)],
                "check": shlex.join(self._checking(self._proof_file(peer))),
            }
            for peer, proof in sorted(self.proofs.copy().items())
        ]

    def keeping_conduct(self) -> Job:
        """What makes durable what is held against peers now. Done when somebody is banned, else now and then and at the
        end: a crash that loses the rest loses less than what a ban takes."""
        self.conduct_kept = True
        kept = self.conduct.dump(self._genesis.network, time.monotonic(), time.time())
        return lambda: replace_file(self._home.conduct, lambda fd: write_all(fd, kept))

    def keeping_proof(self, peer: PeerId, proof: Equivocation) -> Job | None:
        """What makes a proof durable; None where one against this peer is kept already."""
        if peer in self.proofs:
            return None
        self.proofs[peer] = proof
        return lambda: self._keep_proof(peer, proof)

    def _keep_proof(self, peer: PeerId, proof: Equivocation) -> None:
        path = self._proof_file(peer)
        make_folder(path.parent)
        replace_file(path, lambda fd: write_all(fd, encode_evidence(proof)))

    def _checking(self, file: Path) -> list[str]:
        return ["p2pnode", "verify-evidence", str(file), "--genesis", str(self._home.genesis)]

    def _proof_file(self, peer: PeerId) -> Path:
        return self._home.evidence / f"{self._name(peer)}.{Fault.EQUIVOCATED.value}.evidence"

    def _recall_proofs(self, verify: Verify) -> dict[PeerId, Equivocation]:
        """The proofs that were kept, by the accused. A damaged one convicts nobody, and makes way for the next."""
        held = {}
        for peer in self._genesis.committee.members:
            path = self._proof_file(peer)
            if not path.exists():
                continue
            try:
                proof = decode_evidence(path.read_bytes())
            except WireError as error:
                self._log.warning("evidence discarded", file=path.name, reason=str(error))
                continue
            if proof.accused == peer and proof.holds(self._genesis.network, verify):
                held[peer] = proof
            else:
                self._log.warning("evidence discarded", file=path.name, reason="it proves nothing here")
        return held

    def _recall_conduct(self, config: NodeConfig) -> Conduct:
        """What was held against peers before a restart. Nothing depends on it, so nothing stops where it is damaged."""
        committee = self._genesis.committee
        waited_for = max(exchange.quorum(committee) for exchange in self._genesis.plan.exchanges)
        spare = min(committee.f, committee.n - waited_for)
        conduct = Conduct(committee.n, spare, config.ban_s, config.forgive_s)
        try:
            kept = self._home.conduct.read_bytes()
        except FileNotFoundError:
            return conduct
        except OSError as error:
            self._log.warning("conduct discarded", reason=error.strerror)
            return conduct
        if not conduct.restore(kept, self._genesis.network, time.monotonic(), time.time()):
            self._log.warning("conduct discarded", reason="damaged, or of another network")
        return conduct

    def _name(self, peer: PeerId) -> str:
        return self._genesis.members[peer].name
