"""Figures as SVG text, from records alone.

The colours are Okabe and Ito's, which the colour-blind can tell apart.
"""

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from denature.core.record import ExampleRecord, Record
from denature.report.summary import Row, Summary
from denature.report.words import learned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
COLOURS = {"none": GREY, "normal": BLUE, "nasty": ORANGE}


def accuracies(summary: Summary) -> str:
    """Each student's accuracy with its interval, by whom it learned from."""
    rows = list(reversed(summary.students))
    figure = _figure(7.2, 0.6 + 0.34 * len(rows))
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        value, low, high = (
            100 * x for x in (row.accuracy.value, row.accuracy.low, row.accuracy.high)
        )
        colour = COLOURS.get(row.teacher, GREEN)
        marker = "s" if row.answers == "labels" else "o"
        axes.plot([low, high], [place, place], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(value, place, marker, color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axes.set_xlabel("accuracy on the test split, % (95 % interval)")
    axes.grid(axis="x", color="#ddd", linewidth=0.7)
    return _svg(figure)


def _name(row: Row) -> str:
    return f"{row.net}, {learned(row)}" + (f" ({row.note})" if row.note else "")


def logit_responses(normal: Record, nasty: Record, *, temperature: float, count: int = 4) -> str:
    """What two teachers answer to the same test images: probabilities at `temperature`."""
    pairs = [(a, b) for a in normal.examples for b in nasty.examples if a.sample == b.sample][
        :count
    ]
    if not pairs:
        return ""
    assert normal.data is not None
    classes = normal.data.classes
    figure = _figure(7.2, 1.25 * len(pairs) + 0.5)
    grid = figure.add_gridspec(len(pairs), 2, width_ratios=(1, 6), wspace=0.12, hspace=0.35)
    for line, (a, b) in enumerate(pairs):
        picture = figure.add_subplot(grid[line, 0])
        picture.imshow(_image(a), cmap="gray", interpolation="nearest")
        picture.set_axis_off()
        picture.set_title(f"class {classes[a.label]}", fontsize=8)
        axes = figure.add_subplot(grid[line, 1])
        shown = _strongest(a, b)
        places = np.arange(len(shown))
        for offset, example, colour, name in ((-0.2, a, BLUE, "normal"), (0.2, b, ORANGE, "nasty")):
            values = _softmax(example.logits, temperature)[shown]
            axes.bar(places + offset, values, 0.4, color=colour, label=f"{name} teacher")
        axes.set_ylim(0, 1)
        last = line == len(pairs) - 1
        axes.set_xticks(places, [classes[k] for k in shown] if last or len(classes) > 10 else [])
        if line == 0:
            axes.legend(loc="upper right", frameon=False, ncols=2, bbox_to_anchor=(1, 1.45))
    figure.supylabel(f"probability at temperature {temperature:g}", fontsize=9, x=0.04)
    figure.supxlabel("class", fontsize=9, y=0.005)
    return _svg(figure)


def _strongest(a: ExampleRecord, b: ExampleRecord) -> np.ndarray:
    """All classes up to ten, else the ten on which the two teachers say most."""
    if len(a.logits) <= 10:
        return np.arange(len(a.logits))
    most = np.maximum(_softmax(a.logits, 1.0), _softmax(b.logits, 1.0))
    return np.sort(np.argsort(-most)[:10])


def _softmax(logits: Sequence[float], temperature: float) -> np.ndarray:
    scaled = np.array(logits) / temperature
    weights = np.exp(scaled - scaled.max())
    return np.asarray(weights / weights.sum())


def _image(example: ExampleRecord) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(example.png))))


def training_curves(records: Sequence[Record]) -> str:
    """Accuracy by epoch, a thin line per run: test accuracy where measured, else in training."""
    drawn = [record for record in records if record.history]
    if not drawn:
        return ""
    on_test = all(
        r.history[0].test_accuracy is not None
        or (len(r.history) > 1 and any(e.test_accuracy is not None for e in r.history))
        for r in drawn
    )
    panels: dict[str, list[Record]] = defaultdict(list)
    for record in drawn:
        panels[record.net.name].append(record)
    figure = _figure(7.2, 2.9)
    for place, (net, members) in enumerate(sorted(panels.items()), 1):
        axes = figure.add_subplot(1, len(panels), place)
        labelled: set[str] = set()
        for record in members:
            name, colour, dashes = _line_style(record)
            points = [
                (e.epoch, e.test_accuracy if on_test else e.train_accuracy)
                for e in record.history
                if not on_test or e.test_accuracy is not None
            ]
            axes.plot(
                [epoch for epoch, _ in points],
                [100 * (value or 0) for _, value in points],
                color=colour,
                linestyle=dashes,
                linewidth=1,
                label=None if name in labelled else name,
            )
            labelled.add(name)
        axes.set_title(net, fontsize=9)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{'test' if on_test else 'training'} accuracy, %" if place == 1 else "")
        axes.grid(color="#eee", linewidth=0.7)
        axes.legend(fontsize=7, frameon=False, loc="lower right")
    figure.tight_layout()
    return _svg(figure)


def _line_style(record: Record) -> tuple[str, str, Any]:
    teacher = record.inputs.get("teacher")
    if record.kind == "nasty":
        return "nasty teacher", PINK, "-"
    if teacher is None:
        return "true labels", GREY, "-"
    colour = COLOURS.get(teacher.kind, GREEN)
    if record.config["objective"]["answers"] == "labels":
        return f"{teacher.kind} teacher, labels only", colour, (0, (2, 1.5))
    return f"{teacher.kind} teacher", colour, "-"


def _figure(width: float, height: float) -> "Figure":
    # The Figure alone, without pyplot: no global state, no display.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        return Figure(figsize=(width, height), layout=None)


def _svg(figure: "Figure") -> str:
    """The figure as an <svg> element, the same bytes for the same figure."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    # Text stays text: searchable, small, and in the reader's own font.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "denature", "font.size": 8}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
