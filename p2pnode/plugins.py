"""Plug-ins: what other installed distributions offer under an entry-point group.

Looking for them reads metadata only. A plug-in's own code runs when it is asked for by name, so a broken one harms
nobody who does not use it.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from p2pnode.errors import ConfigError


@cache
def discover(group: str) -> dict[str, EntryPoint]:
    """Name → entry point of all that is installed for this group, by name; nothing is imported.

    Where two distributions offer one name, the one that comes first on the path has it. The answer is shared by all
    callers and must not be changed.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, point)
    return dict(sorted(found.items()))


def load(group: str, name: str) -> Any:  # noqa: ANN401  whatever the plug-in is
    """The object that the plug-in of this name is, its module imported.

    Raises:
        ConfigError: if there is none, or it cannot be imported; names its distribution and the cause.
    """
    offered = discover(group)
    if name not in offered:
        known = ", ".join(offered) or "none is installed"
        raise ConfigError(f"{group}: no plug-in {name!r}. Remedy: install one, or choose of those there are: {known}")
    point = offered[name]
    try:
        return point.load()
    except Exception as error:
        raise ConfigError(
            f"{group}: the plug-in {name!r} ({point.value}, of {distribution_of(point)}) does not load: {error!r}. "
            f"Remedy: mend or uninstall {distribution_of(point)}"
        ) from error


def distribution_of(point: EntryPoint) -> str:
    """Name and version of the distribution that an entry point comes with."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown distribution"
