"""Plots: every number and label of the table is on them, where it belongs, and can be read."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from p2pnode.experiment import plot
from p2pnode.experiment.grid import key_of
from p2pnode.experiment.store import Record
from p2pnode.experiment.summary import rows
from tests.trials import RULES, experiment, learned

PNG = b"\x89PNG\r\n\x1a\n"


def summed_up(asked, failed=None, **changes):
    records = {}
    for trial in asked.trials:
        outcome = None if trial.attack == failed else replace(learned(trial), **changes)
        records[key_of(trial)] = Record.of(trial, outcome, None if outcome else "no")
    return rows(asked, records)


@pytest.fixture
def asked(tmp_path):
    return experiment(tmp_path, RULES)


def texts(axes):
    """(column, row) → what stands there."""
    return {(round(text.get_position()[0]), round(text.get_position()[1])): text.get_text() for text in axes.texts}


def labels(axis):
    return [label.get_text() for label in axis]


def test_each_cell_stands_at_its_row_and_column_with_its_number(asked):
    table = summed_up(asked)
    panels = plot.heat_map(asked, table).axes
    assert [axes.get_title() for axes in panels] == [
        "mean accuracy, %",
        "worst honest accuracy, %",
        "points below the reference",
    ]
    columns, lines = labels(panels[0].get_xticklabels()), labels(panels[0].get_yticklabels())
    assert columns == ["none", "alie", "sign-flip"]
    assert lines == ["median", "trimmed-mean"]
    for axes, value, factor in zip(panels, ("mean", "worst", "gap"), (100, 100, 1), strict=True):
        shown = texts(axes)
        for row in (row for row in table if row.cell.kind == "grid"):
            at = columns.index(row.cell.choices["attack"]), lines.index(row.cell.choices["rule"])
            spread = getattr(row, value)
            assert shown[at] == f"{factor * spread.mean:z.1f}\n±{factor * spread.std:.1f}"
            assert axes.images[0].get_array()[at[1], at[0]] == pytest.approx(factor * spread.mean)


def test_the_title_tells_the_setting(asked):
    assert plot.heat_map(asked, summed_up(asked)).get_suptitle() == f"rules\n{asked.setting}"


def test_a_failed_cell_says_so(asked):
    panel = plot.heat_map(asked, summed_up(asked, failed=("alie",))).axes[0]
    assert [texts(panel)[1, row] for row in (0, 1)] == ["failed", "failed"]
    assert np.ma.is_masked(panel.images[0].get_array()) or np.isnan(panel.images[0].get_array()[0, 1])


def test_without_a_reference_there_are_two_panels(tmp_path):
    asked = experiment(tmp_path, RULES.partition("[reference]")[0])
    assert len(plot.heat_map(asked, summed_up(asked)).axes) == 2


def test_further_keys_that_vary_stand_with_the_rows_so_that_nothing_is_averaged(tmp_path):
    asked = experiment(
        tmp_path, RULES.replace("[grid]", "[plot]\ncolumns = 'attack'\n[grid]\nlr = [0.1, 0.5]\nf = [2]")
    )
    assert labels(plot.heat_map(asked, summed_up(asked)).axes[0].get_yticklabels()) == [
        "0.1, rule median",
        "0.1, rule trimmed-mean",
        "0.5, rule median",
        "0.5, rule trimmed-mean",
    ]


@pytest.mark.parametrize("accuracy", [0.0, 0.1, 0.3, 0.5, 0.55, 0.6, 0.8, 1.0])
def test_numbers_stand_out_from_their_background(asked, accuracy):
    """The contrast that WCAG 2 asks of text, 4.5."""
    for axes in plot.heat_map(asked, summed_up(asked, mean=accuracy, worst=accuracy)).axes:
        image = axes.images[0]
        background = image.cmap(image.norm(image.get_array()[0, 0]))[:3]
        lighter, darker = sorted((luminance(to_rgb(axes.texts[0].get_color())), luminance(background)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def luminance(colour):
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def test_curves_have_a_panel_for_each_column_and_a_colour_for_each_row(asked):
    table = summed_up(asked)
    figure = plot.curves(asked, table)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["none", "alie", "sign-flip"]
    for axes in panels:
        solid = [line for line in axes.lines if line.get_linestyle() == "-"]
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert len(solid) == len(dashed) == 3  # median, trimmed mean and the reference
        assert len({line.get_color() for line in solid}) == 3
        for mean, worst in zip(solid, dashed, strict=True):
            assert mean.get_color() == worst.get_color()
            assert (worst.get_ydata() <= mean.get_ydata()).all()
            assert list(mean.get_xdata()) == [0, 10, 20]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "median",
        "trimmed-mean",
        "reference",
        "mean of the honest",
        "worst of the honest",
    ]


def test_a_curve_is_the_mean_over_seeds(asked):
    (axes, *_), row = plot.curves(asked, summed_up(asked)).axes, summed_up(asked)[0]
    own = [line for line in axes.lines if line.get_linestyle() == "-"][1]
    assert own.get_ydata()[-1] == pytest.approx(np.mean([result.mean for result in row.results.values()]))


def test_many_rows_have_as_many_colours(tmp_path):
    asked = experiment(tmp_path, f'name = "x"\n[grid]\nlr = {[step / 10 for step in range(1, 13)]}')
    colours = {line.get_color() for line in plot.curves(asked, summed_up(asked)).axes[0].lines}
    assert len(colours) == 12


def test_plots_are_written_where_there_is_something_to_draw(asked, tmp_path):
    paths = plot.write(asked, summed_up(asked), tmp_path)
    assert [path.name for path in paths] == ["heatmap.png", "curves.png"]
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 10_000
        width, height = (int.from_bytes(content[at : at + 4]) for at in (16, 20))
        assert 1000 < width < 4000
        assert 300 < height < 2000
    assert plot.write(asked, summed_up(asked, curve=[]), tmp_path) == paths[:1]
    assert plot.write(asked, rows(asked, {}), tmp_path) == []


@pytest.mark.parametrize("text", ['name = "x"', 'name = "x"\n[grid]\nnodes = [5, 7]\nseed = [1, 2]'])
def test_fewer_than_two_keys_that_vary_can_be_drawn_too(tmp_path, text):
    asked = experiment(tmp_path, text)
    assert len(plot.write(asked, summed_up(asked), tmp_path)) == 2
