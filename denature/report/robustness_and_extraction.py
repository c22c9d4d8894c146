"""Robustness and extraction of the same networks, as one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

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
from denature.report.divergence import not_nasty
from denature.report.figures import BLUE, GREEN, GREY, ORANGE, new_figure
from denature.report.page import Page, Plot, Table
from denature.report.words import INTERVALS, conclusion, listed, of_one_seed, percent, points
from denature.robust.config import budget_text, format_budget
from denature.robust.verdict import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLONED_BY = ("all answers", "probabilities", "labels")
"""Answers that a clone learns from: logits at the nasty teacher's temperature with a tenth of true
labels, as for the paper's students; probabilities at temperature 1, as of a service; labels."""

LOOKS: Mapping[str, tuple[str, str]] = {
    "all answers": (ORANGE, "o"), "probabilities": (BLUE, "s"), "labels": (GREEN, "^"),
}  # fmt: skip

ABOUT = (
    "Is a nasty teacher more or less robust than a normal one, and is a hardened network easier or "
    "harder to clone?"
)

NOTE = (
    "Robust: share of the test samples that stay right against all attacks that ran. Clones learn "
    "from their victim's answers to its own training images: all answers, logits at the nasty "
    "teacher's temperature and a tenth of true labels; probabilities at temperature 1; labels. In "
    "parentheses their fidelity: share of test images on which clone and victim answer the same "
    "class. No evidence: not shown to be more robust than the undefended networks. "
    f"{INTERVALS}"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CloneScore:
    """Accuracy and fidelity of one clone."""

    accuracy: Estimate
    hits: Hits | None
    fidelity: Estimate
    """Share of the test images on which clone and victim answer the same class."""

    @property
    def score(self) -> Score:
        if self.hits is None:
            return Score(self.accuracy)
        return Score(self.accuracy, self.hits.test, self.hits.unpack(self.accuracy.n))


@dataclass(frozen=True, kw_only=True, slots=True)
class VictimResult:
    """One victim, attacked and cloned at each seed."""

    name: str
    accuracy: tuple[Estimate, ...]
    judged: tuple[Evaluation, ...]
    clones: Mapping[str, tuple[CloneScore, ...]]
    """Clones by the answers that they learn from, at each seed."""

    def clone_scores(self, way: str) -> dict[int, Score]:
        """Scores of the clones by seed."""
        return {seed: clone.score for seed, clone in enumerate(self.clones[way])}

    def robust(self, key: str) -> list[Estimate]:
        """Of each seed; nothing where an attack did not run at one of them."""
        worst = [judged.robustness.worst["linf"].get(key) for judged in self.judged]
        return [share for share in worst if share is not None and None not in worst]


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustnessAndExtractionResult:
    """Scores of all victims at one scale."""

    result_type: ClassVar[str] = "robustness-and-extraction"
    scale: str
    differs: str
    seeds: int
    budget: float
    """Linf perturbation budget of the robustness in the table."""
    victims: tuple[VictimResult, ...]
    """The normal one first."""
    alone: tuple[Estimate, ...]
    """Accuracy of the clones' network on true labels, by seed."""


def page(result: RobustnessAndExtractionResult, records: Sequence[Record]) -> Page:
    """Robustness of the victims beside the accuracy of their clones."""
    victims, epsilon = result.victims, result.budget
    first = victims[0].judged[0].robustness
    return Page(
        title="Robustness and extraction",
        summary=conclusions(victims),
        about=ABOUT,
        differs=f"{result.differs} {len(first.samples)} test samples are attacked, "
        f"seeds: {result.seeds}.",
        verdict=[*verdict_on_victims(victims), *not_nasty(records)],
        blocks=(
            Plot(
                name="robustness-and-extraction",
                draw=partial(panels, victims, epsilon),
                caption="Robust accuracy of each network, and accuracy of its clones by the "
                "answers that they learned from; a mark for each seed.",
            ),
            Table(
                heading="The networks and their clones",
                lines=victim_table(victims, result.alone, epsilon),
                note=NOTE,
            ),
        ),
    )


def conclusions(victims: Sequence[VictimResult]) -> str:
    """What is settled of each victim, against the normal one."""
    words = []
    for victim in victims[1:]:
        assert victim.judged[0].verdict is not None
        robust = conclusion(victim.judged[0].verdict)
        apart = [(way, _apart(victim, victims[0], way)) for way in CLONED_BY]
        worse = [way for way, found in apart
                 if against_margin(found) == "below" and not of_one_seed(found)]  # fmt: skip
        clones = f", and its clones by {listed(worse, 'and')} are worse" if worse else ""
        words.append(f"{victim.name} {robust}{clones}")
    return f"The network {'; '.join(words)}."


def _apart(victim: VictimResult, normal: VictimResult, way: str) -> Estimate | None:
    return paired_difference(victim.clone_scores(way), normal.clone_scores(way))


def _over(estimates: Sequence[Estimate]) -> str:
    """The pooled estimate in percent."""
    return percent(pooled(estimates)) if estimates else "did not run"


def victim_table(
    victims: Sequence[VictimResult], alone: Sequence[Estimate], epsilon: float
) -> list[list[str]]:
    """Header and lines: each victim, and the clones' network alone."""
    key = format_budget(epsilon)
    lines = [["Network", "Accuracy %", f"Robust % at {budget_text(epsilon)}", "Verdict",
              *(f"Clone by {way} % (fidelity)" for way in CLONED_BY)]]  # fmt: skip
    for victim in victims:
        judged = victim.judged[0].verdict
        verdicts = "" if judged is None else judged.word
        copies = [
            f"{_over([clone.accuracy for clone in victim.clones[way]])} "
            f"({_over([clone.fidelity for clone in victim.clones[way]])})"
            for way in CLONED_BY
        ]
        robust = _over(victim.robust(key))
        lines.append([victim.name, _over(victim.accuracy), robust, verdicts, *copies])
    lines.append(["clones' network alone", _over(alone), "", "", "", "", ""])
    return lines


def _clones(difference: Estimate | None) -> str:
    if difference is None:
        return "not measured"
    words = {
        "above": "better",
        "below": "worse",
        "within": f"equal within {100 * MARGIN:g} point",
        "undecided": "not settled",
    }
    if of_one_seed(difference):
        return f"not settled (one seed), {points(difference)} points"
    return f"{words[against_margin(difference)]}, {points(difference)} points"


def _robustness(judged: Evaluation) -> str:
    """A victim against the normal ones, by the gain behind its verdict."""
    assert judged.verdict is not None
    word, gain = judged.verdict.word, judged.verdict.real.difference
    if gain.significant and gain.high < 0:
        return f"less robust, {points(gain)} points of robust samples"
    return f"{word}, {points(gain)} points of robust samples"


def verdict_on_victims(victims: Sequence[VictimResult]) -> list[str]:
    """Each victim against the normal one, in robustness and in the accuracy of its clones."""
    normal, sentences = victims[0], []
    for victim in victims[1:]:
        clones = "; ".join(f"by {way} {_clones(_apart(victim, normal, way))}" for way in CLONED_BY)
        robust = _robustness(victim.judged[0])
        sentences.append(f"{victim.name} against {normal.name}: {robust}. Clones {clones}.")
    return sentences


def panels(victims: Sequence[VictimResult], epsilon: float) -> "Figure":
    """Robust accuracy and clones' accuracy, a row for each victim, a dot for each seed."""
    key = format_budget(epsilon)
    figure = new_figure(7.2, 0.7 + 0.5 * len(victims))
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (1, 1.6)})
    for place, victim in enumerate(victims):
        shares = [100 * share.value for share in victim.robust(key)]
        left.plot(shares, [place] * len(shares), "o", color=GREY, markersize=5)
        for step, (way, (colour, marker)) in enumerate(LOOKS.items()):
            clones = [100 * clone.accuracy.value for clone in victim.clones[way]]
            right.plot(clones, [place + 0.2 * (step - 1)] * len(clones), marker, color=colour,
                       markersize=5, label=way if place == 0 else None)  # fmt: skip
        own = [100 * accuracy.value for accuracy in victim.accuracy]
        right.plot(own, [place] * len(own), "|", color="black", markersize=12,
                   label="victim" if place == 0 else None)  # fmt: skip
    left.set_yticks(range(len(victims)), [victim.name for victim in victims])
    left.invert_yaxis()
    left.set_xlim(-3, 103)
    left.set_xlabel(f"robust at linf {budget_text(epsilon)}, %")
    right.set_xlabel("accuracy of clones, %")
    for axes in (left, right):
        axes.grid(axis="x", color="#ddd", linewidth=0.7)
    right.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    return figure
