"""A theft as a page: scores of the clones against queries and money."""

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from denature.core.record import Record
from denature.core.stats import Estimate
from denature.extract.theft import BudgetLevel, Theft
from denature.report.figures import BLUE, GREY, HALF, ORANGE, new_figure, training_curves
from denature.report.page import Page, Plot, Table
from denature.report.words import BEST_ON_TEST, percent, share_of_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

INTERVALS = (
    "Intervals (95 %) cover other starts of clones on the same answers and other test images "
    "together; of one clone, other test images alone."
)

CLASSES = (
    "Accuracy: share of right answers on the test split. Fidelity: share of test images on which "
    f"clone and victim answer the same class. {INTERVALS}"
)

LANDMARKS = (
    "Error: mean distance from the true places on the test split, axis by axis, as a share of the "
    f"picture's side. Distance: the same from the victim's answers. {INTERVALS}"
)


TOO_GOOD = (
    "The clones' epochs were chosen by the test images, which no thief has: their numbers are "
    "better than a thief's."
)


def page(theft: Theft, records: Sequence[Record]) -> Page:
    """Scores of the clones against queries and money."""
    return Page(
        title=f"Model extraction: {_model(theft.target)}",
        summary=summary(theft),
        scope=theft.scope,
        date=theft.date,
        about=about(theft),
        differs="Query only services that you are allowed to query.",
        verdict=verdict_on_theft(theft),
        blocks=(
            Table(heading="Clones by budget", lines=theft_table(theft), note=note(theft)),
            *_curves(theft),
            Plot(
                heading="Training of the clones",
                name="training-curves",
                draw=partial(training_curves, records),
                caption="One line per clone, by epoch.",
            ),
        ),
    )


LEARNED = (
    "Queries are those that a clone learned from; the others of its budget measured fidelity, "
    "which a thief can leave out."
)


def note(theft: Theft) -> str:
    """Explanation of the table."""
    measures = LANDMARKS if theft.kind == "landmarks" else CLASSES
    parts = [measures, *[LEARNED] * (not theft.fidelity_extra), *[TOO_GOOD] * theft.chosen_on_test]
    return " ".join(parts)


def _spell(theft: Theft, measured: Estimate) -> str:
    return share_of_side(measured) if theft.kind == "landmarks" else percent(measured)


def _measures(theft: Theft) -> tuple[str, str]:
    return ("Error", "Distance") if theft.kind == "landmarks" else ("Accuracy", "Fidelity")


def theft_table(theft: Theft) -> list[list[str]]:
    """Header and lines: a line for each budget."""
    priced = theft.price is not None
    best = f" ({BEST_ON_TEST})" if theft.chosen_on_test else ""
    head = ["Queries", "Answers", *(f"{name} %{best}" for name in _measures(theft)), "Clones"]
    lines = [head[:1] + ["US $"] * priced + head[1:]]
    for level in theft.levels:
        cost = [f"{level.money:,.2f}"] if level.money is not None else []
        scores = [_spell(theft, level.accuracy), _spell(theft, level.fidelity)]
        lines.append([f"{level.spent:,}", *cost, f"{level.answers:,}", *scores, str(level.seeds)])
    return lines


def summary(theft: Theft) -> str:
    """The largest theft in a sentence."""
    last = theft.levels[-1]
    cost = "" if last.money is None else f" for US $ {last.money:,.2f}"
    name = _measures(theft)[0].lower()
    return (
        f"{last.spent:,} queries{cost} make a clone of {name} {_spell(theft, last.accuracy)} %; "
        f"the model's is {_spell(theft, theft.victim_accuracy)} %."
    )


def verdict_on_theft(theft: Theft) -> list[str]:
    """Findings of the table, and the cost of the theft."""
    last, victim = theft.levels[-1], _spell(theft, theft.victim_accuracy)
    cost = "" if last.money is None else f" (US $ {last.money:,.2f})"
    own, like = _spell(theft, last.accuracy), _spell(theft, last.fidelity)
    if theft.kind == "landmarks":
        gets = (
            f"whose places are off by {own} % of the picture's side, where the victim's are by "
            f"{victim} %, and lie {like} % from the victim's."
        )
    else:
        gets = (
            f"that is right on {own} % of the test images, where the victim is on {victim} % of "
            f"{theft.victim_accuracy.n:,} of them, and says the same as the victim on {like} %."
        )
    speed = theft.answers_per_second
    pace = "" if speed is None else f", at {speed:,.0f} answers a second"
    purpose = (
        "measured the victim, and how far clones agree with it, on "
        f"{theft.victim_accuracy.n:,} test images."
    )
    lost = theft.lost + theft.measuring_lost
    every = theft.spent + theft.measuring
    paid = "" if theft.price is None else f" (US $ {every * theft.price:,.2f})"
    in_all = (
        f"In all {theft.spent:,} queries were spent{pace}; {theft.measuring:,} more, on a "
        f"budget of their own, {purpose}"
        if theft.fidelity_extra
        else f"In all {every:,} queries were spent{paid}: {theft.spent:,} to "
        f"learn from{pace}, and {theft.measuring:,} that {purpose}"
    )
    return [
        f"{last.spent:,} queries{cost} make a clone ({theft.net}) {gets}",
        in_all,
        *[f"{lost:,} of these queries were spent without an answer."] * (lost > 0),
        *[TOO_GOOD] * theft.chosen_on_test,
    ]


