"""Nodes in containers on this machine: one image, a private network, and homes that are mounted from here.

Docker or Podman, whichever answers. Containers reach each other by the names of their nodes; this machine asks each
node how it is by a port of loopback. What is made here is named and labelled after the process that made it.
"""

import os
import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from p2pnode.errors import ConfigError, P2PNodeError
from p2pnode.init import Place

TOOLS = ("docker", "podman")

IMAGE = "p2pnode"
"""As the head of the Dockerfile tags it."""

_LABEL = "p2pnode.testnet"
_PREFIX = "p2pnode-"
"""Names of what is made here begin so, and go on with the id of the process that made them."""

_PORT, _ADMIN_PORT = 7000, 7001

_HOME = "/home/node"

_LOCKED_UP = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
"""A node needs nothing but its home."""


class ContainersFailed(P2PNodeError):
    """The container engine refuses; says what it said."""


class Containers:
    """A network for containers that is there while this is entered; afterwards it is gone, with all containers on it.

    Args:
        image: what the containers are of.

    Raises:
        ConfigError: if no engine answers, or the one that does has no such image.
    """

    def __init__(self, image: str = IMAGE) -> None:
        self._tool, version = _answering()
        if not _succeeds([self._tool, "image", "inspect", image]):
            raise ConfigError(
                f"image = {image!r}: {self._tool} has none of that name. "
                f"Remedy: {self._tool} build -t {image} FOLDER, where FOLDER has p2pnode's Dockerfile"
            )
        self._image = image
        self._network, self._label = f"{_PREFIX}{os.getpid()}", f"{_LABEL}={os.getpid()}"
        # Homes belong to this user, so nodes run as this user; Podman without root renumbers users unless told not to.
        self._user = ["--user", f"{os.getuid()}:{os.getgid()}"]
        if "podman" in version.lower() and os.geteuid() != 0:
            self._user.append("--userns=keep-id")

    def __enter__(self) -> "Containers":
        _remove_left_behind(self._tool)
        _run([self._tool, "network", "create", "--label", self._label, self._network])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _remove(self._tool, _containers(self._tool, self._label), [self._network])

    def place(self, name: str, settings: Mapping[str, Any]) -> Place:
        """Where a node listens in its container, and its peers reach it."""
        admin = f"0.0.0.0:{_ADMIN_PORT}"
        return Place(name, f"{name}:{_PORT}", {**settings, "admin": admin}, listen=f"0.0.0.0:{_PORT}")

    def command(
        self,
        name: str,
        home: Path,
        data_dir: str | None,
        asked_at: str,
        attacks: Sequence[str] = (),
        liars: Collection[str] = (),
    ) -> list[str]:
        """What runs a node in a container and ends with it, passes on SIGTERM, and prints what the node prints.

        Args:
            name: of the node.
            home: its files.
            data_dir: folder of the task's files.
            asked_at: host:port of this machine where it is asked how it is.
            attacks, liars: what it does, and with whom, if it lies.
        """
        where = ["--network", self._network, "--network-alias", name]
        mounts = [f"--volume={home.resolve()}:{_HOME}", *([f"--volume={data_dir}:{data_dir}:ro"] if data_dir else [])]
        # Without --pull=never the image of a stranger would be taken where ours was removed meanwhile.
        run = [self._tool, "run", "--rm", "--pull=never", "--name", f"{self._network}-{name}", "--label", self._label]
        limits = [*_LOCKED_UP, "--security-opt=label=disable", *self._user]
        lies = ["--attack", ",".join(attacks), "--liars", ",".join(liars)] if attacks else []
        port = [f"--publish={asked_at}:{_ADMIN_PORT}"]
        return [*run, *where, *port, *limits, *mounts, self._image, "run", _HOME, *lies]


def _answering() -> tuple[str, str]:
    """The first engine that answers, and what it says of itself.

    Raises:
        ConfigError: if none does.
    """
    silent = []
    for tool in TOOLS:
        if shutil.which(tool) is None:
            silent.append(f"{tool} is not installed")
            continue
        told = subprocess.run([tool, "version"], capture_output=True, text=True, check=False)
        if told.returncode == 0:
            return tool, told.stdout
        silent.append((told.stderr.strip().splitlines() or [f"{tool} does not answer"])[-1])
    raise ConfigError(
        f"containers need an engine: {'; '.join(silent)}. "
        f"Remedy: install {' or '.join(TOOLS)}, and start it; or use --engine processes"
    )


def _remove_left_behind(tool: str) -> None:
    """Remove what processes left that were killed."""
    _remove(tool, filter(_is_left_behind, _containers(tool)), filter(_is_left_behind, _networks(tool)))


def _is_left_behind(name: str) -> bool:
    owner = name.removeprefix(_PREFIX).partition("-")[0]
    if not owner.isdigit():
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _containers(tool: str, label: str = _LABEL) -> list[str]:
    return _run([tool, "ps", "--all", "--filter", f"label={label}", "--format", "{{.Names}}"]).split()


def _networks(tool: str) -> list[str]:
    return _run([tool, "network", "ls", "--filter", f"label={_LABEL}", "--format", "{{.Name}}"]).split()


def _remove(tool: str, containers: Iterable[str], networks: Iterable[str]) -> None:
    for container in containers:
        _succeeds([tool, "rm", "--force", container])
    for network in networks:
        _succeeds([tool, "network", "rm", network])


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ContainersFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
