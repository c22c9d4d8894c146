"""Figures from records alone; `svg` and `write_figure` draw them in our style.

The colours are Okabe and Ito's, which the colour-blind can tell apart.
"""

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias

import numpy as np

from denature.core.files import atomic_path, write_text
from denature.core.record import ExampleRecord, Record
from denature.core.text import printable
from denature.data.png import from_png
from denature.report.kinds import answers_of
from denature.report.summary import Row, Summary
from denature.report.tooltips import add_tips, titled
from denature.report.words import learned, marked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
SKY, AMBER, BLACK = "#56B4E9", "#E69F00", "#000000"

PALETTE = (BLUE, ORANGE, GREEN, PINK, GREY, SKY, AMBER, BLACK)
"""Colours of the first line of a figure, the second, and so on (Okabe and Ito's, and a grey)."""

COLOURS = {"none": GREY, "normal": BLUE, "nasty": ORANGE}

HALF = (4.3, 3.1)
"""Inches of half a page's width; letters keep 9 pixels on a screen of 390."""


STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: searchable, small, in the reader's own font
    "svg.hashsalt": "denature",
    "text.parse_math": False,  # names of classes are no formulas
    "text.usetex": False,
}

P = ParamSpec("P")

Draw: TypeAlias = Callable[[], "Figure | None"]
"""A figure that is still to be drawn."""


def svg(draw: "Callable[P, Figure | None]", *args: P.args, **kwargs: P.kwargs) -> str:
    """A figure in our style as an <svg> element, the same for the same data; empty for none."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = draw(*args, **kwargs)
        if figure is None:
            return ""
        add_tips(figure)
        _make_legible(figure)
        return _svg(figure)


def _svg(figure: "Figure") -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = printable(buffer.getvalue(), keep="\n\t")  # of tooltips
    return titled(text[text.index("<svg") :])


def _make_legible(figure: "Figure") -> None:
    """Show control characters in names, and let logarithmic axes alone write formulas: powers."""
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter, LogFormatter

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        formatter = axis.get_major_formatter()
        if isinstance(formatter, FuncFormatter):  # as that of ticks with names
            formatter.func = partial(_printed, formatter.func)
        if isinstance(formatter, LogFormatter):
            for label in [*axis.get_majorticklabels(), *axis.get_minorticklabels()]:
                label.set_parse_math(True)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(printable(text.get_text(), keep="\n"))


def _printed(format_tick: Callable[..., str], *place: Any) -> str:
    return printable(format_tick(*place), keep="\n")


def write_figure(stem: Path, draw: Draw) -> str:
    """Draw in our style into stem.svg and stem.png; returns the <svg> element, empty for none."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = draw()
        if figure is None:
            return ""
        add_tips(figure)
        _make_legible(figure)
        text = _svg(figure)
        with atomic_path(stem.with_name(f"{stem.name}.png")) as path:
            figure.savefig(path, format="png", dpi=200, bbox_inches="tight")
    write_text(stem.with_name(f"{stem.name}.svg"), text)
    return text


def accuracies(summary: Summary) -> "Figure | None":
    """Each student's accuracy with its interval, by the source that it learned from."""
    rows = list(reversed(summary.students))
    if len(rows) < 2:  # the table says as much
        return None
    figure = new_figure(7.2, 0.6 + 0.34 * len(rows))
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        found = row.accuracy
        value, low, high = 100 * found.value, 100 * found.low, 100 * found.high
        colour = COLOURS.get(row.teacher, GREEN)
        marker = "s" if row.answers == "labels" else "o"
        axes.plot([low, high], [place, place], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(value, place, marker, color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axes.set_xlabel("accuracy on the test split, % (95 % interval)")
    axes.grid(axis="x", color="#ddd", linewidth=0.7)
    return figure


def _name(row: Row) -> str:
    name = f"{row.net}, {learned(row)}" + (f" ({row.note})" if row.note else "")
    return marked(name, row.chosen_on_test)


MOST_PANELS = 16
"""Images whose answers are drawn, at most."""


def logit_responses(normal: Record, nasty: Record, *, temperature: float) -> "Figure | None":
    """Answers of two teachers to the same test images: probabilities at `temperature`."""
    others = {example.sample: example for example in nasty.examples}
    own = {example.sample: example for example in normal.examples}
    pairs = [(a, others[sample]) for sample, a in own.items() if sample in others][:MOST_PANELS]
    if not pairs:
        return None
    assert normal.data is not None
    classes = normal.data.classes
    lines = (len(pairs) + 1) // 2
    figure = new_figure(7.4, 1.15 * lines + 0.4)
    grid = figure.add_gridspec(lines, 4, width_ratios=(1, 3.6, 1, 3.6), wspace=0.3, hspace=0.5)
    highest = 0.0
    panels = []
    for number, (a, b) in enumerate(pairs):
        line, side = number % lines, number // lines
        picture = figure.add_subplot(grid[line, 2 * side])
        if a.png is not None:
            picture.imshow(from_png(a.png), cmap="gray", interpolation="nearest")
        picture.set_axis_off()
        picture.set_title(f"{classes[a.label]}", fontsize=8, pad=3)
        axes = figure.add_subplot(grid[line, 2 * side + 1])
        shown = _strongest(a, b)
        places = np.arange(len(shown))
        for offset, example, colour, name in ((-0.2, a, BLUE, "normal"), (0.2, b, ORANGE, "nasty")):
            values = _softmax(example.logits, temperature)[shown]
            highest = max(highest, float(values.max()))
            axes.bar(places + offset, values, 0.4, color=colour, label=f"{name} teacher")
        axes.set_xticks(places, [classes[k] for k in shown], fontsize=7)
        panels.append(axes)
    for axes in panels:
        axes.set_ylim(0, min(1.0, 1.1 * highest))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.0))
    figure.supylabel(f"probability at temperature {temperature:g}", fontsize=8, x=0.05)
    figure.supxlabel("class", fontsize=8, y=0.02)
    return figure


