"""The clone of a nose detector as a page: the table, error against decimals, marked pictures."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from denature.core.record import Record
from denature.core.stats import Estimate, mean_over_seeds
from denature.data.png import from_png
from denature.extract.speed import Timing
from denature.report.figures import BLUE, GREEN, GREY, ORANGE, new_figure
from denature.report.marks import COLOUR_NAMES, COLOURS, Mark, marked, sheet
from denature.report.page import Page, Picture, Plot, Table
from denature.report.words import headline, share_of_side
from denature.report.words import points as of_side

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

NOTE = (
    "Errors: mean distance, axis by axis, as a share of the picture's side; of brightness and "
    "sharpness as a share of their range. From the service: from what it says of the test "
    "pictures. From people: from where people see the places. Intervals (95 %) cover other starts "
    "of clones and other test pictures together, of one clone other pictures alone; pictures of "
    "one person are alike, so the pictures' part is too narrow. Bands of the figure are over "
    "trials alone. No person in the test pictures is in those that the service or the thief "
    "learned from."
)

CHOSEN = (
    " Each start has the learning rate at which a first clone was closest to the service's answers "
    "on a tenth of the thief's pictures, held out for that."
)

ROUNDING = (
    "At -1 decimals every target is 0, and at 0 it is 0 or 1: such a clone can learn nothing, or "
    "on which side of the middle the nose is."
)

FRAME_MS = 300
"""Milliseconds of each epoch in the animation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoseRow:
    """A line of the table."""

    name: str
    target: str
    net: str = ""
    service: Estimate | None = None
    """Error against the service's answers."""
    people: Estimate | None = None
    """Error against the places that people marked."""
    parameters: int | None = None
    clones: int = 0
    lr: float | None = None
    """Learning rate of the clones, chosen by validation; None in results of an earlier version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoseTransfer:
    """What a pretrained backbone brings to clones of the nose."""

    name: str
    difference: Estimate
    """Error of the clones that start from it, less that of clones of the same network from scratch,
    paired by trial; over trials."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionPoint:
    """Errors of the nose by one clone of rounded answers."""

    decimals: int
    """Of the answers in training."""
    trial: int
    last: float
    """Error after the last epoch, from the unrounded answers to the test pictures."""
    best: float
    """Smallest such error after any measured epoch: selected on the test pictures."""
    people: float | None
    """Error from the nose that people marked, after the last epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoseTheft:
    """Queries, cost and speed of the theft."""

    victim: str
    queries: int
    answers: int
    tests: int
    unseen: int
    money: float | None
    dated: str
    clone: tuple[Timing, ...]
    service: tuple[Timing, ...]


NosePlaces: TypeAlias = tuple[tuple[float, float], ...]
"""The nose in each of some pictures, as fractions of width and height."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NosePictures:
    """Test pictures, and the noses that service, clone and people found in them."""

    pngs: tuple[str, ...]
    """PNG files in base64."""
    seen: Mapping[str, NosePlaces]
    """Noses by observer."""
    epochs: tuple[tuple[int, NosePlaces], ...]
    """Noses by the clone after each epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoseResult:
    """Errors and cost of the clones of a face service at one scale."""

    result_type: ClassVar[str] = "nose"
    scale: str
    differs: str
    rows: tuple[NoseRow, ...]
    trials: tuple[PrecisionPoint, ...]
    """Clones of rounded answers."""
    mean_place: Estimate
    """Error of the constant baseline that predicts the mean answer, of the nose."""
    theft: NoseTheft
    pictures: NosePictures
    transfers: tuple[NoseTransfer, ...] = ()
    """Starts from backbones; none in results of an earlier version."""


def page(result: NoseResult, records: Sequence[Record]) -> Page:
    """Table of the clones, their error against the decimals of the answers, marked pictures."""
    pictures = result.pictures
    shown = [
        Picture(
            heading="Noses on test pictures",
            name="marked.png",
            data=_encoded(_marked(pictures), "png"),
            caption=f"Places of the nose on test pictures, by {_coloured(pictures.seen)}.",
        )
    ]
    if len(pictures.epochs) > 1:
        shown.append(
            Picture(
                name="epochs.gif",
                data=_encoded(_animated(pictures), "gif"),
                caption=f"Places by {_coloured(('the service', 'its clone'))} after each epoch.",
            )
        )
    verdict = [
        *verdict_on_clones(result.rows, result.trials, result.mean_place, result.theft),
        *map(verdict_on_transfer, result.transfers),
    ]
    note = NOTE + CHOSEN * any(row.lr is not None for row in result.rows)
    return Page(
        title="A clone of a nose detector",
        summary=headline(verdict[1:]),
        about="A face service's nose detector, copied through its answers.",
        differs=result.differs,
        verdict=verdict,
        blocks=(
            Table(heading="The clones", lines=clone_table(result.rows), note=note),
            Plot(
                heading="Error against the decimals of the answers",
                name="precision",
                draw=partial(by_decimals, result.trials, result.mean_place),
                caption="Error of clones that learned from rounded answers; bands over trials.",
            ),
            *shown,
        ),
    )


def _coloured(names: Iterable[str]) -> str:
    """Names with the colours of their marks: letters in a picture shrink with it."""
    *others, last = (f"{n} ({c})" for n, c in zip(names, COLOUR_NAMES, strict=False))
    return f"{', '.join(others)} and {last}" if others else last


def clone_table(lines: Sequence[NoseRow]) -> list[list[str]]:
    """Header and lines."""
    rates = ["Rate"] * any(row.lr is not None for row in lines)
    measures = ["From the service %", "From people %"]
    cells = [["Learned", "Detector", "Network", *measures, "Weights", *rates, "Runs"]]
    for row in lines:
        errors = ["" if e is None else share_of_side(e) for e in (row.service, row.people)]
        weights = "" if row.parameters is None else f"{row.parameters:,}"
        rate = ["" if row.lr is None else f"{row.lr:g}"] * len(rates)
        runs = str(row.clones or "")
        cells.append([row.target, row.name, row.net, *errors, weights, *rate, runs])
    return cells


def verdict_on_clones(
    lines: Sequence[NoseRow], points: Sequence[PrecisionPoint], base: Estimate, theft: NoseTheft
) -> list[str]:
    """Findings of the table and the curve, and the cost of the theft."""
    cost = "" if theft.money is None else f" for US $ {theft.money:,.2f}"
    dated = f" ({theft.dated})" if theft.dated else ""
    unseen = f"; it saw no face in {theft.unseen:,}" if theft.unseen else ""
    sentences = [
        f"{theft.victim} was queried {theft.queries:,} times{cost}{dated}: about {theft.answers:,} "
        f"pictures to learn from and {theft.tests:,} to measure with{unseen}."
    ]
    plain = next(row for row in lines if row.name == "clone from scratch" and row.target == "nose")
    assert plain.service is not None
    sentences.append(
        f"A clone of {plain.parameters:,} weights sees the nose {share_of_side(plain.service)} % "
        "of the picture's side from where the service says it is; always answering the mean place "
        f"is {share_of_side(base)} % off."
    )
    sentences.append(_precision(points))
    if theft.clone:
        fastest = max(timing.images_per_second for timing in theft.clone)
        over = max((timing.images_per_second for timing in theft.service), default=None)
        beside = "" if over is None else f", the service {over:,.0f} a second over its wire"
        sentences.append(f"The clone answers about {fastest:,.0f} pictures a second here{beside}.")
    return sentences


def verdict_on_transfer(transfer: NoseTransfer) -> str:
    """Whether a backbone makes a better clone than its network does from random weights."""
    word = "no better and no worse beyond the interval"
    if transfer.difference.high < 0:
        word = "better"
    elif transfer.difference.low > 0:
        word = "worse"
    return (
        f"Clones {transfer.name}, are {word} than the same network from scratch: "
        f"{of_side(transfer.difference)} points of the side further from the service."
    )


def _precision(points: Sequence[PrecisionPoint]) -> str:
    """Number of decimals from which on the clones' mean error is within a tenth of the finest."""
    means = {
        decimals: float(np.mean([point.last for point in points if point.decimals == decimals]))
        for decimals in sorted({point.decimals for point in points})
    }
    finest = means[max(means)]
    harmless = [d for d in means if all(means[e] <= 1.1 * finest for e in means if e >= d)]
    below = [d for d in means if d < min(harmless)]
    worse = f"; at {below[-1]} it is {100 * means[below[-1]]:.2f} %" if below else ""
    count = sum(point.decimals == max(means) for point in points)
    trials = f"the mean of {count} trials" if count > 1 else "of one trial"
    least = f"{min(harmless)} decimal{'s' if min(harmless) != 1 else ''}"
    return (
        f"Learned from answers with {least} or more, its error, {trials}, is within a tenth of the "
        f"{100 * finest:.2f} % at {max(means)} decimals{worse}. {ROUNDING}"
    )


