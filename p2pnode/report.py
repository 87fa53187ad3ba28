"""What a testnet or an experiment came to, as one file for a browser: nothing else is needed to look at it.

It is drawn by what draws the page of a node (`p2pnode.observe.page`), from what the runs left in their folder.
"""

import base64
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from p2pnode.errors import ConfigError
from p2pnode.experiment.store import FILE, Record
from p2pnode.experiment.summary import Spread
from p2pnode.home import Home, NetworkFolder
from p2pnode.observe.page import ASSETS, plotly_file

_ACROSS = "attack"
"""What an experiment's columns are, where it varies: the question is mostly which rule withstands which."""

_TOLD = ("recipe", "rule", _ACROSS)
"""What is told of each cell where it varies, though it may follow from the rest."""


def write(folder: Path, out: Path | None = None) -> Path:
    """Make the report of a folder; where it lies.

    Args:
        folder: of a testnet that ended, or of an experiment.
        out: the file to write; None for `report.html` in the folder. A report that is there is replaced.

    Raises:
        ConfigError: if the folder holds neither, or what it holds cannot be read, or the file not be written.
    """
    out = out or NetworkFolder(folder).report
    html = _page(_gathered(folder))
    try:
        out.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"out = {str(out)!r}: {error.strerror}. Remedy: choose another file") from error
    return out


def _gathered(folder: Path) -> dict[str, Any]:
    summary = NetworkFolder(folder).summary
    if summary.exists():
        return {"kind": "testnet", "title": folder.name, **_testnet(folder)}
    if (folder / FILE).exists():
        return {"kind": "experiment", "title": folder.name, **_experiment(folder / FILE)}
    raise ConfigError(
        f"{folder}: neither the {summary.name} of a testnet that ended nor the {FILE} of an experiment is in it. "
        f"Remedy: give the --out of one of them"
    )


# A testnet.


def _testnet(folder: Path) -> dict[str, Any]:
    summary = _read(NetworkFolder(folder).summary)
    honest = [node["name"] for node in summary["honest"]]
    histories = {}
    for name in honest:
        home = Home(folder / name)
        if home.history.exists():  # a node that was killed left none
            histories[name] = _read(home.history)
    return {"summary": summary, "histories": histories}


def _read(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}. Remedy: give a folder that can be read") from error
    except ValueError as error:
        raise ConfigError(f"{file}: no JSON ({error}). Remedy: run the testnet anew") from error
    if not isinstance(told, dict):
        raise ConfigError(f"{file}: no table. Remedy: run the testnet anew")
    return told


# An experiment.


def _experiment(file: Path) -> dict[str, Any]:
    """The cells, each with its accuracies over the seeds; a cell is what all but the seed have in common."""
    records = _records(file)
    flat = [_flat(record.trial) for record in records]
    names = sorted({name for trial in flat for name in trial})
    unlike = [name for name in names if len({trial.get(name, "–") for trial in flat}) > 1]
    varied = _telling(flat, [name for name in unlike if name != "seed"])
    across = _ACROSS if _ACROSS in varied else (varied[-1] if varied else "")
    cells: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record, trial in zip(records, flat, strict=True):
        down = ", ".join(f"{name} {trial[name]}" for name in varied if name != across and name in trial)
        cells[down, trial.get(across, "")].append(record)
    return {
        "setting": {name: flat[0][name] for name in names if name not in unlike} if flat else {},
        "across": across,
        "cells": [_cell(down, column, found) for (down, column), found in sorted(cells.items())],
    }


def _telling(flat: Sequence[Mapping[str, str]], varied: list[str]) -> list[str]:
    """Those of the settings that tell the cells apart, without what follows from them: who lies, if an attack is."""

    def cells(names: Sequence[str]) -> int:
        return len({tuple(trial.get(name) for name in names) for trial in flat})

    telling = varied
    for name in varied:
        others = [other for other in telling if other != name]
        if name not in _TOLD and cells(others) == cells(telling):
            telling = others
    return telling


def _records(file: Path) -> list[Record]:
    """The last good record of each trial, as they are kept."""
    kept = {}
    for line in file.read_bytes().splitlines():
        try:
            record = Record.model_validate_json(line)
        except ValidationError:
            continue  # a damaged line, of a trial that is run again
        kept[record.key] = record
    return list(kept.values())


def _flat(trial: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The settings by dotted names, as texts."""
    flat: dict[str, str] = {}
    for name, value in trial.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            flat[prefix + name] = ", ".join(map(str, value)) or "none"
        else:
            flat[prefix + name] = f"{value:g}" if isinstance(value, float) else str(value)
    return flat


def _cell(down: str, column: str, records: Sequence[Record]) -> dict[str, Any]:
    results = [record.outcome for record in records if record.outcome is not None]
    return {
        "down": down,
        "column": column,
        "seeds": len(results),
        "failed": len(records) - len(results),
        "mean": _pair(Spread.of([result.mean for result in results])),
        "worst": _pair(Spread.of([result.worst for result in results])),
        "curves": [result.curve for result in results],
    }


def _pair(spread: Spread | None) -> tuple[float, float | None] | None:
    return None if spread is None else (spread.mean, spread.std)


# The file.


def _page(data: Mapping[str, Any]) -> str:
    """The page with all that it needs in it, and a policy by which a browser runs these scripts alone."""
    plotly = plotly_file()
    scripts = [plotly] if plotly is not None and plotly.exists() else []
    texts = [file.read_text(encoding="utf-8") for file in (*scripts, ASSETS / "draw.js", ASSETS / "report.js")]
    hashes = " ".join(f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts)
    parts = {
        "POLICY": f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:",
        "STYLE": (ASSETS / "page.css").read_text(encoding="utf-8"),
        "DATA": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),  # no text in it ends the element
        "SCRIPTS": "\n".join(f"<script>{text}</script>" for text in texts),
    }
    frame = (ASSETS / "report.html").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda found: parts[found[1]], frame)
