"""Where a passphrase comes from: a file, the environment, or the terminal without echo. Never the command line, which
everybody on the machine can read."""

import getpass
import os
import warnings
from functools import cache, partial
from pathlib import Path

from p2pnode.errors import ConfigError
from p2pnode.identity import Ask

VARIABLE = "P2PNODE_PASSPHRASE"
"""The environment variable that holds the passphrase of a sealed key, where no file does and nobody can type it."""

_BYTES_MAX = 4096
"""More than anyone types, and no file given by mistake fills the memory."""


def asking(file: Path | None = None, *, new: bool = False) -> Ask:
    """Asks once, however often it is called.

    Args:
        file: holds the passphrase, but for the end of its line; None: it is in the environment, or is typed.
        new: have it typed twice, since a slip of the finger would lose the key.
    """
    return cache(partial(_ask, file, new=new))


def _ask(file: Path | None, *, new: bool) -> bytes:
    """The passphrase, not empty.

    Raises:
        ConfigError: if there is none, or it is typed in two ways.
    """
    if file is not None:
        passphrase = _read(file)
    elif VARIABLE in os.environ:
        passphrase = os.environb[VARIABLE.encode()]
    else:
        passphrase = _typed("Passphrase of the key: ")
        if new and passphrase != _typed("The same again: "):
            raise ConfigError("the two passphrases differ; nothing was changed. Remedy: type the same one twice")
    if not passphrase:
        raise ConfigError("the passphrase is empty. Remedy: choose one that nobody guesses")
    return passphrase


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"passphrase file {file}: {error.strerror}. Remedy: name one that this user reads") from error
    if len(data) > _BYTES_MAX:
        raise ConfigError(f"passphrase file {file}: more than {_BYTES_MAX} bytes. Remedy: name the one that holds it")
    return data.removesuffix(b"\n").removesuffix(b"\r")


def _typed(prompt: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)  # it would be seen on the screen
        try:
            return os.fsencode(getpass.getpass(prompt))
        except (EOFError, getpass.GetPassWarning) as error:
            raise ConfigError(
                f"a passphrase is needed, and no terminal to ask on. Remedy: set {VARIABLE}, or name a file by "
                "--passphrase-file"
            ) from error
