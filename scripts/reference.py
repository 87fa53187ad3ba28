"""docs/reference.md, made of what the code says of itself: `scripts/docs reference` writes it, a test compares it.

Nothing is described here. Commands and options have their help texts, settings the "Args" of their class, their
defaults and bounds, metrics and files their own words: who finds one wanting mends it there.
"""

import importlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from p2pnode import bench, passphrase, soak
from p2pnode.bench.app import app as measurements
from p2pnode.cli import app
from p2pnode.config import NodeConfig
from p2pnode.driver import PHASES
from p2pnode.experiment.grid import ExperimentFile, Options, Plot, TrialSettings
from p2pnode.genesis import Choice, Genesis, Member, Model, Training
from p2pnode.home import Home, NetworkFolder
from p2pnode.observe.metrics import families
from p2pnode.perturbation import Perturbation, Perturbations
from p2pnode.settings import Settings
from tests.fuzz import guided

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"

FILES: dict[str, tuple[str, dict[str, type[Settings]]]] = {
    "node.toml": ("A node's own settings, in its home. TOML.", {"": NodeConfig}),
    "genesis.json": (
        "The charter, the same in every home. JSON, made by `p2pnode genesis new` or `p2pnode init`; `p2pnode genesis "
        "show` checks one.",
        {"": Genesis, "recipe": Choice, "training": Training, "training.model": Model, "members": Member},
    ),
    "Perturbations": (
        "What `p2pnode testnet --perturb FILE` does to its nodes ([how](guide.md#a-network-that-is-hurt)). TOML.",
        {"": Perturbations, "perturbation": Perturbation},
    ),
    "Experiments": (
        "What `p2pnode experiment FILE` runs ([how](guide.md#experiments)). TOML.",
        {"": ExperimentFile, "base, grid, also, reference": TrialSettings, "options": Options, "plot": Plot},
    ),
}
"""Title → what the file is, and its tables by name; the outermost has none."""

_SPECIMEN = {
    "name": "a",
    "network": "",
    "recipe": "trimmed",
    **dict.fromkeys(("step", "steps", "steps_taken", "loss", "accuracy", "phase_seconds", "peak_rss_mib"), 0),
    **dict.fromkeys(("waits_for", "late", "connected", "faults", "evidence", "banned"), ()),
    "mixed": {},
    "kept": {},
    "phases": dict.fromkeys(PHASES, 0),
    "links": [
        {"peer": "b", **dict.fromkeys(("control_sent", "control_received", "bulk_sent", "bulk_received", "vectors"), 0)}
    ],
}
"""A status as `/status` tells it, of a node with one peer: it has every series that there is."""

_OPEN_LABELS = {"peer", "node", "network", "recipe"}
"""Labels whose values are not the same in every network."""


def page() -> str:
    """The whole page, as it must be committed."""
    return "\n\n".join(_blocks()) + "\n"


def _blocks() -> Iterator[str]:
    yield "# Reference"
    yield (
        "Every command, setting, metric and file. Made of the code by `scripts/docs reference`; what a text lacks is "
        "mended there. Exit codes are 0 good, 1 the run failed, 2 a mistake in the settings, which the message names."
    )
    yield "## Commands"
    yield from _group("p2pnode", typer.main.get_command(app))
    yield "## Environment"
    yield _table(("variable", "what"), [(_code(passphrase.VARIABLE), _constant(passphrase, "VARIABLE"))])
    for title, (what, tables) in FILES.items():
        yield f"## {title}"
        yield what
        for name, settings in tables.items():
            yield from _settings(name, settings)
    yield "## Metrics"
    yield "`/metrics` on the admin address of a node ([how](watch.md#prometheus))."
    yield _table(("series", "type", "labels", "what"), list(_metrics()))
    yield "## A home"
    yield _line(Home)
    yield _table(("file", "what"), list(_files(Home)))
    yield "## The folder of a network"
    yield _line(NetworkFolder)
    yield _table(("file", "what"), list(_files(NetworkFolder)))
    yield "## Scripts"
    yield "For who works on p2pnode. Each makes the environment that it needs, once."
    yield _table(("script", "what"), [(_code(f"scripts/{file.name}"), _head(file)) for file in scripts()])
    yield from _brief("scripts/bench", measurements_command().commands)
    yield from _brief("scripts/soak", {"": soak_command()})
    yield "### scripts/fuzz"
    yield _table(("argument", "what"), list(_fuzzing()))


