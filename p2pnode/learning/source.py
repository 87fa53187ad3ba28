"""The owner's own code, named as `FILE.py:NAME` or `MODULE:NAME`. Standard library only.

To name it is to run it. So such a name comes from who owns the machine alone: from the command line, their `node.toml`
or an experiment that they run, never from a genesis, which others write, and never from a peer.
"""

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from p2pnode.errors import ConfigError

_FILE = ".py"


def names_code(text: str) -> bool:
    """Whether a text names code, as no task or attack that has a name of its own is called."""
    return ":" in text


def anywhere(text: str) -> str:
    """The same name, that holds from any folder."""
    place, _, name = text.rpartition(":")
    return f"{Path(place).resolve()}:{name}" if place.endswith(_FILE) else text


def summon(text: str, what: str = "task") -> Any:  # noqa: ANN401  whatever the owner named
    """The object of that name; its file is run, once a process.

    Args:
        text: the name.
        what: the setting that it stands in, for errors.

    Raises:
        ConfigError: if there is none, or its file does not run; names the cause.
    """
    place, _, name = text.rpartition(":")
    if not place or not name.isidentifier():
        raise ConfigError(f"{what} = {text!r}: names no code. Remedy: write FILE.py:NAME or MODULE:NAME")
    try:
        module = _run(Path(place).resolve()) if place.endswith(_FILE) else importlib.import_module(place)
    except Exception as error:
        raise ConfigError(
            f"{what} = {text!r}: {place} does not run: {error!r}. Remedy: mend it, or name another"
        ) from error
    if not hasattr(module, name):
        raise ConfigError(f"{what} = {text!r}: there is no {name} in {place}. Remedy: name what it defines")
    return getattr(module, name)


@cache
def _run(file: Path) -> ModuleType:
    """The module that a file is, under its own name, so that what stands beside it can be imported by it.

    The folder is searched last: a file in it takes the place of no module of anybody else's.
    """
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    name = file.stem if file.stem not in sys.modules else f"{file.stem} of {folder}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "its name ends in .py"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