def by_decimals(points: Sequence[PrecisionPoint], base: Estimate) -> "Figure | None":
    """Error against the decimals of the answers, with bands over trials."""
    from matplotlib.ticker import LogLocator

    figure = new_figure(6.4, 3.4)
    axes = figure.add_subplot()
    decimals = sorted({point.decimals for point in points})

    def draw(name: str, colour: str, dashes: str, errors: Sequence[list[float]]) -> None:
        middle = [100 * float(np.mean(trials)) for trials in errors]
        axes.plot(decimals, middle, "o", linestyle=dashes, color=colour, label=name, markersize=4)
        if min(map(len, errors)) > 1:
            spans = [mean_over_seeds(trials) for trials in errors]
            low, high = ([100 * getattr(span, end) for span in spans] for end in ("low", "high"))
            axes.fill_between(decimals, low, high, color=colour, alpha=0.18, linewidth=0)

    groups = [[point for point in points if point.decimals == d] for d in decimals]
    draw("from the service, last epoch", BLUE, "-", [[p.last for p in group] for group in groups])
    best = [[p.best for p in group] for group in groups]
    draw("best epoch on the test pictures", ORANGE, "--", best)
    if all(point.people is not None for point in points):
        people = [[p.people for p in group if p.people is not None] for group in groups]
        draw("from people, last epoch", GREEN, ":", people)
    axes.axhline(100 * base.value, color=GREY, linewidth=1, linestyle="-.",
                 label="always the mean place")  # fmt: skip
    axes.set_yscale("log", subs=[])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(decimals)
    axes.set_xlabel("decimals of the answers that it learned from")
    axes.set_ylabel("error of the nose, % of the side")
    axes.grid(color="#ddd", linewidth=0.7)
    axes.legend(fontsize=7)
    return figure


