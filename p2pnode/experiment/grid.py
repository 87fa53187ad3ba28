"""An experiment file: TOML in, the cells of a grid and their trials out.

    name = "rules-digits"

    [base]                                # settings of every trial
    task = "digits"
    nodes = 13
    byzantine = 2

    [grid]                                # each with each, in this order, the last varying fastest
    rule = ["median", "trimmed-mean"]
    attack = ["alie", "sign-flip"]
    seed = [1, 2, 3]

    [reference]                           # the base, with these settings, is what the gap of a cell is to
    recipe = "dsgd"
    byzantine = 0

A cell is a choice of everything but the seed; it has one trial for each seed. `[[also]]` tables are further cells, each
the base with these settings. What is written `"default"` is left out, so that the recipe's or the task's own value is
taken. Keys of `options` are further choices of a recipe, and vary as all others: `options.gather = ["all", "quorum"]`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import blake2b
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from p2pnode.aggregation import rules
from p2pnode.byzantine import check_attacks
from p2pnode.errors import ConfigError
from p2pnode.learning import catalogue
from p2pnode.recipe import BROADCASTS, RECIPES, WIRES, Staleness, Wire, choose
from p2pnode.settings import Settings, check, load
from p2pnode.simulation.schedule import SCHEDULES
from p2pnode.simulation.trial import Trial
from protocols.committee import MEMBERS_MAX, Committee

NOBODY_LIES = "none"
"""The attack that is none."""

LEFT_OUT = "default"
"""The value that leaves a key out."""

TRIALS_MAX = 100_000
"""Trials of one experiment. A slip in a grid multiplies; the largest published one has 3,680."""

CURVE_POINTS = 20
"""Evaluations of a trial unless told otherwise."""

_SETTING = {
    "task": "{}",
    "recipe": "{}",
    "rule": "rule {}",
    "attack": "attack {}",
    "nodes": "n = {}",
    "byzantine": "{} lying",
    "f": "f = {}",
    "alpha": "α = {}",
    "steps": "{} steps",
}
"""What titles say of the settings that do not vary."""

_OPTIONS = "options"
_SEED = "seed"

Choices = dict[str, Any]
"""Settings as the file gives them, flat: `options.gather` is a key."""


class Options(Settings):
    """Further choices of a recipe; what is left out is the recipe's own.

    Args:
        gather: how many values are waited for: a quorum of n−f, or all.
        redundancy: how many members are not waited for, at least f; by default f.
        local_steps: gradients that are followed before a model is exchanged.
        placement: whose momentum it is: of one's own gradients (worker), or of the directions agreed on (update).
        wire: what vectors are rounded to when they are announced.
        staleness: 1 takes a step's gradient while the last step's models are exchanged; 0 does not.
    """

    gather: Literal["quorum", "all"] | None = Field(None, description="choose quorum or all")
    redundancy: Annotated[int, Field(ge=0, lt=MEMBERS_MAX)] | None = Field(
        None, description="choose how many members are not waited for, from f"
    )
    local_steps: Annotated[int, Field(ge=1, le=10**6)] | None = Field(None, description="choose at least 1")
    placement: Literal["worker", "update"] | None = Field(None, description="choose worker or update")
    wire: Wire | None = Field(None, description=f"choose one of {', '.join(WIRES)}")
    staleness: Staleness | None = Field(None, description="choose 0 or 1")


class TrialSettings(Settings):
    """One trial's settings, as `p2pnode testnet` has them; what is left out comes from the recipe or the task.

    Args:
        task: what is learned: a built-in task, or a plug-in's.
        recipe: what a step exchanges.
        nodes: n; the data are shared among all of them.
        byzantine: how many lie, if there is an attack: the last ones, and they collude.
        f: how many the recipe is told to tolerate; by default as many as lie, 0 for `dsgd`.
        attack: what the liars do, a list; `none` lets nobody lie.
        schedule: what the network does.
        rule: by what vectors are mixed: name, alias or pipeline of an aggregation rule.
        broadcast: by what they are broadcast.
        sub_rounds: of each averaging agreement; by default as many as the recipe's promise takes.
        options: further choices of the recipe.
        alpha: Dirichlet concentration of labels a node; left out, the data are split i.i.d.
        seed: of initial model, data split, batches, lies and schedule.
        steps: learning steps.
        local_batch: samples in a mini-batch of one node.
        momentum: Polyak's β, in m ← βm + (1−β)g.
        lr: the first step size.
        lr_decay_every: steps after which the step size is divided by 2, 3, …; 0 keeps it.
        clip: the largest norm of a gradient; a longer one is shortened to it. Left out, none is.
        device: where it trains.
        data_dir: the folder of the task's data files.
        evaluate_every: steps between two points of the curve; by default so many that it has 20.
        evaluate_samples: test samples that such a point is measured on; left out, all.
        beyond_the_bound: whether it runs also where no theorem covers it.
    """

    task: str = Field("digits", description="choose one that `p2pnode list tasks` shows")
    recipe: str = Field("trimmed", description="choose one that `p2pnode list recipes` shows")
    nodes: Annotated[int, Field(ge=1, le=MEMBERS_MAX)] = Field(7, description=f"choose from 1 to {MEMBERS_MAX}")
    byzantine: Annotated[int, Field(ge=0)] = Field(0, description="choose how many nodes lie, from 0")
    f: Annotated[int, Field(ge=0)] | None = Field(None, description="choose how many liars to tolerate, from 0")
    attack: str = Field(NOBODY_LIES, description=f"choose some that `p2pnode list attacks` shows, or {NOBODY_LIES}")
    schedule: str = Field("random", description=f"choose one of {', '.join(SCHEDULES)}")
    rule: str | None = Field(None, description="choose one that `p2pnode list rules` shows")
    broadcast: str | None = Field(None, description=f"choose one of {', '.join(BROADCASTS)}")
    sub_rounds: Annotated[int, Field(ge=1, le=64)] | None = Field(None, description="choose from 1 to 64")
    options: Options = Field(Options(), description="write a table of recipe options")
    alpha: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None, description="choose a positive Dirichlet concentration, or leave it out for i.i.d. data"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="choose an integer from 0")
    steps: Annotated[int, Field(ge=1, le=10**9)] | None = Field(None, description="choose at least 1")
    local_batch: Annotated[int, Field(ge=1, le=2**20)] | None = Field(None, description="choose at least 1 sample")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="choose 0 ≤ momentum < 1")
    lr: Annotated[float, Field(gt=0)] | None = Field(None, description="choose a positive step size")
    lr_decay_every: Annotated[int, Field(ge=0)] | None = Field(None, description="choose a number of steps, 0: never")
    clip: Annotated[float, Field(gt=0)] | None = Field(None, description="choose a largest norm of a gradient, above 0")
    device: str = Field("cpu", description="choose cpu, or cuda, or cuda:1")
    data_dir: str | None = Field(None, description="name the folder of the task's files")
    evaluate_every: Annotated[int, Field(ge=1)] | None = Field(None, description="choose a number of steps, from 1")
    evaluate_samples: Annotated[int, Field(ge=1)] | None = Field(None, description="choose how many test samples")
    beyond_the_bound: bool = Field(False, description="choose true or false")

    def trial(self) -> Trial:
        """The trial that these settings are.

        Where nobody lies there is no attack, and with no attack nobody lies: the same run under one key.

        Raises:
            ConfigError: for a name that is none, n and f that make no committee, or what no theorem covers.
        """
        attack = () if self.attack == NOBODY_LIES else tuple(name.strip() for name in self.attack.split(","))
        self._check_names(attack)
        task = catalogue.find(self.task)
        liars = self.byzantine if attack else 0
        f = self.f if self.f is not None else (0 if self.recipe == "dsgd" else self.byzantine)
        for key, count in (("byzantine", liars), ("f", f)):
            if count >= self.nodes:
                raise ConfigError(f"{key} = {count}: of {self.nodes} nodes one is honest. Remedy: choose fewer")
        if task.needs_data_dir and self.data_dir is None:
            raise ConfigError(f"data_dir is missing: {task.name} reads files from a folder. Remedy: add --data-dir")
        steps = self.steps or task.steps
        options = self.options.model_dump(exclude_none=True)
        self._check_theorem(liars, f, options)
        given = self.model_dump()
        given |= {
            "options": options,
            "attack": attack if liars else (),
            "byzantine": liars,
            "f": f,
            "rule": None if self.rule is None else rules.find(self.rule).name,
            "steps": steps,
            "data_dir": None if self.data_dir is None else Path(self.data_dir).resolve(),
            "evaluate_every": self.evaluate_every or max(1, steps // CURVE_POINTS),
        }
        return Trial(**given)

    def _check_theorem(self, liars: int, f: int, options: Mapping[str, Any]) -> None:
        """Refused here, it is refused before hours of other trials have passed."""
        remedy = "or set beyond_the_bound = true, to see it break"
        guarded = not self.beyond_the_bound
        if liars > f and guarded:
            raise ConfigError(f"byzantine = {liars}: more than f={f}. Remedy: choose fewer, or raise f, {remedy}")
        _check_choice(
            self.recipe, self.nodes, f, self.broadcast, self.rule, self.sub_rounds, tuple(options.items()), False
        )
        try:
            _check_choice(
                self.recipe, self.nodes, f, self.broadcast, self.rule, self.sub_rounds, tuple(options.items()), guarded
            )
        except ConfigError as error:
            raise ConfigError(f"{error}, {remedy}") from error

    def _check_names(self, attack: Sequence[str]) -> None:
        for key, name, known in (
            ("recipe", self.recipe, RECIPES),
            ("broadcast", self.broadcast, BROADCASTS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if name is not None and name not in known:
                raise ConfigError(f"{key} = {name!r}: no such {key}. Remedy: choose one of {', '.join(known)}")
        check_attacks(name for name in attack if name != "twins")


@cache
def _check_choice(
    recipe: str,
    nodes: int,
    f: int,
    broadcast: str | None,
    rule: str | None,
    sub_rounds: int | None,
    options: tuple[tuple[str, Any], ...],
    guarded: bool,
) -> None:
    """Whether there is such a recipe, and, where it is guarded, a theorem of it; asked of every seed anew."""
    choose(recipe, Committee(nodes, f), broadcast, rule, sub_rounds, guarded=guarded, **dict(options))


class Plot(Settings):
    """What the heat map's axes are; by default the first two keys of the grid that vary, the seed aside.

    Args:
        rows: the key down its side.
        columns: the key along its top.
    """

    rows: str | None = Field(None, description="name a key of [grid]")
    columns: str | None = Field(None, description="name another key of [grid]")


class ExperimentFile(Settings):
    """The tables of an experiment file; the settings in them are checked cell by cell.

    Args:
        name: of the experiment; results go to runs/NAME unless told otherwise.
        base: settings of every trial.
        grid: a list of values for each key that varies; each is tried with each.
        also: further cells: the base, with these settings.
        reference: the base with these settings is what gaps are taken to; its key `same` lists those in which it
            follows the cell that is compared with it.
        plot: what the heat map's axes are.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = Field(
        description="use lower-case letters, digits and hyphens, at most 63"
    )
    base: dict[str, Any] = Field({}, description="write a table of settings")
    grid: dict[str, Any] = Field({}, description="write a table of lists")
    also: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = Field((), description="write [[also]] tables")
    reference: dict[str, Any] | None = Field(None, description="write a table of settings")
    plot: Plot = Plot()