# Commands.


def _group(name: str, group: Any) -> Iterator[str]:  # noqa: ANN401  a typer.core.TyperGroup
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _group(f"{name} {word}", command)
        else:
            yield from _command(f"{name} {word}", command)


def _command(name: str, command: Any) -> Iterator[str]:  # noqa: ANN401  a typer.core.TyperCommand
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    text, _, examples = command.help.partition("\n\nExample")
    yield f"### {name}"
    yield _code(" ".join([name, *(_usage(one) for one in arguments), *(["[OPTIONS]"] if options else [])]))
    yield from (_prose(paragraph) for paragraph in text.split("\n\n"))
    commands = examples.partition("\n\n")[2]
    if commands:
        yield "\n".join(f"    {line.removeprefix('  ')}" for line in commands.splitlines() if line)
    if arguments:
        yield _table(("argument", "what"), [(_code(_placeholder(one)), _cell(one.help)) for one in arguments])
    if options:
        yield _table(("option", "default", "what"), [_option(one) for one in options])


def _usage(argument: Any) -> str:  # noqa: ANN401
    word = _placeholder(argument) + ("…" if argument.nargs == -1 else "")
    return word if argument.required else f"[{word}]"


def _placeholder(parameter: Any) -> str:  # noqa: ANN401
    return str(parameter.metavar or parameter.name.upper())


def _option(option: Any) -> tuple[str, str, str]:  # noqa: ANN401
    names = ", ".join(option.opts)
    given = names if option.is_flag else f"{names} {_kind(option)}"
    if option.required:
        default = "required"
    else:
        default = "" if option.default is None or option.is_flag or option.default == "" else _code(str(option.default))
    bounds = _range(option.min, option.max)
    meaning = _cell(option.help) + (f" {bounds[0].upper()}{bounds[1:]}." if bounds else "")
    return _code(given), default, meaning + (" May be repeated." if option.multiple else "")


def _kind(option: Any) -> str:  # noqa: ANN401
    annotation = option.type_descriptor.annotation
    kinds = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
    return next((word for kind, word in kinds.items() if str(kind) in str(annotation)), "TEXT")


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f"up to {most:g}"
    return f"from {least:g} on" if most is None else f"from {least:g} to {most:g}"


def measurements_command() -> Any:  # noqa: ANN401  a typer.core.TyperGroup
    """The command line that `scripts/bench` is."""
    for module in ("crypto", "flood", "link", "observe", "rounds", "rules", "scale", "silence"):
        importlib.import_module(f"{bench.__name__}.{module}")  # each registers its commands
    return typer.main.get_command(measurements)


def soak_command() -> Any:  # noqa: ANN401  a typer.core.TyperCommand
    """The command line that `scripts/soak` is."""
    alone = typer.Typer(add_completion=False)
    alone.command()(soak.command)
    return typer.main.get_command(alone)


def _brief(script: str, commands: Mapping[str, Any]) -> Iterator[str]:
    """Commands with their options, and what they are for."""
    yield f"### {script}"
    rows = []
    for name, command in commands.items():
        options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
        told = ", ".join(_code(one.opts[0]) for one in options)
        rows.append((_code(f"{script} {name}".strip()), told, _cell(command.help.split("\n\n")[0])))
    yield _table(("command", "options", "what"), rows)


def _fuzzing() -> Iterator[tuple[str, str]]:
    for action in guided.arguments()._actions:
        if action.dest != "help":
            yield _code(" ".join(action.option_strings) or action.dest.upper()), _cell(action.help or "")


