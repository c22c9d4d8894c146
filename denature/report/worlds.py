"""Robustness and theft of the same networks, as one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from denature.core.files import write_text
from denature.core.hits import Hits
from denature.core.record import Record
from denature.core.stats import (
    MARGIN,
    Estimate,
    Score,
    against_margin,
    paired_difference,
    pooled,
)
from denature.report.figures import BLUE, GREEN, GREY, ORANGE, new_figure, write_figure
from denature.report.html import render_experiment
from denature.report.words import INTERVALS, of_one_seed, percent, points
from denature.robust.evaluate import spell
from denature.robust.verdict import Judged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WAYS = ("all answers", "probabilities", "labels")
"""What a clone learns from: logits at the nasty teacher's temperature with a tenth of true labels,
as the paper's students do; probabilities at temperature 1, as a service shows them; labels."""

LOOKS: Mapping[str, tuple[str, str]] = {
    "all answers": (ORANGE, "o"), "probabilities": (BLUE, "s"), "labels": (GREEN, "^"),
}  # fmt: skip

ABOUT = (
    "Is a nasty teacher more or less robust than a normal one, and is a hardened network easier or "
    "harder to clone?"
)

NOTE = (
    "Robust: share of the test samples that stay right against everything that was tried. Clones "
    "learn from what their victim answers about its own training images: all answers, logits at "
    "the nasty teacher's temperature and a tenth of true labels; probabilities at temperature 1; "
    "labels. In parentheses their fidelity: how often clone and victim say the same. "
    f"{INTERVALS}"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """One clone."""

    accuracy: Estimate
    hits: Hits | None
    fidelity: Estimate
    """Share of the test images on which it says what its victim says."""

    @property
    def score(self) -> Score:
        if self.hits is None:
            return Score(self.accuracy)
        return Score(self.accuracy, self.hits.test, self.hits.unpack(self.accuracy.n))


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """One victim, attacked and cloned at each seed."""

    name: str
    accuracy: tuple[Estimate, ...]
    judged: tuple[Judged, ...]
    copies: Mapping[str, tuple[Copied, ...]]
    """By what clones learn from."""

    def copied(self, way: str) -> dict[int, Score]:
        """Clones' accuracy by seed."""
        return {seed: copy.score for seed, copy in enumerate(self.copies[way])}

    def robust(self, key: str) -> list[Estimate]:
        """Of each seed; nothing where an attack did not run at one of them."""
        worst = [judged.robustness.worst["linf"].get(key) for judged in self.judged]
        return [share for share in worst if share is not None and None not in worst]


def _over(found: Sequence[Estimate]) -> str:
    """In percent."""
    return percent(pooled(found)) if found else "did not run"


def table(worlds: Sequence[World], alone: Sequence[Estimate], epsilon: float) -> list[list[str]]:
    """Header and lines: each victim, and the clones' network alone."""
    key = spell(epsilon)
    lines = [["Network", "Accuracy %", f"Robust % at {key}", "Verdict",
              *(f"Clone by {way} % (fidelity)" for way in WAYS)]]  # fmt: skip
    for world in worlds:
        judged = world.judged[0].verdict
        verdicts = "" if judged is None else judged.word
        copies = [
            f"{_over([it.accuracy for it in world.copies[way]])} "
            f"({100 * fmean(it.fidelity.value for it in world.copies[way]):.1f})"
            for way in WAYS
        ]
        robust = _over(world.robust(key))
        lines.append([world.name, _over(world.accuracy), robust, verdicts, *copies])
    lines.append(["clones' network alone", _over(alone), "", "", "", "", ""])
    return lines


def _clones(found: Estimate | None) -> str:
    if found is None:
        return "not measured"
    words = {
        "above": "better clones",
        "below": "worse clones",
        "within": f"equal clones within {100 * MARGIN:g} point",
        "undecided": "not settled",
    }
    if of_one_seed(found):
        return f"not settled (one seed), {points(found)} points"
    return f"{words[against_margin(found)]}, {points(found)} points"


def _robustness(judged: Judged) -> str:
    """A victim against the normal ones, by the gain that its verdict rests on."""
    assert judged.verdict is not None
    word, gain = judged.verdict.word, judged.verdict.real.difference
    if gain.settled and gain.high < 0:
        return f"less robust, {points(gain)} points of robust samples"
    return f"{word}, {points(gain)} points of robust samples"


def verdict(worlds: Sequence[World]) -> list[str]:
    """Each victim against the normal one, by what attacks and by what clones make of it."""
    normal, said = worlds[0], []
    for world in worlds[1:]:
        clones = "; ".join(
            f"by {way} {_clones(paired_difference(world.copied(way), normal.copied(way)))}"
            for way in WAYS
        )
        said.append(
            f"{world.name} against {normal.name}: {_robustness(world.judged[0])}. Cloned {clones}."
        )
    return said


def panels(worlds: Sequence[World], epsilon: float) -> "Figure":
    """Robust accuracy and clones' accuracy, a row for each victim, a dot for each seed."""
    key = spell(epsilon)
    figure = new_figure(7.2, 0.7 + 0.5 * len(worlds))
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (1, 1.6)})
    for place, world in enumerate(worlds):
        shares = [100 * share.value for share in world.robust(key)]
        left.plot(shares, [place] * len(shares), "o", color=GREY, markersize=5)
        for step, (way, (colour, marker)) in enumerate(LOOKS.items()):
            found = [100 * copy.accuracy.value for copy in world.copies[way]]
            right.plot(found, [place + 0.2 * (step - 1)] * len(found), marker, color=colour,
                       markersize=5, label=way if place == 0 else None)  # fmt: skip
        own = [100 * accuracy.value for accuracy in world.accuracy]
        right.plot(own, [place] * len(own), "|", color="black", markersize=12,
                   label="victim" if place == 0 else None)  # fmt: skip
    left.set_yticks(range(len(worlds)), [it.name for it in worlds])
    left.invert_yaxis()
    left.set_xlim(-3, 103)
    left.set_xlabel(f"robust at linf {key}, %")
    right.set_xlabel("accuracy of clones, %")
    for axes in (left, right):
        axes.grid(axis="x", color="#ddd", linewidth=0.7)
    right.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    return figure


def write(
    out: Path,
    worlds: Sequence[World],
    epsilon: float,
    records: Sequence[Record],
    *,
    differs: str,
    verdict: Sequence[str],
    lines: Sequence[Sequence[str]],
) -> Path:
    """Figure and page."""
    first = worlds[0].judged[0].robustness
    text = render_experiment(
        records,
        title="Both worlds",
        about=ABOUT,
        differs=f"{differs} {len(first.samples)} test samples are attacked, "
        f"seeds: {len(worlds[0].judged)}.",
        verdict=verdict,
        lines=lines,
        note=NOTE,
        drawn=[write_figure(out / "worlds", partial(panels, worlds, epsilon))],
    )
    write_text(out / "report.html", text)
    return out / "report.html"
