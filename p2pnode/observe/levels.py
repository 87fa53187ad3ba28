"""How much of a log is shown, and how: apart from `p2pnode.observe.log`, whose library `--help` need not wait for."""

from typing import Literal, get_args

Console = Literal["people", "json", "none"]
Level = Literal["info", "warning", "error"]

LEVELS: tuple[Level, ...] = get_args(Level)
"""From the least on."""