def scripts() -> list[Path]:
    """What a person types; the modules beside them are theirs."""
    return sorted(file for file in (ROOT / "scripts").iterdir() if file.is_file() and not file.suffix)


def _head(script: Path) -> str:
    """The first line of its comment."""
    said = [line.removeprefix("# ") for line in script.read_text().splitlines()[1:] if line.startswith("# ")]
    return _cell(said[0])


# Settings.


def _settings(name: str, settings: type[Settings]) -> Iterator[str]:
    if name:
        yield f"### {' · '.join(f'`{table}`' for table in name.split(', '))}"
        yield _line(settings)
    meanings = documented(settings)
    fields = settings.model_json_schema()["properties"]
    required = {key for key, field in settings.model_fields.items() if field.is_required()}
    rows = [
        (_code(key), "required" if key in required else _default(key, field), _values(field), _cell(meanings[key]))
        for key, field in fields.items()
    ]
    yield _table(("key", "default", "values", "what"), rows)


def documented(settings: type[Settings]) -> dict[str, str]:
    """Key → meaning, as the "Args" of the class's docstring have it."""
    _, _, arguments = inspect.cleandoc(settings.__doc__ or "").partition("Args:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return {name: text[0].upper() + _prose(text[1:]) for name, text in found}


def _default(key: str, field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value is None or value in ({}, []) or isinstance(value, dict):
        return ""
    shown = _code(json.dumps(value, ensure_ascii=False))
    return f"{shown} ({value // 2**20} MiB)" if "bytes" in key else shown


def _values(field: Mapping[str, Any]) -> str:
    """What may stand there: the range of a number, the words that there are, or the remedy of a mistake."""
    kind = next((one for one in field.get("anyOf", ()) if one != {"type": "null"}), field)
    if "const" in kind or "enum" in kind:
        return ", ".join(_code(json.dumps(value)) for value in kind.get("enum", [kind.get("const")]))
    if "$ref" in kind:
        return "a table, see below"
    if kind["type"] == "array":
        return _cell(field["description"].removeprefix("choose "))
    if kind["type"] == "boolean":
        return "`true`, `false`"
    if kind["type"] in ("integer", "number"):
        return f"{kind['type']}{_bounds(kind)}"
    return _cell(field["description"].removeprefix("choose "))


def _bounds(kind: Mapping[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    told = ", ".join(f"{word} {_number(kind[key])}" for key, word in words.items() if key in kind)
    return f" {told}" if told else ""


def _number(value: float) -> str:
    return f"{int(value) if value == int(value) else value:,}"


# Metrics and files.


def _metrics() -> Iterator[tuple[str, str, str, str]]:
    for family in families(_SPECIMEN):
        names = dict.fromkeys(sample.name for sample in family.samples if not sample.name.endswith("_created"))
        labels: dict[str, dict[str, None]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                labels.setdefault(label, {})[value] = None
        told = (_label(label, values) for label, values in labels.items())
        yield ", ".join(map(_code, names)), family.type, "; ".join(told), _cell(family.documentation)


def _label(label: str, values: Iterable[str]) -> str:
    return _code(label) if label in _OPEN_LABELS else f"{_code(label)}: {', '.join(values)}"


def _files(folder: type[Home] | type[NetworkFolder]) -> Iterator[tuple[str, str]]:
    here = folder(Path())
    for name, member in vars(folder).items():
        if isinstance(member, property):
            yield _code(str(getattr(here, name))), _cell(inspect.getdoc(member) or "")


# Words.


def _constant(module: Any, name: str) -> str:  # noqa: ANN401
    """The docstring below a constant."""
    found = re.search(rf'^{name} = .*\n"""((?:.|\n)*?)"""', inspect.getsource(module), re.MULTILINE)
    assert found is not None, f"{name} has no docstring"
    return _cell(found[1])


def _line(of: type) -> str:
    """All that a docstring says before its sections."""
    return _prose(inspect.cleandoc(of.__doc__ or "").partition("\n\nArgs:")[0])


def _prose(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
