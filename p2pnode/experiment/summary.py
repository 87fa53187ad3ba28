"""An experiment's results summed up: one row for each cell, over its seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from p2pnode.experiment.grid import Cell, Experiment, key_of, shown
from p2pnode.experiment.store import Record, Result


@dataclass(frozen=True, slots=True)
class Spread:
    """Numbers of several seeds.

    Args:
        mean: their mean.
        std: their sample standard deviation; None for a single one.
    """

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """That of the values; None if there are none."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None) if values else None


@dataclass(frozen=True, slots=True)
class Row:
    """A cell and what came of it.

    Args:
        cell: the cell.
        results: seed → result, of the trials that have one.
        errors: seed → first line of the error, of those that failed.
        mean: mean final accuracy of the honest nodes, in [0, 1]; None if no trial has a result.
        worst: final accuracy of the worst honest node.
        gap: by how many points `mean` is below the reference's with the same seed, seed by seed; seeds that only one of
            them has do not count; None if there is none.
        violations: what guarantees did not hold, each once.
    """

    cell: Cell
    results: Mapping[int, Result]
    errors: Mapping[int, str]
    mean: Spread | None
    worst: Spread | None
    gap: Spread | None
    violations: tuple[str, ...]


def rows(experiment: Experiment, records: Mapping[str, Record]) -> list[Row]:
    """A row for each cell, in their order.

    Args:
        experiment: the cells.
        records: by key; those of other experiments do not matter.
    """
    return [_row(cell, records) for cell in experiment.cells]


def _row(cell: Cell, records: Mapping[str, Record]) -> Row:
    results: dict[int, Result] = {}
    errors: dict[int, str] = {}
    for seed, trial in cell.trials.items():
        record = records.get(key_of(trial))
        if record is not None and record.outcome is not None:
            results[seed] = record.outcome
        elif record is not None:
            errors[seed] = (record.error or "").partition("\n")[0]
    return Row(
        cell,
        results,
        errors,
        Spread.of([result.mean for result in results.values()]),
        Spread.of([result.worst for result in results.values()]),
        Spread.of(_gaps(cell, results, records)),
        tuple(dict.fromkeys(_violations(results.values()))),
    )


def _gaps(cell: Cell, results: Mapping[int, Result], records: Mapping[str, Record]) -> list[float]:
    """Seed by seed, in points: what all runs of one seed have in common, such as the data, cancels out."""
    gaps = []
    for seed, baseline in cell.baselines.items():
        reference = records.get(key_of(baseline))
        if seed in results and reference is not None and reference.outcome is not None:
            gaps.append(100 * (reference.outcome.mean - results[seed].mean))
    return gaps


def _violations(results: Iterable[Result]) -> Iterable[str]:
    return (result.violations for result in results if result.violations is not None)


def machine(experiment: Experiment, table: Sequence[Row]) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "name": experiment.name,
        "setting": experiment.setting,
        "trials": len(experiment.trials),
        "failed": sum(len(row.errors) for row in table),
        "cells": [
            {
                "kind": row.cell.kind,
                **{shown(key): value for key, value in {**row.cell.choices, **row.cell.besides}.items()},
                "seeds": list(row.results),
                "mean": _pair(row.mean),
                "worst": _pair(row.worst),
                "gap_points": _pair(row.gap),
                "seconds": round(sum(result.seconds for result in row.results.values()), 3),
                "violations": list(row.violations),
                "errors": {str(seed): error for seed, error in row.errors.items()},
            }
            for row in table
        ],
    }


def _pair(spread: Spread | None) -> dict[str, float | None] | None:
    return None if spread is None else {"mean": spread.mean, "std": spread.std}
