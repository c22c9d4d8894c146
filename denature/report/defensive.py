"""Defensive distillation as a page: attack success against the temperature, and findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, get_args

from denature.core.record import Record
from denature.core.stats import Estimate, pooled, proportion
from denature.report.figures import BLUE, GREEN, GREY, ORANGE, PINK, new_figure
from denature.report.page import Page, Plot, Table
from denature.report.words import conclusion, headline, listed, percent
from denature.robust.config import budget_text, format_budget
from denature.robust.summary import AttackResult, Robustness
from denature.robust.verdict import Evaluation, Verdict, Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ATTACKS: Mapping[str, tuple[str, str]] = {
    "fgsm": (GREY, "^"),
    "pgd": (BLUE, "o"),
    "pgd-rescaled": (ORANGE, "s"),
    "pgd-margin": (PINK, "D"),
    "transfer": (GREEN, "v"),
    "square": ("#E69F00", "P"),
    "autoattack": ("black", "X"),
}
"""Attacks in the order of the table, with colour and shape: first those at the temperature of
deployment, then those that see through masked gradients."""

DASHES = (":", "--", "-.", (0, (1, 4)), (0, (6, 3)))
"""Lines of the networks that were not distilled."""

SMALLEST = "carlini-wagner"
"""The attack that minimises the change, without a budget."""

ABOUT = (
    "Does distillation at a temperature protect from adversarial examples (Papernot et al. 2016), "
    "or does it only hide gradients (Carlini and Wagner 2017)?"
)

NOTE = (
    "Attack success: share of the rightly answered samples with an adversarial example within the "
    "budget, with its 95 % interval: over seeds and samples, of one seed over samples alone. "
    "Worst: by any attack that ran. Logit gap: median of the largest logit less the second. Flat: "
    "samples on which the cross-entropy's gradient is exactly 0 in float32. Smallest: mean l2 "
    "distance of Carlini and Wagner's attack. The temperature is put back in pgd-rescaled; "
    "networks are deployed at 1. A verdict compares all seeds of a network with all undefended "
    "ones, on the samples that all of them answer rightly, and stands alone: of several networks "
    "one may be called more robust by chance."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedNetwork:
    """One network, trained and attacked once for each seed."""

    name: str
    temperature: float | None
    """Of a distilled network; None for others."""
    judged: tuple[Evaluation, ...]

    def masked(self) -> list[str]:
        """Signs of masked gradients that were raised at more than half of the seeds."""
        raised = [c.name for evaluation in self.judged for c in evaluation.checks if c.raised]
        names = dict.fromkeys(raised)
        return [name for name in names if 2 * raised.count(name) > len(self.judged)]

    @property
    def verdict(self) -> Verdict | None:
        """Verdict on all seeds together; None for the undefended network."""
        return self.judged[0].verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class DefensiveDistillationResult:
    """Findings on all networks at one scale."""

    result_type: ClassVar[str] = "defensive-distillation"
    scale: str
    differs: str
    seeds: int
    budget: float
    """Linf perturbation budget of the table."""
    findings: tuple[EvaluatedNetwork, ...]


def page(result: DefensiveDistillationResult, records: Sequence[Record]) -> Page:
    """Success of the attacks against the temperature, beside the gap of the logits."""
    findings, epsilon = result.findings, result.budget
    first = findings[0].judged[0].robustness
    verdict = verdict_on_temperatures(findings)
    return Page(
        title="Defensive distillation",
        summary=_summary(findings) or headline(verdict),
        about=ABOUT,
        differs=f"{result.differs} Attack success in percent at {budget_text(epsilon)} in linf; "
        f"{len(first.samples)} test samples, seeds: {result.seeds}.",
        verdict=verdict,
        blocks=(
            Plot(
                name="temperatures",
                draw=partial(curves, findings, epsilon),
                caption="Left: success of each attack against the temperature of the training, "
                "with 95 % intervals. Right: gap of the logits, and samples with a flat gradient.",
            ),
            Table(
                heading="Success of the attacks",
                lines=success_table(findings, epsilon),
                note=NOTE,
            ),
        ),
    )


def _summary(findings: Sequence[EvaluatedNetwork]) -> str:
    """The conclusions on distilled networks, by temperature."""
    at: dict[str, list[str]] = {}
    for finding in findings:
        if finding.temperature is not None and finding.verdict is not None:
            at.setdefault(conclusion(finding.verdict), []).append(f"{finding.temperature:g}")
    said = [
        f"distilled at temperature {listed(places, 'or')} {text}"
        for text, places in sorted(at.items(), key=lambda pair: "not shown" in pair[0])
    ]
    return f"A network {'; one '.join(said)}." if said else ""


def success(robustness: Robustness, attack: str, norm: str, key: str) -> Estimate | None:
    """The share of rightly answered samples that an attack fools within a budget; `worst` for all.

    None where the attack was not run at that budget.
    """
    right = round(robustness.clean.value * robustness.clean.n)
    if attack == "worst":
        held = robustness.worst[norm].get(key)
    else:
        result = _result(robustness, attack)
        held = None if result is None else result.robust.get(key)
    if held is None:
        return None
    # Samples on which an attack did not run are among the right ones, and counted nowhere.
    ran = right - (robustness.clean.n - held.n)
    return proportion(ran - round(held.value * held.n), ran) if ran else None


def _result(robustness: Robustness, attack: str) -> AttackResult | None:
    return next((result for result in robustness.attacks if result.name == attack), None)


def _successes(finding: EvaluatedNetwork, attack: str, key: str) -> Estimate | None:
    shares = [success(evaluation.robustness, attack, "linf", key) for evaluation in finding.judged]
    measured = [share for share in shares if share is not None]
    # None for a part of the seeds: one of three would look like the only one.
    return pooled(measured) if len(measured) == len(shares) else None


def _smallest(finding: EvaluatedNetwork) -> str:
    results = [_result(evaluation.robustness, SMALLEST) for evaluation in finding.judged]
    measured = [r.smallest for r in results if r is not None and r.smallest is not None]
    if len(measured) < len(results):
        return ""
    over = pooled(measured, bounds=(0, float("inf")))
    return f"{over.value:.3g} [{over.low:.3g}, {over.high:.3g}]"


def success_table(findings: Sequence[EvaluatedNetwork], epsilon: float) -> list[list[str]]:
    """Header and lines: attack success at one budget in linf, by attack."""
    key = format_budget(epsilon)
    columns = [a for a in ATTACKS if any(_successes(f, a, key) is not None for f in findings)]
    lines = [
        ["Network", "Logit gap", "Flat %", "Clean %", *columns, "worst", "Smallest", "Verdict"],
    ]
    for finding in findings:
        results = [evaluation.robustness for evaluation in finding.judged]
        clean = pooled([result.clean for result in results])
        fooled = [_successes(finding, attack, key) for attack in (*columns, "worst")]
        lines.append(
            [
                finding.name,
                f"{fmean(result.gap for result in results):.1f}",
                f"{100 * fmean(result.flat for result in results):.0f}",
                percent(clean),
                *("" if share is None else percent(share) for share in fooled),
                _smallest(finding),
                "" if finding.verdict is None else finding.verdict.word,
            ]
        )
    return lines


def verdict_on_temperatures(findings: Sequence[EvaluatedNetwork]) -> list[str]:
    """Temperature from which on gradients are masked, and the verdicts on all networks."""
    distilled = [finding for finding in findings if finding.temperature is not None]
    sentences = [_masking(distilled)]
    for word in get_args(Word):
        temperatures = [
            f"{f.temperature:g}" for f in distilled if f.verdict and f.verdict.word == word
        ]
        if temperatures:
            sentences.append(f"Distilled at {', '.join(temperatures)}: {word}.")
    return sentences + [
        f"{finding.name}: {finding.verdict.word}. {finding.verdict.said}"
        for finding in findings
        if finding.temperature is None and finding.verdict is not None
    ]


def _masking(distilled: Sequence[EvaluatedNetwork]) -> str:
    """Temperature of the first signs; a sign counts if raised at more than half of the seeds."""
    gaps = {f.name: fmean(e.robustness.gap for e in f.judged) for f in distilled}
    masked = {f.name: signs for f in distilled if (signs := f.masked())}
    if not masked:
        return (
            "At no temperature was a sign of masked gradients raised at more than half of the "
            "seeds; the median gap between the two largest logits reaches "
            f"{max(gaps.values()):.1f}, and float32 keeps gradients of a cross-entropy up to about "
            "100."
        )
    first = next(finding for finding in distilled if finding.name in masked)
    later = distilled[distilled.index(first) :]
    spared = [f"{f.temperature:g}" for f in later if f.name not in masked]
    but = f" None at {', '.join(spared)}." if spared else ""
    return (
        f"Signs of masked gradients begin at temperature {first.temperature:g}, where the median "
        f"gap of the two largest logits is {gaps[first.name]:.1f}: "
        f"{', '.join(masked[first.name])}.{but}"
    )


def curves(findings: Sequence[EvaluatedNetwork], epsilon: float) -> "Figure | None":
    """Attack success against the temperature, and the logit gap beside flat gradients."""
    distilled = [finding for finding in findings if finding.temperature is not None]
    if len(distilled) < 2:
        return None
    key, temperatures = format_budget(epsilon), [f.temperature or 1.0 for f in distilled]
    figure = new_figure(7.4, 3.2)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.6, 1)})
    for attack, (colour, marker) in ATTACKS.items():
        successes = [
            (temperature, _successes(finding, attack, key))
            for temperature, finding in zip(temperatures, distilled, strict=True)
        ]
        measured = [(temperature, share) for temperature, share in successes if share is not None]
        if measured:
            at, shares = zip(*measured, strict=True)
            left.plot(at, [100 * e.value for e in shares], color=colour, marker=marker,
                      markersize=4, linewidth=1.3, label=attack)  # fmt: skip
            left.fill_between(at, [100 * e.low for e in shares], [100 * e.high for e in shares],
                              color=colour, alpha=0.1, linewidth=0)  # fmt: skip
    others = [finding for finding in findings if finding.temperature is None]
    for finding, dashes in zip(others, cycle(DASHES), strict=False):
        worst = _successes(finding, "worst", key)
        if worst is not None:
            left.axhline(100 * worst.value, color="black", linewidth=1, linestyle=dashes,
                         label=f"{finding.name}, worst")  # fmt: skip
    left.set_ylabel("attack success, %")
    left.set_ylim(-3, 106)
    left.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    groups = [[e.robustness for e in finding.judged] for finding in distilled]
    gaps = [fmean(result.gap for result in results) for results in groups]
    right.plot(temperatures, gaps, "o-", color=BLUE, markersize=4)
    right.set_ylabel("median logit gap", color=BLUE)
    other = right.twinx()
    other.spines["right"].set_visible(True)
    flat = [100 * fmean(result.flat for result in results) for results in groups]
    other.plot(temperatures, flat, "s--", color=ORANGE, markersize=4)
    other.set_ylabel("samples with a flat gradient, %", color=ORANGE)
    other.set_ylim(-3, 103)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(
            temperatures, [f"{temperature:g}" for temperature in temperatures], fontsize=7
        )
        axes.minorticks_off()
        axes.set_xlabel("temperature of the training")
        axes.grid(color="#ddd", linewidth=0.7)
    figure.tight_layout()
    return figure