def _strongest(a: ExampleRecord, b: ExampleRecord) -> np.ndarray:
    """All classes up to ten, else the ten of largest probability for either teacher."""
    if len(a.logits) <= 10:
        return np.arange(len(a.logits))
    most = np.maximum(_softmax(a.logits, 1.0), _softmax(b.logits, 1.0))
    return np.sort(np.argsort(-most)[:10])


def _softmax(logits: Sequence[float], temperature: float) -> np.ndarray:
    scaled = np.array(logits) / temperature
    weights = np.exp(scaled - scaled.max())
    return np.asarray(weights / weights.sum())


def training_curves(records: Sequence[Record]) -> "Figure | None":
    """Accuracy by epoch, a thin line per run: on the test split if known for all, else training."""
    from matplotlib.ticker import MaxNLocator

    drawn = [record for record in records if record.history]
    if not drawn:
        return None
    on_test = all(any(e.test_accuracy is not None for e in r.history) for r in drawn)
    panels: dict[str, list[Record]] = defaultdict(list)
    for record in drawn:
        panels[record.net.name].append(record)
    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure = new_figure(7.2, 2.5 * lines)
    shown: dict[str, Any] = {}
    for place, (net, members) in enumerate(sorted(panels.items())):
        axes = figure.add_subplot(lines, columns, place + 1)
        for record in members:
            name, colour, dashes = _line_style(record)
            points = {
                e.epoch: e.test_accuracy if on_test else e.train_accuracy for e in record.history
            }
            points = {epoch: value for epoch, value in points.items() if value is not None}
            [shown[name]] = axes.plot(
                list(points),
                [100 * value for value in points.values() if value is not None],
                color=colour,
                linestyle=dashes,
                linewidth=1,
            )
        axes.set_title(net, fontsize=9)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        if place % columns == 0:
            axes.set_ylabel(f"{'test' if on_test else 'training'} accuracy, %")
        axes.grid(color="#eee", linewidth=0.7)
    figure.tight_layout()
    # Above the panels: within them the legend would lie over lines.
    figure.legend(list(shown.values()), list(shown), fontsize=7, ncols=3, loc="lower center",
                  bbox_to_anchor=(0.5, 1.0))  # fmt: skip
    return figure


def _line_style(record: Record) -> tuple[str, str, Any]:
    teacher = record.inputs.get("teacher")
    if record.kind == "nasty":
        return "the nasty teacher itself", PINK, "-"
    if record.victim is not None:
        return f"from a victim's {answers_of(record)}", GREEN, "-"
    if teacher is None:
        return "from true labels", GREY, "-"
    colour = COLOURS.get(teacher.kind, GREEN)
    if answers_of(record) == "labels":
        return f"from {teacher.kind} teacher, labels only", colour, (0, (2, 1.5))
    if answers_of(record) == "synthetic":
        return f"from {teacher.kind} teacher, without data", colour, (0, (5, 1.5))
    return f"from {teacher.kind} teacher", colour, "-"


def new_figure(width: float, height: float) -> "Figure":
    # The Figure alone, without pyplot: no global state, no display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))
