"""Defensive distillation as a page: attack success against the temperature, and what it means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, get_args

from denature.core.files import write_text
from denature.core.record import Record
from denature.core.stats import Estimate, pooled, proportion
from denature.report.figures import BLUE, GREEN, GREY, ORANGE, PINK, new_figure, write_figure
from denature.report.html import render_experiment
from denature.report.words import percent
from denature.robust.evaluate import AttackResult, Robustness, format_budget
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
"""In the order of the table, with colour and shape: first what is tried with the temperature as it
is deployed, then what sees through it."""

SMALLEST = "carlini-wagner"
"""Looks for the smallest change, at whatever budget."""

ABOUT = (
    "Does distillation at a temperature protect from adversarial examples (Papernot et al. 2016), "
    "or does it only hide gradients (Carlini and Wagner 2017)?"
)

NOTE = (
    "Attack success: share of the samples that are answered rightly and can be changed within the "
    "budget so that they are not, with its 95 % interval: over seeds and samples, of one seed over "
    "samples alone. Worst: by anything that ran. Logit gap: median of the largest logit less the "
    "second. Flat: samples on which the cross-entropy's gradient is exactly 0 in float32. "
    "Smallest: mean l2 distance of Carlini and Wagner's attack. The temperature is put back in "
    "pgd-rescaled; networks are deployed at 1. A verdict compares all seeds of a network with all "
    "undefended ones, on the samples that all of them answer rightly."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One network, made and attacked once for each seed."""

    name: str
    temperature: float | None
    """Of a distilled one."""
    judged: tuple[Evaluation, ...]

    def masked(self) -> list[str]:
        """Signs of masked gradients that were raised at more than half of the seeds."""
        raised = [check.name for it in self.judged for check in it.checks if check.raised]
        return [it for it in dict.fromkeys(raised) if 2 * raised.count(it) > len(self.judged)]

    @property
    def verdict(self) -> Verdict | None:
        """Of all seeds together; None of the undefended network."""
        return self.judged[0].verdict


def success(found: Robustness, attack: str, norm: str, key: str) -> Estimate | None:
    """The share of rightly answered samples that an attack fools within a budget; `worst` for all.

    None where it was not run at that budget.
    """
    right = round(found.clean.value * found.clean.n)
    if attack == "worst":
        held = found.worst[norm].get(key)
    else:
        result = _result(found, attack)
        held = None if result is None else result.robust.get(key)
    if held is None:
        return None
    # Samples on which something did not run are among the right ones, and counted nowhere.
    ran = right - (found.clean.n - held.n)
    return proportion(ran - round(held.value * held.n), ran) if ran else None


def _result(found: Robustness, attack: str) -> AttackResult | None:
    return next((it for it in found.attacks if it.name == attack), None)


def _successes(finding: Finding, attack: str, key: str) -> Estimate | None:
    each = [success(it.robustness, attack, "linf", key) for it in finding.judged]
    measured = [it for it in each if it is not None]
    # Of a part of the seeds nothing is said: one of three would pass for the only one.
    return pooled(measured) if len(measured) == len(each) else None


def _smallest(finding: Finding) -> str:
    results = [_result(it.robustness, SMALLEST) for it in finding.judged]
    measured = [it.smallest for it in results if it is not None and it.smallest is not None]
    if len(measured) < len(results):
        return ""
    over = pooled(measured, bounds=(0, float("inf")))
    return f"{over.value:.3g} [{over.low:.3g}, {over.high:.3g}]"


def table(findings: Sequence[Finding], epsilon: float) -> list[list[str]]:
    """Header and lines: attack success at one budget in linf, by attack."""
    key = format_budget(epsilon)
    columns = [it for it in ATTACKS if any(_successes(f, it, key) is not None for f in findings)]
    lines = [
        ["Network", "Logit gap", "Flat %", "Clean %", *columns, "worst", "Smallest", "Verdict"],
    ]
    for finding in findings:
        each = [it.robustness for it in finding.judged]
        clean = pooled([it.clean for it in each])
        fooled = [_successes(finding, attack, key) for attack in (*columns, "worst")]
        lines.append(
            [
                finding.name,
                f"{fmean(it.gap for it in each):.1f}",
                f"{100 * fmean(it.flat for it in each):.0f}",
                percent(clean),
                *("" if it is None else percent(it) for it in fooled),
                _smallest(finding),
                "" if finding.verdict is None else finding.verdict.word,
            ]
        )
    return lines


