"""Robustness as a page: the table, curves against the budget, checks, smallest changes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from denature.core.record import Record
from denature.core.stats import Estimate
from denature.data.png import from_png
from denature.extract.asking.limits import in_dollars
from denature.report.figures import PALETTE, new_figure
from denature.report.page import Item, Items, Page, Plot, Table
from denature.report.words import CHOSEN_ON_TEST, conclusion, marked, percent
from denature.robust.config import budget_text, format_budget
from denature.robust.summary import AttackResult, Robustness
from denature.robust.verdict import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTE = (
    "Robust: share of the samples that stay right, with its 95 % interval (Wilson). Worst: "
    "against all attacks that ran, at any smaller budget too; a change that any attack found "
    "counts in every norm that it fits. Each proposed change is checked in fp32, within [0, 1] and "
    "within the budget. Worst is shown at each budget of the verdict, which is over their mean; "
    "single attacks at one of them."
)

SMALLEST = " Smallest: the mean distance of the adversarial examples."

COMPARE = (
    "Undefended networks are what a defense is compared with: name a defended network beside them "
    "for a verdict."
)

PICTURES = 5
"""Samples in the figure of the smallest changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The smallest change of one sample that fooled one network, by any attack."""

    attack: str
    distance: float
    """In l2."""
    png: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sample that all networks answer rightly, and its smallest change for each network."""

    png: str
    name: str
    """Name of its class."""
    changes: tuple[Change | None, ...]
    """In the order of the networks; None where no attack fooled the network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustnessResult:
    """Evaluations in the order of the targets; undefended networks outside of them come last."""

    result_type: ClassVar[str] = "robustness"
    data: str
    budgets: Mapping[str, tuple[float, ...]]
    """Perturbation budgets by norm."""
    judged: tuple[Evaluation, ...]
    plain: tuple[tuple[float, ...], ...]
    """For each network its robust share under plain gradient attacks at each linf budget; empty
    where these attacks did not run."""
    samples: tuple[Sample, ...]
    """Samples in the figure of the smallest changes."""
    queries: Mapping[str, int]
    """Number of queries to each black box, by its name."""
    dollars: Mapping[str, float] = field(default_factory=dict)
    """US dollars for these queries, of the black boxes whose price is known."""
    scope: str = ""
    """Scope and permission of the test, as stated by the caller."""
    date: str = ""
    """Day on which the evaluation ended, in UTC; empty in results of an earlier version."""


def _spent(result: RobustnessResult, name: str) -> str:
    dollars = result.dollars.get(name)
    cost = "" if dollars is None else f" for {in_dollars(dollars)}"
    return f"{name}: {result.queries[name]:,} queries{cost}."


def page(result: RobustnessResult, records: Sequence[Record]) -> Page:
    """Verdicts, curves against the budget, checks for masked gradients, smallest changes."""
    judged, attacks = result.judged, attack_table(result)
    verdicts = [
        f"{evaluation.robustness.run}: {evaluation.verdict.word}. {evaluation.verdict.said}"
        for evaluation in judged
        if evaluation.verdict is not None
    ]
    verdicts = verdicts or [*map(_undefended, judged), COMPARE]
    verdicts += [CHOSEN_ON_TEST] * any(e.robustness.chosen_on_test for e in judged)
    verdicts += [_spent(result, name) for name in result.queries]
    return Page(
        title="Robustness",
        summary=_summary(judged),
        scope=result.scope,
        date=result.date,
        about=_about(judged[0].robustness),
        verdict=verdicts,
        blocks=(
            Plot(
                heading="Robust accuracy",
                name="curves",
                draw=partial(curves, result),
                caption="Robust accuracy against the budget, with 95 % intervals. Solid: against "
                "all attacks. Dashed: against plain gradient attacks (FGSM, PGD) alone.",
            ),
            Table(
                heading="Attacks", lines=attacks, note=NOTE + SMALLEST * ("Smallest" in attacks[0])
            ),
            *(_checks(evaluation) for evaluation in judged),
            Plot(
                heading="The smallest changes",
                name="smallest",
                draw=partial(smallest_changes, result),
                caption="Test samples in the first row; below, for each network, the smallest "
                "change in l2 that fooled it, with its attack and size.",
            ),
        ),
    )


def _summary(judged: Sequence[Evaluation]) -> str:
    """The conclusion on each defense."""
    said = [f"{e.robustness.run} {conclusion(e.verdict)}" for e in judged if e.verdict is not None]
    return "; ".join(said) + "." if said else "Undefended networks alone, so no verdict."


def _undefended(evaluation: Evaluation) -> str:
    """What is left of a network without a verdict, by norm at the middle budget."""
    measured = evaluation.robustness
    left = "; ".join(
        f"{percent(list(shares.values())[len(shares) // 2])} % at {norm} "
        f"{budget_text(float(list(shares)[len(shares) // 2]))}"
        for norm, shares in measured.worst.items()
        if shares
    )
    raised, checks = sum(check.raised for check in evaluation.checks), len(evaluation.checks)
    signs = f"; {raised} of {checks} checks for gradient masking are raised" if checks else ""
    return (
        f"{measured.run} (undefended): {percent(measured.clean)} % of the samples are right, and "
        f"against all attacks {left or 'none ran'} stay so{signs}."
    )


def _checks(evaluation: Evaluation) -> Items:
    return Items(
        heading=f"Checks for gradient masking: {evaluation.robustness.run}",
        items=[
            Item(
                strong=f"Raised: {check.name}.",
                text=f"{check.found} {check.raised_if} {check.why} {check.advice}",
            )
            if check.raised
            else Item(text=f"Not raised: {check.name}. {check.found}")
            for check in evaluation.checks
        ],
    )


def attack_table(result: RobustnessResult) -> list[list[str]]:
    """Header and lines: a line for each network and attack; no column is empty."""
    budgets = {
        norm: [format_budget(epsilon) for epsilon in values]
        for norm, values in result.budgets.items()
    }
    compared, names = _compared(result), _names(result)
    middle = {norm: _middle(keys, compared.get(norm, ())) for norm, keys in budgets.items()}
    lines = [["Network", "Attack", "Norm", "Budget", "Robust %", "Smallest", "Not run", "Seconds"]]
    for evaluation in result.judged:
        measured = evaluation.robustness
        clean = marked(percent(measured.clean), measured.chosen_on_test)
        name = names[measured.run]
        lines.append([name, "none", "", "", clean, "", "", ""])
        for attack in measured.attacks:
            key = middle[attack.norm] if middle[attack.norm] in attack.robust else None
            key = key or next(iter(attack.robust), "")
            robust = percent(attack.robust[key]) if key else _not_run(attack)
            smallest = "" if attack.smallest is None else _distance(attack.smallest)
            lines.append(
                [
                    name,
                    attack.name + (f" ({attack.note})" if attack.note else ""),
                    attack.norm,
                    budget_text(float(key)) if key else "",
                    robust,
                    smallest,
                    str(attack.not_run or ""),
                    f"{attack.seconds:.1f}",
                ]
            )
        for norm, shares in measured.worst.items():
            for key in compared.get(norm, (middle[norm],)):
                if key in shares:
                    budget, worst = budget_text(float(key)), percent(shares[key])
                    lines.append([name, "worst", norm, budget, worst, "", "", ""])
    used = [any(cells) for cells in zip(*lines[1:], strict=True)]
    return [list(compress(line, used)) for line in lines]


def _compared(result: RobustnessResult) -> dict[str, list[str]]:
    """The budgets over which the verdicts are taken, by norm."""
    gains = [evaluation.verdict.real for evaluation in result.judged if evaluation.verdict]
    return {
        norm: list(
            map(format_budget, sorted({b for g in gains if g.norm == norm for b in g.budgets}))
        )
        for norm in dict.fromkeys(gain.norm for gain in gains)
    }


def _middle(budgets: Sequence[str], compared: Sequence[str]) -> str:
    """The budget at which single attacks are shown: the middle one, where verdicts are taken."""
    middle = budgets[len(budgets) // 2]
    return compared[0] if compared and middle not in compared else middle


def _not_run(attack: AttackResult) -> str:
    """Text in place of a share; an error by its first line."""
    if not attack.crashed:
        return "did not run"
    [first, *_] = attack.error.splitlines() or [""]
    return f"failed: {first[:80]}"


def _distance(measured: Estimate) -> str:
    return f"{measured.value:.3g} [{measured.low:.3g}, {measured.high:.3g}]"


def curves(result: RobustnessResult) -> "Figure | None":
    """Robust accuracy against the budget: plain gradients dashed, all attacks solid."""
    norms = [
        norm for norm in result.budgets if any(e.robustness.worst[norm] for e in result.judged)
    ]
    if not norms:
        return None
    figure, names = new_figure(7.4, 2.7), _names(result)
    for place, norm in enumerate(norms):
        axes = figure.add_subplot(1, len(norms), place + 1)
        budgets = result.budgets[norm]
        looks = islice(cycle(PALETTE), len(result.judged))
        for colour, evaluation, plain in zip(looks, result.judged, result.plain, strict=True):
            clean = evaluation.robustness.clean
            shares = evaluation.robustness.worst[norm]
            worst = [clean, *shares.values()]
            at = [0.0, *(epsilon for epsilon in budgets if format_budget(epsilon) in shares)]
            axes.plot(at, [100 * e.value for e in worst], "o-", color=colour, markersize=3,
                      label=names[evaluation.robustness.run])  # fmt: skip
            axes.fill_between(
                at, [100 * e.low for e in worst], [100 * e.high for e in worst],
                color=colour, alpha=0.15, linewidth=0,
            )  # fmt: skip
            if norm == "linf" and plain:
                held = [100 * share for share in (clean.value, *plain)]
                axes.plot([0.0, *budgets], held, "--", color=colour, linewidth=1)
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


def _names(result: RobustnessResult) -> dict[str, str]:
    """Names for tables and figures: the last two parts of a path, where these are of one alone."""
    runs = [evaluation.robustness.run for evaluation in result.judged]
    short = {run: "/".join(Path(run).parts[-2:]) for run in runs}
    count = Counter(short.values())
    return {run: name if count[name] == 1 else run for run, name in short.items()}


def smallest_changes(result: RobustnessResult) -> "Figure | None":
    """Samples, and the smallest change in l2 that any attack found for each network."""
    if not result.samples:
        return None
    rows = len(result.judged) + 1
    figure = new_figure(1.3 * len(result.samples) + 0.6, 1.35 * rows)
    grid = figure.add_gridspec(rows, len(result.samples), wspace=0.1, hspace=0.35)
    for column, sample in enumerate(result.samples):
        _draw(figure.add_subplot(grid[0, column]), sample.png, sample.name)
        for row, change in enumerate(sample.changes):
            axes = figure.add_subplot(grid[row + 1, column])
            if change is not None:
                _draw(axes, change.png, f"{change.attack}\n{change.distance:.2f}")
            else:
                axes.set_axis_off()
                axes.text(0.5, 0.5, "not fooled", ha="center", fontsize=7)
            if column == 0:
                run = result.judged[row].robustness.run
                axes.text(-0.15, 0.5, Path(run).name, rotation=90, fontsize=6,
                          transform=axes.transAxes, va="center", ha="right")  # fmt: skip
    return figure


def _draw(axes: "Axes", png: str, title: str) -> None:
    axes.imshow(from_png(png), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=6, pad=2)


def _about(measured: Robustness) -> str:
    return (
        f"{len(measured.samples)} test samples, balanced over classes, seed {measured.seed}; "
        f"effort {measured.effort}."
    )