def _pictures(show: NosePictures) -> "list[Image]":
    from PIL import Image

    return [Image.fromarray(from_png(png)) for png in show.pngs]


def _marked(show: NosePictures) -> "list[Image]":
    colours = dict(zip(show.seen, cycle(COLOURS), strict=False))
    sheets = []
    for number, picture in enumerate(_pictures(show)):
        marks = [
            Mark(name, colours[name], {"nose": (float(x), float(y))})
            for name, (x, y) in ((name, places[number]) for name, places in show.seen.items())
        ]
        sheets.append(marked(picture, marks, legend=False))
    return [sheet(sheets, columns=4, legend=list(colours.items()))]


def _animated(show: NosePictures) -> "list[Image]":
    """The clone's epochs over half of the pictures."""
    frames = []
    service = show.seen["the service"]
    for epoch, places in show.epochs:
        legend = [("the service", COLOURS[0]), (f"its clone after epoch {epoch}", COLOURS[1])]
        drawn = [
            marked(
                picture,
                [
                    Mark(name, colour, {"nose": (float(at[number][0]), float(at[number][1]))})
                    for (name, colour), at in zip(legend, (service, places), strict=True)
                ],
                legend=False,
            )
            for number, picture in enumerate(_pictures(show)[::2])
        ]
        frames.append(sheet(drawn, columns=4, legend=legend))
    return frames


def _encoded(frames: "Sequence[Image]", kind: str) -> bytes:
    """A picture, or several of the same colours as an animation."""
    from PIL.Image import Dither

    buffer = io.BytesIO()
    if len(frames) == 1:
        frames[0].save(buffer, kind)
        return buffer.getvalue()
    # One palette for all: each of its own takes half a second, and makes the file larger.
    first = frames[0].quantize()
    others = [frame.quantize(palette=first, dither=Dither.NONE) for frame in frames[1:]]
    first.save(buffer, kind, save_all=True, append_images=others, duration=FRAME_MS, loop=0)
    return buffer.getvalue()
