"""Figures of the paper's experiments, to be written by `figures.write_figure`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from denature.report.cells import ALONE, TEACHER, TableCell
from denature.report.figures import BLUE, GREY, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

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
    columns = list(dict.fromkeys(cell.column for cell in cells))
    wide = min(len(columns), 4)
    tall = -(-len(columns) // wide)
    figure = new_figure(min(7.4, 2.6 * wide + 0.6), 2.5 * tall)
    grid = figure.subplots(tall, wide, sharey=True, squeeze=False).ravel()
    looks, shown = _looks(cells), {}
    for axes, column in zip(grid, columns, strict=False):
        for row, look in looks.items():
            own = [cell for cell in cells if (cell.row, cell.column) == (row, column)]
            if own:
                shown[row] = _curve(axes, sorted(own, key=lambda cell: cell.x or 0), look)
        axes.set_title(column, fontsize=8)
        axes.set_xlabel(axis)
        axes.grid(color="#eee", linewidth=0.7)
    for axes in grid[len(columns) :]:
        axes.set_axis_off()
    for axes in grid[::wide]:
        axes.set_ylabel("accuracy on the test split, %\n(band: 95 % interval)")
    figure.tight_layout()
    # Above the panels: within them the legend would lie over lines.
    figure.legend(list(shown.values()), list(shown), fontsize=7, ncols=5, loc="lower center",
                  bbox_to_anchor=(0.5, 1.0))  # fmt: skip
    return figure


def _curve(axes: "Axes", cells: Sequence[TableCell], look: tuple[str, str]) -> "Line2D":
    (colour, marker), xs = look, [cell.x or 0.0 for cell in cells]
    value, low, high = (
        [100 * getattr(cell.accuracy, part) for cell in cells] for part in ("value", "low", "high")
    )
    [line] = axes.plot(xs, value, color=colour, linewidth=1.4, marker=marker, markersize=4,
                       label=cells[0].row)  # fmt: skip
    axes.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)
    return line


def bars(cells: Sequence[TableCell]) -> "Figure":
    """Each network's accuracy by the source of its training, with intervals and recalled values.

    A line for each place, below the name of its network: a legend of many rows tells none apart.
    """
    columns = list(dict.fromkeys(cell.column for cell in cells))
    columns.sort(key=lambda column: column != TEACHER)
    looks = _looks(cells)
    labels: list[str] = []
    heads: list[int] = []
    height = 0.5 + 0.17 * (len(cells) + len(columns))
    figure = new_figure(6.4, height)
    axes = figure.add_subplot()
    for column in columns:
        heads.append(len(labels))
        labels.append(column)
        for cell in (cell for cell in cells if cell.column == column):
            y, (colour, marker), found = len(labels), looks[cell.row], cell.accuracy
            labels.append(cell.row.removeprefix("of ") if column == TEACHER else cell.row)
            axes.plot([100 * found.low, 100 * found.high], [y, y], color=colour, linewidth=2)
            axes.plot(100 * found.value, y, marker, color=colour, markersize=5)
            if cell.recalled is not None:
                axes.plot(cell.recalled, y, "x", color=colour, markersize=5)
    if any(cell.recalled is not None for cell in cells):
        axes.plot([], [], "x", color="black", markersize=5, label="paper, recalled")
        figure.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    axes.set_yticks(range(len(labels)), labels)
    for head in heads:
        axes.yaxis.get_ticklabels()[head].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)  # downwards, and no mark lies on an edge
    axes.set_xlabel("accuracy on the test split, % (95 % interval)")
    axes.grid(axis="x", color="#ddd", linewidth=0.7)
    return figure