def about(theft: Theft) -> str:
    """Description of the theft, in two sentences."""
    repeats = "" if theft.repeats == 1 else f", each {theft.repeats} times"
    return (
        f"The model ({_model(theft.target)}) was queried with images of {theft.pool}, chosen "
        f"{_how(theft.choose)}{repeats}; it showed {_shown(theft)}. A fresh clone ({theft.net}) "
        "was trained for each budget on the first so many answers, without a true label, and "
        f"measured on {theft.test}."
    )


def _model(target: str) -> str:
    """A victim in words; the identity of a local run states network, digest and kind."""
    found = re.fullmatch(r"(\S+) ([0-9a-f]{16}) (?:logits|probabilities|label|landmarks)", target)
    return target if found is None else f"a run of {found[1]} with digest {found[2]}"


def _how(choose: str) -> str:
    return {"random": "at random", "both": "by uncertainty and k-center"}.get(
        choose, f"by {choose}"
    )


def _shown(theft: Theft) -> str:
    return {"label": "labels"}.get(theft.kind, theft.kind)


def _curves(theft: Theft) -> list[Plot]:
    """Accuracy and fidelity side by side, for landmarks error and distance."""
    about = f"{'the' if theft.price is None else 'money and the'} number of queries"
    accuracy, fidelity = (name.lower() for name in _measures(theft))
    return [
        Plot(
            heading="Scores against queries" + ("" if theft.price is None else " and money"),
            name=accuracy,
            draw=partial(curve, theft, accuracy),
            caption=f"Clones' {accuracy} against {about}, with 95 % intervals. Dashed: the victim.",
            alt=f"Clones' {accuracy} against {about}. {_said(theft, accuracy)}",
            half=True,
        ),
        Plot(
            name=fidelity,
            draw=partial(curve, theft, fidelity),
            caption=f"{fidelity.capitalize()}: clones against the victim's answers, with 95 % "
            "intervals.",
            alt=f"Clones' {fidelity} against {about}. {_said(theft, fidelity)}",
            half=True,
        ),
    ]


def _scores(theft: Theft, measure: str) -> list[Estimate]:
    own = measure in ("accuracy", "error")
    return [level.accuracy if own else level.fidelity for level in theft.levels]


def _said(theft: Theft, measure: str) -> str:
    """The curve's points, for readers who do not see it."""
    pairs = zip(theft.levels, _scores(theft, measure), strict=True)
    return "; ".join(f"{level.spent:,} queries: {_spell(theft, e)} %" for level, e in pairs) + "."


def curve(theft: Theft, measure: str) -> "Figure":
    """A score of the clones against queries, and against money where prices are known."""
    figure = new_figure(*HALF)
    axes = figure.add_subplot()
    own, victim = measure in ("accuracy", "error"), theft.victim_accuracy
    _draw(axes, theft, _scores(theft, measure), BLUE if own else ORANGE, "clone")
    if own:
        axes.axhspan(100 * victim.low, 100 * victim.high, color=GREY, alpha=0.15, linewidth=0)
        axes.axhline(100 * victim.value, color=GREY, linestyle="--", linewidth=1.2, label="victim")
        axes.legend(fontsize=7, loc="best")
    unit = "picture's side" if theft.kind == "landmarks" else "test images"
    axes.set_ylabel(f"{measure}, % of the {unit}")
    figure.tight_layout()
    return figure


def _draw(axes: "Axes", theft: Theft, scores: Sequence[Estimate], colour: str, name: str) -> None:
    levels: list[BudgetLevel] = theft.levels
    xs = [level.spent for level in levels]
    axes.plot(xs, [100 * score.value for score in scores], color=colour, marker="o", markersize=4,
              linewidth=1.4, label=name)  # fmt: skip
    axes.fill_between(xs, [100 * score.low for score in scores],
                      [100 * score.high for score in scores],
                      color=colour, alpha=0.18, linewidth=0)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(xs, [f"{x:,}" for x in xs])
    axes.minorticks_off()
    axes.set_xlabel("queries")
    axes.grid(color="#eee", linewidth=0.7)
    if price := theft.price:
        money = axes.secondary_xaxis(
            "top", functions=(partial(_times, price), partial(_times, 1 / price))
        )
        money.set_xlabel("US $", fontsize=7)
        money.set_xticks([x * price for x in xs], [f"{x * price:,.2f}" for x in xs], fontsize=7)
        money.minorticks_off()


def _times(factor: float, values: "ArrayLike") -> "np.ndarray":
    return np.asarray(values) * factor
