"""Aggregation rules from other installed distributions.

A plug-in is an entry point of the group `p2pnode.rules`, of the rule's name, whose object is a `Rule`. Its kernel is
named as "package.module:function": (n, d) vectors, finite, and what `Rule.arguments` names, to their mixture, (d,).
"""

from p2pnode.aggregation.rule import Rule
from p2pnode.aggregation.rules import BROADCAST_KINDS, names
from p2pnode.errors import ConfigError
from p2pnode.plugins import discover, distribution_of, load

GROUP = "p2pnode.rules"

_ARGUMENTS = ("f", "own", "centre", "seed", "keep")


def plugged() -> list[str]:
    """Names of the rules that plug-ins offer; none of them is imported.

    Raises:
        ConfigError: if one has a name or alias of a built-in rule.
    """
    points = discover(GROUP)
    for name, point in points.items():
        if name in names():
            raise _shadowed(distribution_of(point), name)
    return list(points)


def plugin_rule(name: str) -> Rule | None:
    """The plug-in rule of that name; None if no plug-in has it.

    Raises:
        ConfigError: if a plug-in has the name or alias of a built-in rule, or the one asked for is no rule.
    """
    if name not in plugged():
        return None
    rule = load(GROUP, name)
    source = distribution_of(discover(GROUP)[name])
    if not isinstance(rule, Rule):
        raise ConfigError(f"{GROUP}: {name!r}, of {source}, is no Rule. Remedy: mend or uninstall {source}")
    for alias in rule.aliases:
        if alias in names():
            raise _shadowed(source, alias)
    wrong = _mistake(rule, name)
    if wrong is not None:
        raise ConfigError(f"{GROUP}: {name!r}, of {source}: {wrong}. Remedy: mend or uninstall {source}")
    return rule


def _shadowed(source: str, name: str) -> ConfigError:
    return ConfigError(
        f"{GROUP}: {source} offers a rule {name!r}, which is built in. Remedy: rename it there, or uninstall it"
    )


def _mistake(rule: Rule, name: str) -> str | None:
    """What would fail only once vectors are mixed."""
    module, _, function = rule.kernel.partition(":")
    if rule.name != name:
        return f"it calls itself {rule.name!r}"
    if "." not in module or not function.isidentifier():
        return f"kernel = {rule.kernel!r} is not of the form package.module:function"
    if not set(rule.arguments) <= set(_ARGUMENTS):
        return f"arguments = {rule.arguments!r}: there are {', '.join(_ARGUMENTS)}"
    if set(rule.bounds) != set(BROADCAST_KINDS):
        return f"bounds are for {', '.join(rule.bounds) or 'none'}, and must be for {', '.join(BROADCAST_KINDS)}"
    return None
