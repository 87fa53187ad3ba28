"""What the shell completes: the names that an option takes, each with a word on it.

Whoever presses the tab key waits for this, so nothing is imported that takes long, and no plug-in is loaded: of those
only the names are known.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

import typer
from typer.models import ParameterInfo

from p2pnode.aggregation import PRE_AGGREGATIONS, RULES, plugin
from p2pnode.byzantine import PARAMETERS, known_attacks
from p2pnode.errors import ConfigError
from p2pnode.learning import catalogue
from p2pnode.observe.levels import LEVELS
from p2pnode.recipe import BROADCASTS, RECIPES, WIRES
from p2pnode.simulation.schedule import SCHEDULES

Offer = Callable[[str], Iterable[tuple[str, str]]]
"""What was typed of a word → the words that it may become, and what each means."""


def complete(app: typer.Typer) -> None:
    """Have the shell complete every option and argument of the app for which there is something to offer."""
    for callback in _callbacks(app):
        for name, parameter in inspect.signature(callback).parameters.items():
            for info in getattr(parameter.annotation, "__metadata__", ()):
                if isinstance(info, ParameterInfo):
                    info.autocompletion = _completed(name)


def _callbacks(app: typer.Typer) -> Iterator[Callable[..., object]]:
    for command in app.registered_commands:
        if command.callback is not None:
            yield command.callback
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _callbacks(group.typer_instance)


def _completed(name: str) -> Callable[[typer.Context, str], list[tuple[str, str]]] | None:
    """What typer asks for the words of the parameter of that name, in whatever command it stands."""
    if not any(key.split()[-1] == name for key in OFFERS):
        return None

    def offered(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        offer = OFFERS.get(f"{ctx.info_name} {name}", OFFERS.get(name, _nothing))
        with suppress(ConfigError):  # of a plug-in that takes another's name; the command itself will say so
            return list(offer(incomplete))
        return []

    return offered


def _nothing(_typed: str) -> Iterable[tuple[str, str]]:
    """Leaves it to the shell, which completes the names of files."""
    return ()


def _one_of(words: Iterable[str] | Mapping[str, str]) -> Offer:
    told = dict(words) if isinstance(words, Mapping) else dict.fromkeys(words, "")
    return lambda _typed: told.items()


def _recipes(_typed: str) -> Iterator[tuple[str, str]]:
    return ((name, preset.summary) for name, preset in RECIPES.items())


def _simulated(typed: str) -> Iterator[tuple[str, str]]:
    yield from _recipes(typed)
    yield from ((name, "this broadcast alone") for name in BROADCASTS)


def _rules(typed: str) -> Iterator[tuple[str, str]]:
    """The last part of a pipeline: what is joined before it stays."""
    before, plus, _ = typed.rpartition("+")
    parts = {pre.name: f"before a rule: {pre.summary}" for pre in PRE_AGGREGATIONS.values()}
    parts |= {rule.name: rule.summary for rule in RULES.values()}
    parts |= dict.fromkeys(plugin.plugged(), "a plug-in")
    return ((before + plus + name, summary) for name, summary in parts.items() if name not in before.split("+"))


def _attacks(typed: str) -> Iterator[tuple[str, str]]:
    """The last of a list: those before it stay, and are not offered again."""
    before, comma, _ = typed.rpartition(",")
    chosen = {attack.partition("=")[0] for attack in before.split(",")}
    for name, summary in known_attacks().items():
        if name not in chosen:
            yield before + comma + name, summary
            for word in PARAMETERS[name].words if name in PARAMETERS else ():
                yield f"{before}{comma}{name}={word}", summary


def _simulated_attacks(typed: str) -> Iterator[tuple[str, str]]:
    yield from (("all", "each kind of lie in turn"), ("twins", "each runs twice, with one key"))
    yield from _attacks(typed)


def _tasks(_typed: str) -> Iterator[tuple[str, str]]:
    yield from ((task.name, task.summary) for task in catalogue.TASKS.values())
    yield from ((name, "a plug-in") for name in catalogue.plugged())


OFFERS: dict[str, Offer] = {
    "recipe": _recipes,
    "simulate recipe": _simulated,
    "rule": _rules,
    "broadcast": _one_of(BROADCASTS),
    "gather": _one_of({"quorum": "n−f values", "all": "every member's"}),
    "placement": _one_of({"worker": "of one's own gradients", "update": "of the directions agreed on"}),
    "wire": _one_of(WIRES),
    "staleness": _one_of({"0": "of this step", "1": "of the last step"}),
    "vectors": _one_of({"tls": "nobody else reads them", "plain": "where nobody else can listen"}),
    "task": _tasks,
    "run task": _nothing,
    "export task": _nothing,
    "keygen task": _nothing,
    "attack": _attacks,
    "simulate attack": _simulated_attacks,
    "schedule": _one_of(["all", *SCHEDULES]),
    "device": _one_of(["auto", "cpu", "cuda"]),
    "testnet engine": _one_of(
        {"processes": "on loopback", "netns": "each on a host of its own", "containers": "each in a container"}
    ),
    "experiment engine": _one_of({"local": "simulated", "ray": "simulated, on a cluster", "testnet": "real processes"}),
    "perturb": _one_of({"random": "what --perturb-seed draws"}),
    "log_level": _one_of(LEVELS),
    "log_format": _one_of({"text": "on standard error", "json": "on standard output, a line each"}),
    "probe": _one_of({"live": "whether it answers", "ready": "whether it is in step with n−f members"}),
    "list what": _one_of(("rules", "attacks", "recipes", "tasks")),
}
"""Parameter, or command and parameter where that is another matter → what is offered for it."""
