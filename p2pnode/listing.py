"""What there is to choose from, for machines and for people: rules, attacks, recipes and tasks, plug-ins among them.

Neither torch nor any plug-in is imported: a listing is there at once, and a broken plug-in does not spoil it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from p2pnode.aggregation import RULES, plugin
from p2pnode.byzantine import ATTACKS
from p2pnode.learning import catalogue
from p2pnode.learning.catalogue import TASKS
from p2pnode.plugins import discover, distribution_of
from p2pnode.recipe import RECIPES, Exchange, choose
from protocols.committee import Committee

Entry = dict[str, Any]
"""One row for machines; its "origin" is None for what is built in, else the distribution it comes with."""

_LIARS = range(1, 9)
_SOME_COMMITTEE = Committee(100, 1)
"""Whatever n and f, a recipe has the same exchanges; only their sub-rounds differ."""


def rows(what: str) -> list[Entry]:
    """All of one kind, in the order of their tables, plug-ins last.

    Args:
        what: "rules", "attacks", "recipes" or "tasks".
    """
    return _ROWS[what]()


def table(what: str, entries: Sequence[Entry]) -> Table:
    """The same for people, within 100 columns."""
    found = Table(box=box.SIMPLE_HEAD, width=100, pad_edge=False)
    columns = _COLUMNS[what]
    for name in columns:
        found.add_column(name, no_wrap=name == what.removesuffix("s"))
    for entry in entries:
        cells = (
            [Text(entry["name"], style="bold"), *_CELLS[what](entry)] if entry["origin"] is None else _plugged(entry)
        )
        found.add_row(*cells, *[""] * (len(columns) - len(cells)))
    return found


def _plugged(entry: Entry) -> list[Text]:
    return [Text(entry["name"], style="bold"), Text(f"plug-in of {entry['origin']}", style="italic")]


def _of_plug_ins(group: str, names: Sequence[str]) -> list[Entry]:
    return [{"name": name, "origin": distribution_of(discover(group)[name])} for name in names]


def _rules() -> list[Entry]:
    built_in = [
        {
            "name": rule.name,
            "origin": None,
            "aliases": list(rule.aliases),
            "summary": rule.summary,
            "bounds": {kind: str(bound) for kind, bound in rule.bounds.items()},
            "inputs_min": _in_f(rule.inputs_min),
            "wants": list(rule.arguments),
            "source": rule.source,
        }
        for rule in RULES.values()
    ]
    return built_in + _of_plug_ins(plugin.GROUP, plugin.plugged())


def _rule_cells(entry: Entry) -> list[Text]:
    bounds = entry["bounds"]
    same = len(set(bounds.values())) == 1
    wants = [f"{entry['inputs_min']} vectors or more"] + (["one's own among them"] if "own" in entry["wants"] else [])
    about = Text(f"{entry['summary']}\n")
    about.append(f"also {', '.join(entry['aliases'])}\n" if entry["aliases"] else "", style="dim")
    about.append(f"needs {', '.join(wants)}\nfrom {entry['source']}\n", style="dim")
    covered = (
        next(iter(bounds.values())) if same else "\n".join(f"{bound} over {kind}" for kind, bound in bounds.items())
    )
    return [about, Text(f"{covered}\n")]


def _attacks() -> list[Entry]:
    return [{"name": name, "origin": None, "summary": summary} for name, summary in ATTACKS.items()]


def _recipes() -> list[Entry]:
    found = []
    for name, preset in RECIPES.items():
        recipe = choose(name, _SOME_COMMITTEE, guarded=False)
        found.append(
            {
                "name": name,
                "origin": None,
                "summary": preset.summary,
                "exchanges": [
                    {"what": one.what, "broadcast": one.broadcast, "rule": one.rule} for one in recipe.exchanges
                ],
                "batch_grows": recipe.batch_grows,
                "needs": list(dict.fromkeys(_needs(one) for one in recipe.exchanges)),
            }
        )
    return found


def _needs(exchange: Exchange) -> str:
    return str(RULES[exchange.rule].bounds[exchange.broadcast])


def _recipe_cells(entry: Entry) -> list[Text]:
    lines = [f"{one['what']} · {one['broadcast']} · {one['rule']}" for one in entry["exchanges"]]
    lines += ["the batch grows with the steps"] if entry["batch_grows"] else []
    about = Text(f"{entry['summary']}\n")
    about.append("".join(f"{line}\n" for line in lines), style="dim")
    return [about, Text(", ".join(entry["needs"]))]


def _tasks() -> list[Entry]:
    built_in = [
        {
            "name": task.name,
            "origin": None,
            "summary": task.summary,
            "parameters": task.parameters,
            "needs_data_dir": task.needs_data_dir,
            "steps": task.steps,
            "local_batch": task.local_batch,
            "momentum": task.momentum,
            "lr": task.lr,
            "lr_decay_every": task.lr_decay_every,
        }
        for task in TASKS.values()
    ]
    return built_in + _of_plug_ins(catalogue.GROUP, catalogue.plugged())


def _task_cells(entry: Entry) -> list[Text]:
    decay = f" / (1 + ⌊t/{entry['lr_decay_every']}⌋)" if entry["lr_decay_every"] else ""
    about = Text(f"{entry['summary']}\n")
    about.append(f"{entry['steps']} steps, batch {entry['local_batch']}, momentum {entry['momentum']}, ", style="dim")
    about.append(f"lr {entry['lr']}{decay}\n", style="dim")
    files = "--data-dir" if entry["needs_data_dir"] else "none"
    return [about, Text("–" if entry["parameters"] is None else f"{entry['parameters']:,}"), Text(files)]


def _in_f(least: Callable[[int], int]) -> str:
    """The number as people write it: 2f+1, if it is linear in f from 1."""
    slope = least(2) - least(1)
    spare = least(1) - slope
    if any(least(f) != slope * f + spare for f in _LIARS):
        return ", ".join(f"{least(f)} for f = {f}" for f in (1, 2, 3))
    if slope == 0:
        return str(spare)
    return f"{'' if slope == 1 else slope}f" + (f"{spare:+d}" if spare else "")


_ROWS: dict[str, Callable[[], list[Entry]]] = {
    "rules": _rules,
    "attacks": _attacks,
    "recipes": _recipes,
    "tasks": _tasks,
}
_COLUMNS = {
    "rules": ("rule", "mixes", "proven for"),
    "attacks": ("attack", "what the liar does"),
    "recipes": ("recipe", "what a step exchanges, in order", "needs"),
    "tasks": ("task", "what is learned", "parameters", "files"),
}
_CELLS: dict[str, Callable[[Entry], list[Text]]] = {
    "rules": _rule_cells,
    "attacks": lambda entry: [Text(entry["summary"])],
    "recipes": _recipe_cells,
    "tasks": _task_cells,
}