@dataclass(frozen=True, slots=True)
class Cell:
    """One choice of everything but the seed.

    Args:
        kind: where it is from: "grid", "also" or "reference".
        choices: key of the grid → what this cell has there, as people read it.
        besides: the same for what an `[[also]]` or `[reference]` table sets besides.
        trials: seed → trial.
        baselines: seed → the trial of the reference with that seed; empty where the file names no reference.
    """

    kind: str
    choices: Mapping[str, str]
    besides: Mapping[str, str]
    trials: Mapping[int, Trial]
    baselines: Mapping[int, Trial]

    @property
    def label(self) -> str:
        """The cell in a few words."""
        said = {**self.choices, **self.besides} if self.kind == "grid" else self.besides
        return ", ".join(f"{shown(key)} {value}" for key, value in said.items()) or self.kind


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a file asks for.

    Args:
        name: of the experiment.
        setting: the settings that all cells of the grid share, as people read them.
        cells: those of the grid in the file's order, then the further ones, then the references.
        rows, columns: the keys of the heat map's axes; None where fewer keys vary.
    """

    name: str
    setting: str
    cells: tuple[Cell, ...]
    rows: str | None
    columns: str | None

    @property
    def trials(self) -> list[Trial]:
        """All trials, each once, in order of cells and seeds."""
        return list({key_of(trial): trial for cell in self.cells for trial in cell.trials.values()}.values())


def canonical(trial: Trial) -> dict[str, Any]:
    """What a trial is, for JSON: all that is chosen, but not in which folder its data lie."""
    return {name: value for name, value in asdict(trial).items() if value is not None and name != "data_dir"}


def key_of(trial: Trial) -> str:
    """32 hexadecimal digits that name the trial: the hash of its canonical JSON."""
    text = json.dumps(canonical(trial), sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def read(file: Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment of a file.

    Args:
        file: TOML.
        overrides: settings that go before those of `[base]`, such as the folder of the data.

    Raises:
        ConfigError: naming the file, key, value, reason and remedy.
    """
    tables = load(ExperimentFile, file, "name an experiment file")
    try:
        return _Reader(file, tables, dict(overrides or {})).experiment()
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(file)) else f"{file}: {text}") from error


