"""A node's home: the one folder that holds everything of one node, and the names of its files."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from p2pnode.errors import ConfigError, asking_disk

START = "start.safetensors"
"""Lies beside a genesis that names it, and in each home."""


@dataclass(frozen=True, slots=True)
class Home:
    """Names of the files in one node's home."""

    path: Path

    @property
    def key(self) -> Path:
        """The private key, Ed25519, in clear or sealed by a passphrase; only its owner may read the file."""
        return self.path / "key.pem"

    @property
    def certificate(self) -> Path:
        """The self-signed certificate of the key, which the genesis pins."""
        return self.path / "cert.pem"

    @property
    def card(self) -> Path:
        """The join card: what a genesis says of this node, for who makes one; made by `p2pnode keygen`."""
        return self.path / "card.json"

    @property
    def genesis(self) -> Path:
        """The charter that all members share; its hash names the network."""
        return self.path / "genesis.json"

    @property
    def config(self) -> Path:
        """The node's own settings."""
        return self.path / "node.toml"

    @property
    def start(self) -> Path:
        """The weights that the network begins with, where its genesis names them by digest."""
        return self.path / START

    @property
    def journal(self) -> Path:
        """What was signed, append-only. Never delete it, and never put back an older copy."""
        return self.path / "signed.journal"

    @property
    def checkpoint(self) -> Path:
        """Model, momentum and step, from which the node goes on."""
        return self.path / "checkpoint.safetensors"

    @property
    def outbox(self) -> Path:
        """Folder of the node's own latest vectors, to be sent again and not computed again."""
        return self.path / "outbox"

    @property
    def evidence(self) -> Path:
        """Folder of proofs of equivocation, one for each liar, for `p2pnode verify-evidence`."""
        return self.path / "evidence"

    @property
    def conduct(self) -> Path:
        """What is held against peers, and who is banned; without it the node starts anew with all of them."""
        return self.path / "conduct"

    @property
    def log(self) -> Path:
        """What happened, a JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def output(self) -> Path:
        """What a node of a testnet printed, among it any failure before its log was open."""
        return self.path / "output.txt"

    @property
    def admin(self) -> Path:
        """Address of the running node's admin endpoint; there while it runs."""
        return self.path / "admin"

    @property
    def history(self) -> Path:
        """What the node saw in its steps, JSON, for `p2pnode report`; written when it stops in good order."""
        return self.path / "history.json"

    @property
    def result(self) -> Path:
        """The outcome of a finished run, JSON."""
        return self.path / "result.json"

    @property
    def pid(self) -> Path:
        """Process id of the running node; locked while it runs."""
        return self.path / "pid"

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Hold the home for this process: two processes of one key could sign two things for one slot.

        Raises:
            ConfigError: if another process holds it, it is no home, or this user may not write to it.
            DiskError: if the disk is full.
        """
        fd = self._lock()
        while not self._is_pid_file(fd):  # the holder before us removed it after we had opened it: it keeps nobody out
            os.close(fd)
            fd = self._lock()
        try:
            with asking_disk(self.pid):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            with suppress(OSError):  # a file of a process that ended keeps nobody out
                self.pid.unlink()
            os.close(fd)

    def holder(self) -> str | None:
        """The id of the process that holds the home, if one does."""
        try:
            fd = os.open(self.pid, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(fd, 32, 0).decode(errors="replace").strip() or "?"
        finally:
            os.close(fd)
        return None

    def _lock(self) -> int:
        try:
            fd = os.open(self.pid, os.O_RDWR | os.O_CREAT, 0o644)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigError(f"home {self.path}: {error.strerror}; make one with `p2pnode init`") from error
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                with asking_disk(self.pid):
                    raise
            raise ConfigError(
                f"home {self.path}: {error.strerror}. Remedy: let this user write there; a node records what it signs"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "?"
            os.close(fd)
            raise ConfigError(f"home {self.path}: process {holder} runs this node; stop it first") from error
        return fd

    def _is_pid_file(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.pid.stat())
        except FileNotFoundError:
            return False


@dataclass(frozen=True, slots=True)
class NetworkFolder:
    """Names of the files in the folder of a whole network, beside the homes: a folder for each member, of its name."""

    path: Path

    @property
    def genesis(self) -> Path:
        """The charter; each home has a copy of it."""
        return self.path / "genesis.json"

    @property
    def summary(self) -> Path:
        """What came of a testnet, JSON, as `p2pnode testnet --json` prints it; written at its end."""
        return self.path / "summary.json"

    @property
    def perturbations(self) -> Path:
        """What was done to the nodes of a testnet, as `--perturb` takes it to do it again."""
        return self.path / "perturb.toml"

    @property
    def report(self) -> Path:
        """What `p2pnode report` makes of a testnet: one file for a browser."""
        return self.path / "report.html"
