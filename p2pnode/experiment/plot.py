"""An experiment drawn: heat maps of what each cell came to, and curves of how it got there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from p2pnode.experiment.grid import Experiment, shown
from p2pnode.experiment.summary import Row, Spread

HEAT_MAP, CURVES = "heatmap.png", "curves.png"

_DPI = 150
_UNKNOWN = "#dddddd"
_GAP_LEAST = 10.0
"""Points that the darkest colour of a gap stands for, at least: small gaps look small."""

_LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
"""Okabe and Ito's, told apart by the colour-blind too; but wine for their yellow, too bright for a line."""


Colour = str | tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Panel:
    """One heat map: its title, what it shows of a row, how, and in which colours."""

    title: str
    value: Callable[[Row], Spread | None]
    factor: float
    colours: str


_PANELS = (
    _Panel("mean accuracy, %", lambda row: row.mean, 100, "viridis"),
    _Panel("worst honest accuracy, %", lambda row: row.worst, 100, "viridis"),
    _Panel("points below the reference", lambda row: row.gap, 1, "magma_r"),
)


def write(experiment: Experiment, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw what there is to draw, as PNG.

    Args:
        experiment: what was run.
        rows: what came of its cells.
        folder: where to.

    Returns:
        The files; none if no trial has a result, no curves if there are none.
    """
    figures = {HEAT_MAP: heat_map(experiment, rows), CURVES: curves(experiment, rows)}
    written = []
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(folder / name, dpi=_DPI, bbox_inches="tight", pad_inches=0.15)
            written.append(folder / name)
    return written


def heat_map(experiment: Experiment, rows: Sequence[Row]) -> Figure | None:
    """A panel each for mean accuracy, worst honest accuracy and, where there is a reference, the gap to it.

    Cells of the grid only; further keys that vary stand with the rows, so that nothing is averaged but seeds.
    """
    grid = [row for row in rows if row.cell.kind == "grid"]
    if not any(row.results for row in grid):
        return None
    table = _arranged(experiment, grid)
    columns = list(dict.fromkeys(column for _, column in table))
    lines = list(dict.fromkeys(line for line, _ in table))
    panels = [panel for panel in _PANELS if any(panel.value(row) is not None for row in grid)]
    width = 0.75 * max(len(columns), 3) + 0.4
    labels = 0.085 * max(map(len, lines)) + 0.3
    figure = Figure(figsize=(len(panels) * (width + 0.5) + labels, 0.42 * len(lines) + 1.9), layout="constrained")
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(every, panels, strict=True):
        _draw_panel(axes, panel, table, lines, columns)
        axes.set_xlabel(shown(experiment.columns or ""))
    every[0].set_ylabel(shown(experiment.rows or ""))
    figure.suptitle(f"{experiment.name}\n{experiment.setting}", fontsize=10)
    return figure


def curves(experiment: Experiment, rows: Sequence[Row]) -> Figure | None:
    """Accuracy over steps, averaged over seeds: mean of the honest nodes solid, the worst dashed.

    A panel for each column of the heat map, a colour for each of its rows; the reference is grey, in every panel.
    """
    table = _arranged(experiment, [row for row in rows if row.cell.kind == "grid" and _curve(row) is not None])
    if not table:
        return None
    columns = list(dict.fromkeys(column for _, column in table))
    lines = list(dict.fromkeys(line for line, _ in table))
    colours = dict(zip(lines, _line_colours(len(lines)), strict=True))
    across = min(len(columns), 4)
    down = -(-len(columns) // across)
    figure = Figure(figsize=(3.2 * across + 2.2, 2.6 * down + 0.8), layout="constrained")
    every = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    others = [row for row in rows if row.cell.kind == "reference" and _curve(row) is not None]
    for axes, column in zip(every, columns, strict=False):
        for row in others:
            _draw_curve(axes, row, "#999999")
        for (line, at), row in table.items():
            if at == column:
                _draw_curve(axes, row, colours[line])
        axes.set_title(column, fontsize=9)
        axes.set(ylim=(0, 1.02), xlabel="step")
        axes.label_outer()
        axes.grid(alpha=0.25)
    for axes in every[len(columns) :]:
        axes.set_visible(False)
    for axes in every[::across]:
        axes.set_ylabel("test accuracy")
    _legend(figure, experiment, colours, reference=bool(others))
    figure.suptitle(f"{experiment.name}\n{experiment.setting}", fontsize=10)
    return figure


def _arranged(experiment: Experiment, grid: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """(label of the line, label of the column) → row, in the grid's order."""
    arranged = {}
    for row in grid:
        choices = row.cell.choices
        varied = [key for key in choices if key not in (experiment.rows, experiment.columns) and _varies(key, grid)]
        line = [choices[experiment.rows]] if experiment.rows else []
        line += [f"{shown(key)} {choices[key]}" for key in varied]
        arranged[", ".join(line), choices[experiment.columns] if experiment.columns else ""] = row
    return arranged


def _varies(key: str, grid: Sequence[Row]) -> bool:
    return len({row.cell.choices[key] for row in grid}) > 1


def _draw_panel(
    axes: Axes, panel: _Panel, table: Mapping[tuple[str, str], Row], lines: list[str], columns: list[str]
) -> None:
    values = np.full((len(lines), len(columns)), np.nan)
    for (line, column), row in table.items():
        if (spread := panel.value(row)) is not None:
            values[lines.index(line), columns.index(column)] = panel.factor * spread.mean
    colours = colormaps[panel.colours].with_extremes(bad=_UNKNOWN)
    top = 100.0 if panel.factor == 100 else max(_GAP_LEAST, float(np.nanmax(values)))
    scale = Normalize(0, top, clip=True)
    axes.imshow(values, cmap=colours, norm=scale, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(lines)), lines, fontsize=8)
    axes.set_title(panel.title, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(lines) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for (line, column), row in table.items():
        at = lines.index(line), columns.index(column)
        _annotate(axes, panel, row, at, _ink(colours, scale, values[at]))


def _annotate(axes: Axes, panel: _Panel, row: Row, at: tuple[int, int], ink: str) -> None:
    spread = panel.value(row)
    text = f"{panel.factor * spread.mean:z.1f}" if spread is not None else "failed" if row.errors else "–"
    if spread is not None and spread.std is not None:
        text += f"\n±{panel.factor * spread.std:.1f}"
    axes.text(at[1], at[0], text, ha="center", va="center", fontsize=7.5, color=ink, linespacing=0.95)


def _ink(colours: Colormap, scale: Normalize, value: float) -> str:
    """Black or white, whichever stands out more: by the background's relative luminance (WCAG 2)."""
    if np.isnan(value):
        return "black"
    channels = np.asarray(colours(scale(value))[:3])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def _curve(row: Row) -> np.ndarray | None:
    """(points, 3): step, mean and worst accuracy, averaged over the seeds at the steps that all of them have."""
    if not row.results:
        return None
    found = [{step: (mean, worst) for step, mean, worst in result.curve} for result in row.results.values()]
    steps = sorted(set.intersection(*map(set, found)))
    points = [(step, *np.mean([curve[step] for curve in found], axis=0)) for step in steps]
    return np.array(points) if points else None


def _draw_curve(axes: Axes, row: Row, colour: Colour) -> None:
    curve = _curve(row)
    assert curve is not None, "only rows with curves are drawn"
    axes.plot(curve[:, 0], curve[:, 1], color=colour, linewidth=1.3)
    axes.plot(curve[:, 0], curve[:, 2], color=colour, linewidth=0.9, linestyle="--")


def _line_colours(count: int) -> Sequence[Colour]:
    if count <= len(_LINE_COLOURS):
        return _LINE_COLOURS[:count]
    return [colormaps["turbo"](at) for at in np.linspace(0.05, 0.95, count)]


def _legend(figure: Figure, experiment: Experiment, colours: Mapping[str, Colour], *, reference: bool) -> None:
    handles = [Line2D([], [], color=colour, label=line or experiment.name) for line, colour in colours.items()]
    handles += [Line2D([], [], color="#999999", label="reference")] if reference else []
    handles += [
        Line2D([], [], color="#333333", linewidth=1.3, label="mean of the honest"),
        Line2D([], [], color="#333333", linewidth=0.9, linestyle="--", label="worst of the honest"),
    ]
    figure.legend(
        handles=handles, loc="outside right upper", fontsize=8, frameon=False, title=shown(experiment.rows or "")
    )
