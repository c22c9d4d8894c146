"""Flatness as a page: accuracy and loss around the weights, loss surfaces, sensitivity."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from denature.core.record import Record
from denature.core.stats import Difference, Estimate, less
from denature.report.figures import PALETTE, new_figure
from denature.report.page import Page, Plot, Table
from denature.robust.flatness import Flatness

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTE = (
    "Weights are changed by random directions in which each filter is as long as its own; "
    "the size is that share of its length, intervals are over directions and images. A minimum is "
    "one of the training loss: accuracy, loss and curvature under such changes are those of "
    "training images without augmentation, by the loss that the network was trained with. Kept: "
    "the share of the training accuracy above chance that is left under such a change; of a "
    "network that fits its images less, less can fall. Losses of "
    "different kinds or temperatures differ in scale; accuracy does not. Curvature: the Hessian's "
    "largest eigenvalue of that loss. Sensitivity, on test images: mean Frobenius norm of the "
    "Jacobian with respect to the image, of logits and of probabilities at temperature 1."
)

ABOUT = (
    "Is the minimum flatter, and do answers follow the image less? Accuracy is independent of the "
    "scale of logits; losses, curvature and the sensitivity of logits depend on that scale."
)


LOSS = "training loss, nats"
SHARES = "shares of each filter"


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSurface:
    """Training loss on a plane through the weights of one network."""

    places: tuple[float, ...]
    """Coordinates, in shares of each filter."""
    losses: tuple[tuple[float, ...], ...]
    """Training loss at each pair of coordinates, in nats."""


class FlatnessEntry(NamedTuple):
    """One network on the page."""

    flatness: Flatness
    places: tuple[float, ...]
    losses: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatnessResult:
    """Flatness of all networks, in the order of the arguments."""

    result_type: ClassVar[str] = "flatness"
    networks: tuple[Flatness, ...]
    surfaces: tuple[LossSurface, ...]
    """Loss surface of each network."""
    scope: str = ""
    """Scope and permission of the test, as stated by the caller."""
    date: str = ""
    """Day on which the comparison ended, in UTC; empty in results of an earlier version."""

    @property
    def entries(self) -> list[FlatnessEntry]:
        return [
            FlatnessEntry(flatness, surface.places, np.asarray(surface.losses))
            for flatness, surface in zip(self.networks, self.surfaces, strict=True)
        ]


def page(result: FlatnessResult, records: Sequence[Record]) -> Page:
    """Accuracy and loss around the weights, the loss on a line and on a plane."""
    entries = result.entries
    first = entries[0].flatness
    sentences = verdict_on_flatness(entries)
    return Page(
        title="Flatness",
        scope=result.scope,
        date=result.date,
        summary=f"{sentences[0].partition('. ')[0]}.",
        verdict=sentences,
        about=ABOUT,
        differs=f"{first.samples} training samples for the weights and as many test samples for "
        f"the images, {first.directions} directions, seed {first.seed}.",
        blocks=(
            Table(heading="The networks", lines=flatness_table(entries), note=NOTE),
            Plot(
                heading="Around the weights",
                name="around",
                draw=partial(around, entries),
                caption="Training accuracy and loss against the size of a random change of the "
                "weights, with 95 % intervals over directions and images.",
            ),
            Plot(
                name="line",
                draw=partial(lines, entries),
                caption="Training loss on a line through the weights.",
                half=True,
            ),
            Plot(
                name="surfaces",
                draw=partial(surfaces, entries),
                caption="Training loss on a plane through the weights, in one scale.",
            ),
        ),
    )


def verdict_on_flatness(entries: Sequence[FlatnessEntry]) -> list[str]:
    """Each network against the first one, by the two measures that no scale of logits moves."""
    first, *others = (entry.flatness for entry in entries)
    size = first.sizes[len(first.sizes) // 2]
    if not others:
        return [
            f"{first.run}: with weights moved by {size:g} it keeps {_percent(first.kept)} % of its "
            "training accuracy above chance. Alone it is neither flat nor sharp: name another "
            "network to compare with."
        ]
    return [
        f"{other.run} against {first.run}: {_word_on_minimum(other, first)}. With weights moved by "
        f"{size:g} it keeps {_percent(other.kept)} % of its training accuracy above chance, the "
        f"other {_percent(first.kept)} %, a difference of "
        f"{_points(less(other.kept, first.kept))} points; {_word_on_answers(other, first)}."
        for other in others
    ]


def _word_on_minimum(other: Flatness, first: Flatness) -> str:
    apart = less(other.kept, first.kept)
    if apart.high < 0:
        return "a sharper minimum"
    return "a flatter minimum" if apart.low > 0 else "not settled whether the minimum is flatter"


def _word_on_answers(other: Flatness, first: Flatness) -> str:
    apart = less(other.confidence_sensitivity, first.confidence_sensitivity)
    if apart.low > 0:
        return "its probabilities follow the image more"
    if apart.high < 0:
        return "its probabilities follow the image less"
    return "whether its probabilities follow the image less is not settled"


def _points(apart: Difference) -> str:
    return f"{100 * apart.value:+.1f} [{100 * apart.low:+.1f}, {100 * apart.high:+.1f}]"


def flatness_table(entries: Sequence[FlatnessEntry]) -> list[list[str]]:
    """Header and lines: a line for each network."""
    middle = len(entries[0].flatness.sizes) // 2
    size = entries[0].flatness.sizes[middle]
    lines = [
        ["Network", "Training loss", "Training accuracy %", f"Moved by {size:g}, %",
         "Kept %", "Curvature", "d logits / d image", "d probabilities / d image"],
    ]  # fmt: skip
    for entry in entries:
        flatness = entry.flatness
        lines.append(
            [
                flatness.run,
                flatness.loss_is,
                _percent(flatness.accuracy[0]),
                _percent(flatness.accuracy[middle]),
                _percent(flatness.kept),
                f"{flatness.curvature:.3g}",
                _number(flatness.sensitivity),
                _number(flatness.confidence_sensitivity),
            ]
        )
    return lines


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _number(mean: Estimate) -> str:
    return f"{mean.value:.3g} [{mean.low:.3g}, {mean.high:.3g}]"


def _scale(axes: "Axes", losses: Sequence[float]) -> None:
    """Logarithmic, except for losses that fall below 0, as a nasty teacher's does.

    Intervals may reach to 0 and leave the picture: values set the axis.
    """
    from matplotlib.ticker import LogLocator

    low, high = min(losses), max(losses)
    if low > 0:
        axes.set_yscale("log", subs=[])
        axes.set_ylim(low / 2, high * 2)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")


def around(entries: Sequence[FlatnessEntry]) -> "Figure | None":
    """Accuracy and loss against the size of a change of the weights."""
    figure = new_figure(7.2, 2.8)
    for place, (measure, times) in enumerate((("accuracy", 100), ("loss", 1))):
        axes = figure.add_subplot(1, 2, place + 1)
        for colour, entry in zip(cycle(PALETTE), entries, strict=False):
            values: Sequence[Estimate] = getattr(entry.flatness, measure)
            sizes = entry.flatness.sizes
            axes.plot(sizes, [times * e.value for e in values], "o-", markersize=3, color=colour,
                      label=entry.flatness.run)  # fmt: skip
            low, high = ([times * getattr(e, end) for e in values] for end in ("low", "high"))
            axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel(f"change of the weights, {SHARES}")
        axes.set_ylabel("training accuracy, %" if measure == "accuracy" else LOSS)
        axes.grid(color="#ddd", linewidth=0.7)
    _scale(axes, [e.value for entry in entries for e in entry.flatness.loss])
    figure.tight_layout()
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, ncols=2, loc="lower center",
                  bbox_to_anchor=(0.5, 1.0))  # fmt: skip
    return figure


def lines(entries: Sequence[FlatnessEntry]) -> "Figure | None":
    """The loss on a line through the weights: the middle row of each map."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(4.2, 2.7)
    axes = figure.add_subplot()
    for colour, entry in zip(cycle(PALETTE), entries, strict=False):
        middle = entry.losses[len(entry.losses) // 2]
        axes.plot(entry.places, middle, color=colour, linewidth=1.5, label=entry.flatness.run)
    _scale(
        axes, [float(loss) for entry in entries for loss in entry.losses[len(entry.losses) // 2]]
    )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"one direction, {SHARES}")
    axes.set_ylabel(LOSS)
    axes.grid(color="#ddd", linewidth=0.7)
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def surfaces(entries: Sequence[FlatnessEntry]) -> "Figure | None":
    """The loss on a plane through the weights, one map for each network, in one scale."""
    from matplotlib.colors import LogNorm, Normalize

    figure = new_figure(2.6 * len(entries) + 0.6, 2.7)
    low = min(float(entry.losses.min()) for entry in entries)
    high = max(float(entry.losses.max()) for entry in entries)
    # A nasty teacher's loss falls below 0, and that of a network that fits its data is 0.
    low, spaced, norm = (
        (low, np.linspace, Normalize) if low < 0 else (max(low, 1e-4), np.geomspace, LogNorm)
    )
    high = max(high, 2 * low, 1e-4)
    for place, entry in enumerate(entries):
        axes = figure.add_subplot(1, len(entries), place + 1)
        drawn = axes.contourf(
            entry.places, entry.places, entry.losses.clip(low, high),
            levels=spaced(low, high, 14), norm=norm(low, high), cmap="viridis",
        )  # fmt: skip
        axes.set_aspect("equal")
        axes.set_xlabel(f"one direction, {SHARES}", fontsize=7)
        axes.set_ylabel("another direction" if place == 0 else "", fontsize=7)
        axes.set_title(entry.flatness.run, fontsize=7)
    figure.tight_layout()
    figure.colorbar(drawn, ax=figure.axes, label=LOSS, format="%.2g", shrink=0.8)
    return figure
