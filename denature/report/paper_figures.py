"""Figures of the paper's experiments, to be written by `figures.write_figure`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from denature.report.cells import ALONE, TEACHER, TableCell
from denature.report.figures import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "os^DvPX*"
"""A shape for each row, so that rows of one colour, and all rows without colour, are told apart."""


def _colour(row: str) -> str:
    """Colour of a row; the same kind of row has the same colour in all figures."""
    if row.startswith(ALONE):
        return GREY
    return ORANGE if "nasty" in row else BLUE


def _looks(cells: Sequence[TableCell]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each row."""
    rows = dict.fromkeys(cell.row for cell in cells)
    return {row: (_colour(row), MARKERS[n % len(MARKERS)]) for n, row in enumerate(rows)}


def curves(cells: Sequence[TableCell], *, axis: str) -> "Figure":
    """Accuracy against the knob, a panel for each network, bands over seeds."""
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys(cell.column for cell in cells))
    figure = Figure(figsize=(2.6 * len(columns) + 0.6, 2.7))
    grid = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(grid, columns, strict=True):
        for row, (colour, marker) in _looks(cells).items():
            own = sorted(
                (c for c in cells if (c.row, c.column) == (row, column)), key=lambda c: c.x or 0
            )
            if not own:
                continue
            xs = [cell.x for cell in own]
            axes.plot(xs, [100 * c.accuracy.value for c in own], color=colour, linewidth=1.4,
                      marker=marker, markersize=4, label=row)  # fmt: skip
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


def bars(cells: Sequence[TableCell]) -> "Figure":
    """Each network's accuracy by the source of its training, with intervals and recalled values."""
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys(cell.column for cell in cells))
    columns.sort(key=lambda column: column != TEACHER)
    looks = _looks(cells)
    rows = list(looks)
    figure = Figure(figsize=(7.4, 0.5 + (0.16 * len(rows) + 0.22) * len(columns)))
    axes = figure.add_subplot()
    for place, column in enumerate(columns):
        for cell in (cell for cell in cells if cell.column == column):
            y = place + (rows.index(cell.row) - (len(rows) - 1) / 2) * 0.8 / len(rows)
            (colour, marker), found = looks[cell.row], cell.accuracy
            axes.plot([100 * found.low, 100 * found.high], [y, y], color=colour, linewidth=2)
            axes.plot(100 * found.value, y, marker, color=colour, markersize=5)
            if cell.recalled is not None:
                axes.plot(cell.recalled, y, "x", color=colour, markersize=5)
    for row, (colour, marker) in looks.items():
        axes.plot([], [], marker, color=colour, markersize=5, label=row)
    if any(cell.recalled is not None for cell in cells):
        axes.plot([], [], "x", color="black", markersize=5, label="paper, recalled")
    axes.set_yticks(range(len(columns)), columns)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy on the test split, % (95 % interval)")
    axes.grid(axis="x", color="#ddd", linewidth=0.7)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
