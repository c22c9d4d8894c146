"""Robustness as a page: the table, curves against the budget, checks, smallest changes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from denature.core.checks import Check
from denature.core.files import write_text
from denature.core.record import Record
from denature.core.stats import Estimate
from denature.report.figures import BLUE, GREEN, GREY, ORANGE, PINK, new_figure, write_figure
from denature.report.html import render_robustness
from denature.report.words import CHOSEN_ON_TEST, marked, percent
from denature.robust.config import format_budget
from denature.robust.outcomes import EvaluationData
from denature.robust.summary import AttackResult, Robustness
from denature.robust.verdict import PLAIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, PINK, GREY, "#56B4E9", "#E69F00", "#000000")

NOTE = (
    "Robust: share of the samples that stay right, with its 95 % interval (Wilson). Worst: "
    "against all attacks that ran, at any smaller budget too; a change that any attack found "
    "counts in every norm that it fits. Each proposed change is checked in fp32, within [0, 1] and "
    "within the budget. Smallest: the mean distance of the adversarial examples."
)

PICTURES = 5
"""Samples in the figure of the smallest changes."""


class RobustnessEntry(NamedTuple):
    """One network on the page."""

    robustness: Robustness
    checks: Sequence[Check]
    word: str | None
    said: str | None
    evidence: EvaluationData


def table(entries: Sequence[RobustnessEntry]) -> list[list[str]]:
    """Header and lines: a line for each network and attack."""
    budgets = {
        norm: [format_budget(epsilon) for epsilon in values]
        for norm, values in entries[0].evidence.budgets.items()
    }
    middle = {norm: keys[len(keys) // 2] for norm, keys in budgets.items()}
    lines = [["Network", "Attack", "Norm", "Budget", "Robust %", "Smallest", "Not run", "Seconds"]]
    for entry in entries:
        measured = entry.robustness
        clean = marked(percent(measured.clean), measured.chosen_on_test)
        lines.append([measured.run, "none", "", "", clean, "", "", ""])
        for attack in measured.attacks:
            key = middle[attack.norm] if middle[attack.norm] in attack.robust else None
            key = key or next(iter(attack.robust), "")
            robust = percent(attack.robust[key]) if key else _not_run(attack)
            smallest = "" if attack.smallest is None else _distance(attack.smallest)
            lines.append(
                [
                    measured.run,
                    attack.name + (f" ({attack.note})" if attack.note else ""),
                    attack.norm,
                    key,
                    robust,
                    smallest,
                    str(attack.not_run or ""),
                    f"{attack.seconds:.1f}",
                ]
            )
        for norm, shares in measured.worst.items():
            if middle[norm] in shares:
                worst = percent(shares[middle[norm]])
                lines.append([measured.run, "worst", norm, middle[norm], worst, "", "", ""])
    return lines


def _not_run(attack: AttackResult) -> str:
    """Text in place of a share; an error by its first line."""
    if not attack.crashed:
        return "did not run"
    [first, *_] = attack.error.splitlines() or [""]
    return f"failed: {first[:80]}"


def _distance(measured: Estimate) -> str:
    return f"{measured.value:.3g} [{measured.low:.3g}, {measured.high:.3g}]"


def curves(entries: Sequence[RobustnessEntry]) -> "Figure | None":
    """Robust accuracy against the budget: plain gradients dashed, all attacks solid."""
    norms = [
        norm
        for norm in entries[0].evidence.budgets
        if any(entry.robustness.worst[norm] for entry in entries)
    ]
    if not norms:
        return None
    figure = new_figure(7.4, 2.7)
    for place, norm in enumerate(norms):
        axes = figure.add_subplot(1, len(norms), place + 1)
        for colour, entry in zip(COLOURS, entries, strict=False):
            clean = entry.robustness.clean
            shares = entry.robustness.worst[norm]
            worst = [clean, *shares.values()]
            at = [0.0, *(e for e in entry.evidence.budgets[norm] if format_budget(e) in shares)]
            axes.plot(at, [100 * e.value for e in worst], "o-", color=colour, markersize=3,
                      label=_name(entry.robustness.run))  # fmt: skip
            axes.fill_between(
                at, [100 * e.low for e in worst], [100 * e.high for e in worst],
                color=colour, alpha=0.15, linewidth=0,
            )  # fmt: skip
            if norm == "linf" and set(PLAIN) <= set(entry.evidence.everything):
                plain = [
                    100 * float(entry.evidence.robust(PLAIN, norm, e).mean())
                    for e in entry.evidence.budgets[norm]
                ]
                places = [0.0, *entry.evidence.budgets[norm]]
                axes.plot(places, [100 * clean.value, *plain], "--", color=colour, linewidth=1)
        axes.set_xlabel({"linf": "budget, linf", "l2": "budget, l2", "l0": "pixels"}[norm])
        axes.set_ylim(-3, 103)
        axes.grid(color="#ddd", linewidth=0.7)
        if place == 0:
            axes.set_ylabel("robust accuracy, %")
    figure.tight_layout()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=7
    )
    return figure


def _name(run: str) -> str:
    return "/".join(Path(run).parts[-2:])


def smallest_changes(entries: Sequence[RobustnessEntry], classes: Sequence[str]) -> "Figure | None":
    """Samples, and the smallest change in l2 that any attack found for each network."""
    right = np.logical_and.reduce([entry.evidence.right for entry in entries])
    places = np.flatnonzero(right)[:PICTURES]
    if not len(places):
        return None
    figure = new_figure(1.3 * len(places) + 0.6, 1.35 * (len(entries) + 1))
    grid = figure.add_gridspec(len(entries) + 1, len(places), wspace=0.1, hspace=0.35)
    for column, place in enumerate(places):
        first = entries[0].evidence
        axes = figure.add_subplot(grid[0, column])
        _draw(axes, first.images[place], classes[first.labels[place]])
        for row, entry in enumerate(entries):
            axes = figure.add_subplot(grid[row + 1, column])
            outcomes = entry.evidence.tried.values()
            best = min(outcomes, key=lambda outcome: outcome.distances["l2"][place], default=None)
            distance = np.inf if best is None else best.distances["l2"][place]
            if best is not None and np.isfinite(distance):
                _draw(axes, best.found[place], f"{best.name}\n{distance:.2f}")
            else:
                axes.set_axis_off()
                axes.text(0.5, 0.5, "not fooled", ha="center", fontsize=7)
            if column == 0:
                axes.text(-0.15, 0.5, _name(entry.robustness.run), rotation=90, fontsize=6,
                          transform=axes.transAxes, va="center", ha="right")  # fmt: skip
    return figure


def _draw(axes: object, image: np.ndarray, title: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=6, pad=2)


def write(
    out: Path,
    entries: Sequence[RobustnessEntry],
    records: Sequence[Record],
    *,
    classes: Sequence[str],
) -> Path:
    """Figures and page."""
    drawn = [
        write_figure(out / "curves", partial(curves, entries)),
        write_figure(out / "smallest", partial(smallest_changes, entries, classes)),
    ]
    verdicts = [
        f"{entry.robustness.run}: {entry.word}. {entry.said}"
        for entry in entries
        if entry.word is not None
    ]
    verdicts = [
        f"{it.robustness.run}: {it.word}. {it.said}" for it in entries if it.word is not None
    ]
    verdicts += [CHOSEN_ON_TEST] * any(it.robustness.chosen_on_test for it in entries)
    text = render_robustness(
        records,
        title="Robustness",
        about=_about(entries[0].robustness),
        verdict=verdicts,
        lines=table(entries),
        note=NOTE,
        drawn=drawn,
        checks=[(entry.robustness.run, entry.checks) for entry in entries],
    )
    write_text(out / "report.html", text)
    return out / "report.html"


def _about(measured: Robustness) -> str:
    return (
        f"{len(measured.samples)} test samples, balanced over classes, seed {measured.seed}; "
        f"effort {measured.effort}. Dashed: plain gradient attacks (FGSM, PGD); solid: all attacks."
    )
