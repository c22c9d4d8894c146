"""Figures of the paper's experiments, to be written by `figures.write_figure`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from denature.report.experiment import TEACHER, Cell
from denature.report.figures import BLUE, GREEN, GREY, ORANGE, PINK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = {BLUE: "o", ORANGE: "s", GREY: "^", PINK: "D", GREEN: "v"}
"""Shape as well as colour tells series apart."""


def colour_of(row: str) -> str:
    """The same colour for the same kind of row everywhere."""
    if row.startswith("alone"):
        return GREY
    return ORANGE if "nasty" in row else BLUE


def curves(cells: Sequence[Cell], *, axis: str) -> "Figure":
    """Accuracy against the knob, a panel for each network, bands over seeds."""
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys(cell.column for cell in cells))
    figure = Figure(figsize=(2.6 * len(columns) + 0.6, 2.7))
    grid = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(grid, columns, strict=True):
        for row in dict.fromkeys(cell.row for cell in cells):
            own = sorted(
                (c for c in cells if (c.row, c.column) == (row, column)), key=lambda c: c.x or 0
            )
            if not own:
                continue
            colour = colour_of(row)
            xs = [cell.x for cell in own]
            axes.plot(xs, [100 * c.accuracy.value for c in own], color=colour, linewidth=1.4,
                      marker=MARKERS[colour], markersize=4, label=row)  # fmt: skip
            axes.fill_between(xs, [100 * c.accuracy.low for c in own],
                              [100 * c.accuracy.high for c in own], color=colour, alpha=0.18,
                              linewidth=0)  # fmt: skip
        axes.set_title(column, fontsize=9)
        axes.set_xlabel(axis)
        axes.grid(color="#eee", linewidth=0.7)
        axes.legend(fontsize=7, loc="best")
    grid[0].set_ylabel("accuracy on the test split, %\n(band: 95 % interval)")
    figure.tight_layout()
    return figure


def bars(cells: Sequence[Cell]) -> "Figure":
    """Each network's accuracy by whom it learned from, with intervals and recalled values."""
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys(cell.column for cell in cells))
    columns.sort(key=lambda column: column != TEACHER)
    rows = list(dict.fromkeys(cell.row for cell in cells))
    figure = Figure(figsize=(7.4, 0.5 + (0.16 * len(rows) + 0.22) * len(columns)))
    axes = figure.add_subplot()
    for place, column in enumerate(columns):
        for cell in (cell for cell in cells if cell.column == column):
            y = place + (rows.index(cell.row) - (len(rows) - 1) / 2) * 0.8 / len(rows)
            colour, found = colour_of(cell.row), cell.accuracy
            axes.plot([100 * found.low, 100 * found.high], [y, y], color=colour, linewidth=2)
            axes.plot(100 * found.value, y, MARKERS[colour], color=colour, markersize=5)
            if cell.recalled is not None:
                axes.plot(cell.recalled, y, "x", color=colour, markersize=5)
    for row in rows:
        colour = colour_of(row)
        axes.plot([], [], MARKERS[colour], color=colour, markersize=5, label=row)
    if any(cell.recalled is not None for cell in cells):
        axes.plot([], [], "x", color="black", markersize=5, label="paper, recalled")
    axes.set_yticks(range(len(columns)), columns)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy on the test split, % (95 % interval)")
    axes.grid(axis="x", color="#ddd", linewidth=0.7)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
