"""What there is to choose from, for machines and for people: rules, attacks, recipes and tasks, plug-ins among them.

Neither torch nor any plug-in is imported: a listing is there at once, and a broken plug-in does not spoil it.
"""

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from p2pnode.aggregation import PRE_AGGREGATIONS, RULES, plugin
from p2pnode.aggregation.resilience import Constant
from p2pnode.aggregation.rule import Inputs, Part, Rule
from p2pnode.byzantine import ALIASES, ATTACKS, PARAMETERS, PLUGINS, known_attacks
from p2pnode.errors import ConfigError
from p2pnode.learning import catalogue
from p2pnode.learning.catalogue import TASKS
from p2pnode.plugins import discover, distribution_of
from p2pnode.recipe import RECIPES, choose
from protocols.committee import Bound, Committee

Entry = dict[str, Any]
"""One row for machines; its "origin" is None for what is built in, else the distribution it comes with."""

_SOME_COMMITTEE = Committee(26, 5)
"""What constants are shown for. Whatever n and f, a recipe has the same exchanges; only their sub-rounds differ."""

_SOME_LENGTH = 100_000
_FEW_LIARS = (1, 2, 3)
_NODES_MAX = 64
_SIGNS = {"κ": "kappa", "λ": "lambda"}
_WANTS = {"own": "one's own among them", "centre": "the model at which the round began"}


def rows(what: str) -> list[Entry]:
    """All of one kind, in the order of their tables, plug-ins last.

    Args:
        what: "rules", "attacks", "recipes" or "tasks".
    """
    return _ROWS[what]()


def table(what: str, entries: Sequence[Entry]) -> Table:
    """The same for people, as wide as the terminal."""
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = _COLUMNS[what]
    for name in columns:
        found.add_column(name, no_wrap=name == what.removesuffix("s"), overflow="fold")
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
            **_part(rule),
            "before_a_rule": False,
            "bounds": {kind: str(bound) for kind, bound in rule.bounds.items()},
            "inputs_min": _in_f(rule.inputs_min),
            "kappa": _constant(rule, rule.kappa),
            "lambda": _constant(rule, rule.resilience, _SOME_LENGTH),
        }
        for rule in RULES.values()
    ]
    before = [{**_part(pre), "before_a_rule": True} for pre in PRE_AGGREGATIONS.values()]
    return built_in + before + _of_plug_ins(plugin.GROUP, plugin.plugged())


def _part(part: Part) -> Entry:
    return {
        "name": part.name,
        "origin": None,
        "aliases": list(part.aliases),
        "parameters": [
            {"name": one.name, "meaning": one.meaning, "default": one.default, "whole": one.whole}
            for one in part.parameters
        ],
        "summary": part.summary,
        "wants": [name for name in part.arguments if name in ("own", "centre")],
        "source": part.source,
    }


def _constant(rule: Rule, constant: Constant | None, *more: int) -> Entry | None:
    """The constant for some committee, if it is finite and the rule can mix so many vectors."""
    n, f = _SOME_COMMITTEE.n, _SOME_COMMITTEE.f
    if constant is None or n < rule.inputs_min(f) or not isfinite(value := constant(n, f, *more)):
        return None
    return {"n": n, "f": f, "value": value, "source": constant.source}


def _in_f(least: Inputs) -> str:
    return str(Bound(least.per_liar, least.spare, "")).removeprefix("n ≥ ") if least.per_liar else str(least.spare)


def _rule_cells(entry: Entry) -> list[Text]:
    about = Text(f"{entry['summary']}\n")
    for line in _rule_lines(entry):
        about.append(f"{line}\n", style="dim")
    if entry["before_a_rule"]:
        return [about, Text("stands before a rule:\n" + f"{entry['name']}+median")]
    bounds = entry["bounds"]
    same = len(set(bounds.values())) == 1
    covered = [next(iter(bounds.values()))] if same else [f"{bound} over {kind}" for kind, bound in bounds.items()]
    return [about, Text("\n".join(covered))]


def _rule_lines(entry: Entry) -> list[str]:
    lines = [f"also {', '.join(entry['aliases'])}"] if entry["aliases"] else []
    for one in entry["parameters"]:
        default = "" if one["default"] is None else f", {one['default']} if left out"
        lines.append(f"{entry['name']}={one['name']}: {one['meaning']}{default}")
    wants = [_WANTS[name] for name in entry["wants"]]
    if not entry["before_a_rule"]:
        wants.insert(
            0, f"{entry['inputs_min']} vectors or more" if entry["inputs_min"] != "1" else "one vector or more"
        )
    lines += [f"needs {', '.join(wants)}"] if wants else []
    known = [f"{sign} = {found['value']:.3g}" for sign, key in _SIGNS.items() if (found := entry.get(key)) is not None]
    lines += [f"{', '.join(known)} for n = {_SOME_COMMITTEE.n}, f = {_SOME_COMMITTEE.f}"] if known else []
    return [*lines, f"from {entry['source']}"]


def _attacks() -> list[Entry]:
    built_in = [
        {
            "name": name,
            "origin": None,
            "aliases": [alias for alias, meant in ALIASES.items() if meant == name],
            "parameter": str(PARAMETERS[name]) if name in PARAMETERS else None,
            "summary": summary,
        }
        for name, summary in ATTACKS.items()
    ]
    return built_in + _of_plug_ins(PLUGINS, [name for name in known_attacks() if name not in ATTACKS])


def _attack_cells(entry: Entry) -> list[Text]:
    about = Text(f"{entry['summary']}\n")
    if entry["parameter"] is not None:
        about.append(f"{entry['name']}={entry['parameter']}\n", style="dim")
    about.append(f"also {', '.join(entry['aliases'])}\n" if entry["aliases"] else "", style="dim")
    return [about]


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
                "local_steps": recipe.local_steps,
                "placement": recipe.placement,
                "momentum": preset.momentum,
                "nodes_min": {str(f): _least(name, f) for f in _FEW_LIARS},
                "note": preset.note,
            }
        )
    return found


def _least(recipe: str, f: int) -> int | None:
    """The fewest nodes with which the recipe is proven; None if with any number nothing is."""
    for n in range(f + 1, _NODES_MAX):
        try:
            choose(recipe, Committee(n, f))
        except ConfigError:
            continue
        return n
    return None


def _recipe_cells(entry: Entry) -> list[Text]:
    lines = [f"{one['what']} · {one['broadcast']} · {one['rule']}" for one in entry["exchanges"]]
    lines += ["the batch grows with the steps"] if entry["batch_grows"] else []
    lines += [f"{entry['local_steps']} local steps"] if entry["local_steps"] > 1 else []
    lines += ["momentum of the directions agreed on"] if entry["placement"] == "update" else []
    lines += [entry["note"]] if entry["note"] else []
    about = Text(f"{entry['summary']}\n")
    about.append("".join(f"{line}\n" for line in lines), style="dim")
    needs = [f"n ≥ {least} for f = {f}" for f, least in entry["nodes_min"].items() if least is not None]
    return [about, Text("\n".join(needs) or "f = 0")]


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
    "attacks": _attack_cells,
    "recipes": _recipe_cells,
    "tasks": _task_cells,
}