def verdict(findings: Sequence[Finding]) -> list[str]:
    """From which temperature on gradients are masked, and whether anything was won."""
    distilled = [it for it in findings if it.temperature is not None]
    said = [_masking(distilled)]
    for word in get_args(Word):
        temperatures = [
            f"{f.temperature:g}" for f in distilled if f.verdict and f.verdict.word == word
        ]
        if temperatures:
            said.append(f"Distilled at {', '.join(temperatures)}: {word}.")
    return said + [
        f"{finding.name}: {finding.verdict.word}. {finding.verdict.said}"
        for finding in findings
        if finding.temperature is None and finding.verdict is not None
    ]


def _masking(distilled: Sequence[Finding]) -> str:
    """From where on; a sign counts that is raised at more than half of the seeds."""
    gaps = {it.name: fmean(one.robustness.gap for one in it.judged) for it in distilled}
    masked = {it.name: signs for it in distilled if (signs := it.masked())}
    if not masked:
        return (
            "At no temperature was a sign of masked gradients raised at most seeds; the median gap "
            f"between the two largest logits reaches {max(gaps.values()):.1f}, and float32 keeps "
            "gradients of a cross-entropy up to about 100."
        )
    first = next(it for it in distilled if it.name in masked)
    later = distilled[distilled.index(first) :]
    spared = [f"{it.temperature:g}" for it in later if it.name not in masked]
    but = f" None at {', '.join(spared)}." if spared else ""
    return (
        f"Signs of masked gradients begin at temperature {first.temperature:g}, where the median "
        f"gap of the two largest logits is {gaps[first.name]:.1f}: "
        f"{', '.join(masked[first.name])}.{but}"
    )


def curves(findings: Sequence[Finding], epsilon: float) -> "Figure | None":
    """Attack success against the temperature, and the logit gap with what it flattens."""
    distilled = [it for it in findings if it.temperature is not None]
    if len(distilled) < 2:
        return None
    key, temperatures = format_budget(epsilon), [it.temperature or 1.0 for it in distilled]
    figure = new_figure(7.4, 3.2)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.6, 1)})
    for attack, (colour, marker) in ATTACKS.items():
        found = [
            (h, _successes(it, attack, key)) for h, it in zip(temperatures, distilled, strict=True)
        ]
        own = [(temperature, it) for temperature, it in found if it is not None]
        if own:
            at, shares = zip(*own, strict=True)
            left.plot(at, [100 * e.value for e in shares], color=colour, marker=marker,
                      markersize=4, linewidth=1.3, label=attack)  # fmt: skip
            left.fill_between(at, [100 * e.low for e in shares], [100 * e.high for e in shares],
                              color=colour, alpha=0.1, linewidth=0)  # fmt: skip
    for it in findings:
        worst = _successes(it, "worst", key)
        if it.temperature is None and worst is not None:
            left.axhline(100 * worst.value, color="black", linewidth=1, linestyle=":")
            left.annotate(f"{it.name}, worst", (temperatures[-1], 100 * worst.value), fontsize=7,
                          ha="right", va="bottom")  # fmt: skip
    left.set_ylabel("attack success, %")
    left.set_ylim(-3, 106)
    left.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    each = [[one.robustness for one in it.judged] for it in distilled]
    right.plot(
        temperatures, [fmean(it.gap for it in its) for its in each], "o-", color=BLUE, markersize=4
    )
    right.set_ylabel("median logit gap", color=BLUE)
    other = right.twinx()
    other.spines["right"].set_visible(True)
    flat = [100 * fmean(result.flat for result in results) for results in each]
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


def write(
    out: Path,
    findings: Sequence[Finding],
    epsilon: float,
    records: Sequence[Record],
    *,
    differs: str,
    verdict: Sequence[str],
    lines: Sequence[Sequence[str]],
) -> Path:
    """Figure and page."""
    first = findings[0].judged[0].robustness
    text = render_experiment(
        records,
        title="Defensive distillation",
        about=ABOUT,
        differs=f"{differs} Attack success in percent at {format_budget(epsilon)} in linf; "
        f"{len(first.samples)} test samples, seeds: {len(findings[0].judged)}.",
        verdict=verdict,
        lines=lines,
        note=NOTE,
        drawn=[write_figure(out / "temperatures", partial(curves, findings, epsilon))],
    )
    write_text(out / "report.html", text)
    return out / "report.html"