def shown(value: object) -> str:
    """A key or value as people read it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).removeprefix(f"{_OPTIONS}.")


class _Reader:
    """Makes cells of the tables of one file."""

    def __init__(self, file: Path, tables: ExperimentFile, overrides: Choices) -> None:
        self._file = file
        self._tables = tables
        self._base = _flat(tables.base) | overrides
        self._grid = _lists(_flat(tables.grid), self._base)
        self._seeds = self._grid.pop(_SEED, [self._base.get(_SEED, 0)])
        self._reference = None if tables.reference is None else _flat(tables.reference)
        self._same = self._shared_keys()
        self._cells: list[Cell] = []

    def experiment(self) -> Experiment:
        count = prod(map(len, self._grid.values())) * len(self._seeds)
        if count > TRIALS_MAX:
            raise ConfigError(f"[grid] has {count:,} trials, at most {TRIALS_MAX:,} are. Remedy: shorten its lists")
        for values in product(*self._grid.values()):
            own = dict(zip(self._grid, values, strict=True))
            self._add("grid", own, {})
        for table in self._tables.also:
            own = _flat(table)
            self._add("also", own, own)
        for own in self._references():
            self._add("reference", own, own)
        rows, columns = self._axes()
        return Experiment(self._tables.name, self._setting(), tuple(self._cells), rows, columns)

    def _add(self, kind: str, own: Choices, besides: Choices) -> None:
        choices = self._base | own
        seeds = [own[_SEED]] if _SEED in own else self._seeds
        trials = {seed: self._trial(choices | {_SEED: seed}) for seed in seeds}
        baselines = {}
        if self._reference is not None:
            shared = {key: choices[key] for key in self._same if key in choices}
            reference = self._base | self._reference | shared
            baselines = {seed: self._trial(reference | {_SEED: seed}) for seed in seeds}
        if kind != "grid":
            own = {key: _effective(key, next(iter(trials.values()))) for key in self._grid}
        has = {key: shown(own[key]) for key in self._grid}
        self._cells.append(Cell(kind, has, {key: shown(value) for key, value in besides.items()}, trials, baselines))

    def _references(self) -> list[Choices]:
        """One reference for each choice of the keys that it shares with the cells."""
        if self._reference is None:
            return []
        shared = [key for key in self._same if key in self._grid]
        lists = (self._grid[key] for key in shared)
        return [self._reference | dict(zip(shared, values, strict=True)) for values in product(*lists)]

    def _shared_keys(self) -> list[str]:
        """The keys in which a reference follows the cell that is compared with it."""
        if self._reference is None:
            return []
        if _SEED in self._reference:
            raise ConfigError("reference.seed: the reference runs with the seeds of the cells. Remedy: remove it")
        same = self._reference.pop("same", [])
        if not isinstance(same, list) or not all(isinstance(key, str) for key in same):
            raise ConfigError(f"reference.same = {same!r}: no list of keys. Remedy: write for example same = ['alpha']")
        for key in same:
            if key not in self._grid:
                raise ConfigError(
                    f"reference.same = {same!r}: {key} is no key of [grid]. Remedy: choose from {', '.join(self._grid)}"
                )
        return list(same)

    def _axes(self) -> tuple[str | None, str | None]:
        plot = self._tables.plot
        asked = {what: key for what, key in (("rows", plot.rows), ("columns", plot.columns)) if key is not None}
        by_name = {shown(key): key for key in self._grid} | {key: key for key in self._grid}
        for what, key in asked.items():
            if key not in by_name:
                known = ", ".join(self._grid) or "none is there"
                raise ConfigError(f"plot.{what} = {key!r}: no key of [grid]. Remedy: choose from {known}")
        chosen = {what: by_name[key] for what, key in asked.items()}
        if len(chosen) == 2 and chosen["rows"] == chosen["columns"]:
            raise ConfigError(f"plot.columns = {plot.columns!r}: the rows already. Remedy: choose another key")
        free = [key for key, values in self._grid.items() if len(values) > 1 and key not in chosen.values()]
        free += [key for key in self._grid if key not in free and key not in chosen.values()]
        for what in ("rows", "columns"):
            if what not in chosen and free:
                chosen[what] = free.pop(0)
        return chosen.get("rows"), chosen.get("columns")

    def _setting(self) -> str:
        trial = next(iter(self._cells[0].trials.values()))
        values = {key: _effective(key, trial) for key in _SETTING if key not in self._grid}
        if "byzantine" in values:
            values["byzantine"] = self._base.get("byzantine", 0)  # also where the first cell is without an attack
        parts = [_SETTING[key].format(shown(value)) for key, value in values.items() if value != LEFT_OUT]
        return ", ".join([*parts, f"{len(self._seeds)} seed{'s' if len(self._seeds) > 1 else ''}"])

    def _trial(self, choices: Choices) -> Trial:
        table: dict[str, Any] = {_OPTIONS: {}}
        for key, value in choices.items():
            if value == LEFT_OUT:
                continue
            if key.startswith(f"{_OPTIONS}."):
                table[_OPTIONS][key.removeprefix(f"{_OPTIONS}.")] = value
            else:
                table[key] = value
        return check(TrialSettings, table, self._file).trial()


def _effective(key: str, trial: Trial) -> object:
    """What a trial has, where its own table may say nothing of it."""
    if key == "attack":
        return ",".join(trial.attack) or NOBODY_LIES
    value = trial.options.get(shown(key)) if key.startswith(f"{_OPTIONS}.") else getattr(trial, key)
    return LEFT_OUT if value is None else value


def _flat(table: Mapping[str, Any]) -> Choices:
    """The table with the keys of `options` beside the others, in their order."""
    flat: Choices = {}
    for key, value in table.items():
        if key == _OPTIONS and isinstance(value, dict):
            flat |= {f"{_OPTIONS}.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat


def _lists(grid: Choices, base: Choices) -> dict[str, list[Any]]:
    """The grid, if each key has a list of different values there, and is not in the base as well."""
    for key, values in grid.items():
        where = f"grid.{key} = {values!r}"
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}: no list of values. Remedy: write a list, or move it to [base]")
        if len({repr(value) for value in values}) < len(values):
            raise ConfigError(f"{where}: a value stands there twice. Remedy: remove one of them")
        if key in base:
            raise ConfigError(f"{where}: in [base] as well. Remedy: keep it in one of the two")
    return grid
