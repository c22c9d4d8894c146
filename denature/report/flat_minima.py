"""Flat minima and robustness as a page: a table, a scatter, and whether the two go together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from denature.core.record import Record
from denature.core.stats import Estimate, mean_over_seeds, pooled
from denature.core.text import counted
from denature.report.figures import BLUE, GREEN, GREY, ORANGE, PINK, new_figure
from denature.report.page import Page, Plot, Table
from denature.report.words import listed, percent, points
from denature.robust.config import budget_text, format_budget
from denature.robust.flatness import Flatness
from denature.robust.verdict import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = (
    *((GREY, "o"), (BLUE, "s"), (BLUE, "^"), (BLUE, "D")),
    *((PINK, "v"), (GREEN, "P"), (ORANGE, "X")),
)
"""Colour and mark of each network; those distilled at a temperature share their colour."""

LEVEL = 0.05
"""Chance of a correlation as large as the measured one, below which it counts; shared by all
measures."""

ABOUT = (
    "Are networks in flatter minima more robust to adversarial examples? Flatness is the usual "
    "reason given for why distillation should protect."
)

NOTE = (
    "Robust: share of the test samples that stay right against all attacks. Kept: share of the "
    "training accuracy above chance that is left after random changes of the weights by that share "
    "of each filter's length; the higher, the flatter. Loss rises: by so much the training loss "
    "grows under these changes. Curvature: largest eigenvalue of the Hessian of that loss. Both "
    "are of the loss that the network was trained with, whose scale differs between losses, so no "
    'verdict rests on them; "about" marks an eigenvalue that still moved by a hundredth. '
    "Sensitivity: mean Frobenius norm of the Jacobian with respect to the test image, of logits "
    "and of probabilities at temperature 1. Intervals (95 %) of the table cover other seeds and "
    "other images together, those of the sentences other seeds, and each sentence stands alone: "
    "of six true differences of 0 one may look settled in one of four such tables. Of loss and "
    "curvature the mean over seeds is shown. A verdict compares all seeds of a network with all "
    "plain ones."
)

SETTLED = 0.01
"""Relative change in the last step of the power iteration, above which a curvature is marked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredMinima:
    """One way of training, measured once for each seed."""

    name: str
    judged: tuple[Evaluation, ...]
    flatness: tuple[Flatness, ...]

    def robust(self, key: str) -> list[Estimate]:
        """Robust accuracy of each seed in linf."""
        return [evaluation.robustness.worst["linf"][key] for evaluation in self.judged]

    def kept(self) -> list[Estimate]:
        """Share of its training accuracy above chance that each seed keeps with moved weights."""
        return [flat.kept for flat in self.flatness]

    def rise(self) -> float:
        """By how much the training loss grows under these changes, in nats; mean over seeds."""
        return fmean(
            flat.loss[len(flat.sizes) // 2].value - flat.loss[0].value for flat in self.flatness
        )

    def curvature(self) -> str:
        """Largest eigenvalue of the Hessian, mean over seeds."""
        moves = any(flat.curvature_moved > SETTLED for flat in self.flatness)
        return f"{'about ' * moves}{fmean(flat.curvature for flat in self.flatness):.3g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatMinimaResult:
    """Flatness and robustness of all networks at one scale; the first is the plain one."""

    result_type: ClassVar[str] = "flat-minima"
    scale: str
    differs: str
    seeds: int
    budget: float
    """Linf perturbation budget of the table."""
    networks: tuple[MeasuredMinima, ...]


MEASURES: Mapping[str, Callable[[MeasuredMinima], float]] = {
    "flatter by the accuracy that moved weights keep": lambda of: fmean(
        share.value for share in of.kept()
    ),
    "less sensitive to the image": lambda of: (
        -fmean(f.confidence_sensitivity.value for f in of.flatness)
    ),
}
"""What should go with robustness; each grows where the claim expects more of it. Curvature is no
such measure: the scale of its loss differs between the ways of training."""


def page(result: FlatMinimaResult, records: Sequence[Record]) -> Page:
    """Table and scatter, each network against the plain one, and correlations over networks."""
    first = result.networks[0]
    samples = len(first.judged[0].robustness.samples)
    sentences = verdict_on_minima(result)
    return Page(
        title="Flat minima and robustness",
        summary=sentences[0],
        about=ABOUT,
        differs=f"{result.differs} {samples} attacked test samples, "
        f"{first.flatness[0].samples} training samples for the weights; "
        f"{counted(result.seeds, 'seed')}.",
        verdict=sentences,
        blocks=(
            Plot(
                name="minima",
                draw=partial(scatter, result),
                caption="A mark for each network and seed. Robust accuracy against the "
                "share of the training accuracy that moved weights keep, against the curvature of "
                "each network's own loss, and against the sensitivity to the image.",
            ),
            Table(heading="The networks", lines=minima_table(result), note=NOTE),
        ),
    )


def verdict_on_minima(result: FlatMinimaResult) -> list[str]:
    """Whether flatness goes with robustness over networks, then each network on its own."""
    return [_together(result), *(_against(of, result.networks[0]) for of in result.networks[1:])]


def _together(result: FlatMinimaResult) -> str:
    """Rank correlations over the networks, with exact permutation tests."""
    key = format_budget(result.budget)
    robust = [fmean(e.value for e in of.robust(key)) for of in result.networks]
    sure: list[str] = []
    unsure: list[str] = []
    for name, measure in MEASURES.items():
        rho, chance = rank_correlation([measure(of) for of in result.networks], robust)
        goes = chance <= LEVEL / len(MEASURES) and rho > 0
        (sure if goes else unsure).append(f"{name} (rank correlation {rho:+.2f}, p {chance:.2g})")
    over = f"Over {counted(len(robust), 'network')}"
    if not sure:
        return f"{over} it is not shown that those are more robust that are {listed(unsure, 'or')}."
    but = f"; not shown for those that are {listed(unsure, 'or')}" if unsure else ""
    return f"{over} those are more robust that are {listed(sure, 'and')}{but}."


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Spearman's correlation, and the share of all orders in which it is at least as far from 0."""
    from scipy.stats import permutation_test, rankdata

    ranks = rankdata(xs), rankdata(ys)
    if min(float(np.ptp(rank)) for rank in ranks) == 0:  # ties alone say nothing
        return 0.0, 1.0

    def correlation(x: np.ndarray) -> float:
        return float(np.corrcoef(x, ranks[1])[0, 1])

    found = permutation_test(
        (ranks[0],), correlation, permutation_type="pairings", n_resamples=np.inf
    )
    return correlation(ranks[0]), float(found.pvalue)


def _against(of: MeasuredMinima, plain: MeasuredMinima) -> str:
    verdict = of.judged[0].verdict
    word = "not judged" if verdict is None else verdict.word
    apart = [
        ours.value - theirs.value for ours, theirs in zip(of.kept(), plain.kept(), strict=True)
    ]
    found = mean_over_seeds(apart, bounds=(-1.0, 1.0))
    flat = "not settled whether in a flatter minimum"
    if found.low > 0:
        flat = "in a flatter minimum"
    elif found.high < 0:
        flat = "in a sharper minimum"
    return (
        f"{of.name}: {word}; {flat}: of its training accuracy above chance it keeps "
        f"{points(found)} points more than the plain network under moved weights."
    )


def minima_table(result: FlatMinimaResult) -> list[list[str]]:
    """Header and lines: a line for each way of training, over its seeds."""
    key, first = format_budget(result.budget), result.networks[0].flatness[0]
    size = first.sizes[len(first.sizes) // 2]
    lines = [["Network", "Clean %", f"Robust % at {budget_text(result.budget)}", "Training %",
              f"Kept at {size:g}, %", "Loss rises", "Curvature", "Sensitivity, logits",
              "Sensitivity", "Verdict"]]  # fmt: skip
    for of in result.networks:
        verdict = of.judged[0].verdict
        lines.append(
            [
                of.name,
                percent(pooled([evaluation.robustness.clean for evaluation in of.judged])),
                percent(pooled(of.robust(key))),
                percent(pooled([flat.accuracy[0] for flat in of.flatness])),
                percent(pooled(of.kept(), bounds=(-1.0, float("inf")))),
                f"{of.rise():.3g}",
                of.curvature(),
                _norm([flat.sensitivity for flat in of.flatness]),
                _norm([flat.confidence_sensitivity for flat in of.flatness]),
                "" if verdict is None else verdict.word,
            ]
        )
    return lines


def _norm(of_seeds: Sequence[Estimate]) -> str:
    """A mean norm over seeds and images with its interval."""
    found = pooled(of_seeds, bounds=(0, float("inf")))
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def _spread(axes: "Axes") -> None:
    """A logarithmic x axis with few labels; a linear one where its values are close together."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = axes.dataLim.intervalx
    if low > 0 and high > 5 * low:
        axes.set_xscale("log", subs=[])
        subs = (1, 2, 5) if high < 50 * low else (1, 3) if high < 1000 * low else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter("{x:g}")


def scatter(result: FlatMinimaResult) -> "Figure":
    """Robust accuracy against flatness, curvature and sensitivity, a mark for each seed."""
    key = format_budget(result.budget)
    figure = new_figure(7.2, 2.9)
    panels = figure.subplots(1, 3, sharey=True)
    for (colour, mark), of in zip(cycle(LOOKS), result.networks, strict=False):
        robust = [100 * share.value for share in of.robust(key)]
        places = (
            [100 * share.value for share in of.kept()],
            [flat.curvature for flat in of.flatness],
            [flat.confidence_sensitivity.value for flat in of.flatness],
        )
        for axes, values in zip(panels, places, strict=True):
            axes.plot(values, robust, mark, color=colour, markersize=5, label=of.name)
    titles = ("training accuracy kept, %", "curvature of its own loss", "sensitivity to the image")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_xlabel(title)
        axes.grid(color="#ddd", linewidth=0.7)
    for axes in panels[1:]:
        _spread(axes)
    panels[0].set_ylabel(f"robust at linf {budget_text(result.budget)}, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    figure.tight_layout()
    return figure
