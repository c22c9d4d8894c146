"""Robustness and theft of the same networks, as one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from denature.core.files import write_text
from denature.core.record import Record
from denature.core.stats import Estimate, mean_over_seeds, paired_difference
from denature.report.figures import BLUE, GREEN, GREY, ORANGE, new_figure, write_figure
from denature.report.html import render_experiment
from denature.report.words import points
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
    "labels. In parentheses their fidelity: how often clone and victim say the same. Over several "
    "seeds means have Student's t intervals (95 %); differences are paired by seed."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """One clone."""

    accuracy: float
    fidelity: float
    """Share of the test images on which it says what its victim says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """One victim, attacked and cloned at each seed."""

    name: str
    accuracy: tuple[float, ...]
    judged: tuple[Judged, ...]
    copies: Mapping[str, tuple[Copied, ...]]
    """By what clones learn from."""

    def copied(self, way: str) -> dict[int, float]:
        """Clones' accuracy by seed."""
        return {seed: it.accuracy for seed, it in enumerate(self.copies[way])}

    def robust(self, key: str) -> dict[int, float]:
        """By seed, where all attacks ran."""
        worst = enumerate(it.robustness.worst["linf"].get(key) for it in self.judged)
        return {seed: share.value for seed, share in worst if share is not None}


def _over(values: Sequence[float]) -> str:
    """In percent, with an interval where there are several seeds."""
    if not values:
        return "did not run"
    if len(values) == 1:
        return f"{100 * values[0]:.1f}"
    found = mean_over_seeds(values)
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def table(worlds: Sequence[World], alone: Sequence[float], epsilon: float) -> list[list[str]]:
    """Header and lines: each victim, and the clones' network alone."""
    key = spell(epsilon)
    lines = [["Network", "Accuracy %", f"Robust % at {key}", "Verdict",
              *(f"Clone by {way} % (fidelity)" for way in WAYS)]]  # fmt: skip
    for world in worlds:
        words = [it.verdict.word for it in world.judged if it.verdict is not None]
        verdicts = ", ".join(
            word if len(words) == 1 else f"{word} ({words.count(word)} of {len(words)})"
            for word in dict.fromkeys(words)
        )
        copies = [
            f"{_over([it.accuracy for it in world.copies[way]])} "
            f"({100 * sum(it.fidelity for it in world.copies[way]) / len(world.copies[way]):.1f})"
            for way in WAYS
        ]
        robust = _over(list(world.robust(key).values()))
        lines.append([world.name, _over(world.accuracy), robust, verdicts, *copies])
    lines.append(["clones' network alone", _over(alone), "", "", "", "", ""])
    return lines


def _word(found: Estimate | None, more: str, less: str) -> str:
    if found is None:
        return "not measured"
    if found.n < 2:
        return f"{100 * found.value:+.1f} points, one seed"
    if found.low <= 0 <= found.high:
        return f"no difference beyond the interval over seeds, {points(found)} points"
    return f"{more if found.value > 0 else less}, {points(found)} points"


def verdict(worlds: Sequence[World], epsilon: float) -> list[str]:
    """Each victim against the normal one, by what attacks and by what clones make of it."""
    normal, key, said = worlds[0], spell(epsilon), []
    for world in worlds[1:]:
        robust = paired_difference(world.robust(key), normal.robust(key))
        clones = "; ".join(
            f"by {way} {_word(found, 'better clones', 'worse clones')}"
            for way in WAYS
            for found in [paired_difference(world.copied(way), normal.copied(way))]
        )
        robustly = _word(robust, "more robust", "less robust")
        said.append(f"{world.name} against {normal.name}: {robustly}. Cloned {clones}.")
    return said


def panels(worlds: Sequence[World], epsilon: float) -> "Figure":
    """Robust accuracy and clones' accuracy, a row for each victim, a dot for each seed."""
    key = spell(epsilon)
    figure = new_figure(7.2, 0.7 + 0.5 * len(worlds))
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (1, 1.6)})
    for place, world in enumerate(worlds):
        shares = [100 * it for it in world.robust(key).values()]
        left.plot(shares, [place] * len(shares), "o", color=GREY, markersize=5)
        for step, (way, (colour, marker)) in enumerate(LOOKS.items()):
            found = [100 * it.accuracy for it in world.copies[way]]
            right.plot(found, [place + 0.2 * (step - 1)] * len(found), marker, color=colour,
                       markersize=5, label=way if place == 0 else None)  # fmt: skip
        own = [100 * it for it in world.accuracy]
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
