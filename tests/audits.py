"""Results of audits with known numbers, for tests of what is drawn and concluded from them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from denature.audit.findings import findings
from denature.audit.reading import SAME_FEATURES
from denature.audit.result import (
    AuditedModel,
    AuditPlan,
    AuditResult,
    Baseline,
    Cell,
    CellOutcome,
    Crossing,
    CurveSummary,
    DefensePrice,
    Interval,
    Worst,
)
from denature.core.stats import Estimate, proportion
from denature.extract.config import Threat

TEST = 4000
"""Reported test images."""

MODEL_ACCURACY = 0.92

START: Mapping[Threat, float] = {"A": 0.52, "B": 0.1}
"""Accuracy without a query."""

Taken = Mapping[str, Mapping[str, float | str]]
"""By defense and thief: recovered advantage at the largest budget, or why there is none."""

FULL: Taken = {
    "none": {
        "naive": 0.84, "labels": 0.74, "tuned": 0.88, "averaged": "The answers are not random.",
        "recovery": "The answers are not perturbed.",
    },
    "rounding@decimals=1": {
        "naive": 0.83, "labels": 0.74, "tuned": 0.86, "averaged": "The answers are not random.",
        "recovery": "The answers are not perturbed.",
    },
    "label-only": {
        "naive": 0.73, "labels": 0.74, "tuned": 0.72, "averaged": "The answers are not random.",
        "recovery": "There is nothing to recover.",
    },
    "gaussian@scale=0.2": {
        "naive": 0.55, "labels": 0.71, "tuned": 0.62, "averaged": 0.81, "recovery": "screened",
    },
    "mad@epsilon=1.0+keep_top=true": {
        "naive": 0.41, "labels": 0.74, "tuned": 0.58, "averaged": "The answers are not random.",
        "recovery": 0.79,
    },
}  # fmt: skip
"""Five defenses and five thieves."""

THIEVES = ("naive", "labels", "tuned", "averaged", "recovery")

PRICES: Mapping[str, tuple[float, float, float, float | None, float]] = {
    "none": (1.0, MODEL_ACCURACY, 1.0, 0.0, 0.0),
    "rounding@decimals=1": (0.995, 0.917, 0.31, 0.03, 0.02),
    "label-only": (1.0, MODEL_ACCURACY, 0.0, None, 0.01),
    "gaussian@scale=0.2": (0.962, 0.893, 0.0, 0.48, 0.05),
    "mad@epsilon=1.0+keep_top=true": (1.0, MODEL_ACCURACY, 0.0, 0.97, 1.4),
}
"""Top-1 kept, accuracy, share shown exactly, L1 and added milliseconds by defense."""

OTHER_PRICE = (1.0, MODEL_ACCURACY, 0.0, 0.5, 0.1)


def interval(value: float, half: float = 0.04) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


def estimate(value: float, n: int = TEST) -> Estimate:
    return proportion(round(max(0.0, min(1.0, value)) * n), n)


def start(threat: Threat) -> Estimate:
    """Accuracy without a query; that of chance is known."""
    value = START[threat]
    return estimate(value) if threat == "A" else Estimate(value, value, value, TEST, "images")


def price(
    defense: str, kept: float, accuracy: float, exact: float, l1: float | None, ms: float = 0.1
) -> DefensePrice:
    return DefensePrice(
        defense=defense,
        about=f"Settings of {defense.partition('@')[0]} as published.",
        top1_kept=estimate(kept),
        accuracy=estimate(accuracy),
        exact=estimate(exact),
        l1=l1,
        ece=None if l1 is None else 0.03 + l1 / 5,
        log_loss=None if l1 is None else 0.25 + l1 / 2,
        latency_ms=ms,
    )


def audit(
    taken: Taken = FULL,
    *,
    threats: Sequence[Threat] = ("A", "B"),
    budgets: tuple[int, ...] = (1000, 5000),
    half: float = 0.04,
    measurable: bool = True,
    kind: str = "probabilities",
    price_per_1000: float | None = 1.5,
    first: float = 0.6,
    owned: float = 1.0,
) -> AuditResult:
    """An audit in which a thief recovers `taken` at the largest budget, of threat A times `owned`.

    Args:
        taken: see `Taken`; `screened` leaves a thief at the smallest budget.
        threats: of the audit.
        budgets: from the smallest one on.
        half: half of the width of all intervals.
        measurable: whether recovered advantage is known.
        kind: of the model's answers.
        price_per_1000: US $ for a thousand queries.
        first: share of `taken` at the smallest budget.
        owned: see above.
    """
    scale: Mapping[Threat, float] = {"A": owned, "B": 1.0}
    cells = tuple(
        cell
        for threat in threats
        for defense, row in taken.items()
        for thief, value in row.items()
        for cell in _cells(
            defense,
            thief,
            threat,
            value * scale[threat] if isinstance(value, float) else value,
            budgets,
            half,
            measurable,
            first,
        )
    )
    worst = _worst(cells)
    plan = AuditPlan(
        effort="standard", data="cifar10", pool="cifar10, unlabelled", other_pool="tiny-imagenet",
        test=2 * TEST, labelled=500 if "A" in threats else 0, budgets=budgets, seeds=3,
        defenses=tuple(taken),
        thieves=tuple(dict.fromkeys(thief for row in taken.values() for thief in row)),
        net="cnn", epochs=30, grid=False, price_per_1000=price_per_1000,
    )  # fmt: skip
    model = AuditedModel(
        name="runs/victim", kind=kind, classes=tuple("abcdefghij"),
        accuracy=estimate(MODEL_ACCURACY), digest="0123456789abcdef",
    )  # fmt: skip
    result = AuditResult(
        model=model,
        plan=plan,
        baselines=tuple(
            Baseline(
                threat=threat, name="smoothed labels" if threat == "A" else "chance",
                accuracy=start(threat), fidelity=start(threat),
            )
            for threat in threats
        ),
        defenses=tuple(price(name, *PRICES.get(name, OTHER_PRICE)) for name in taken),
        cells=cells,
        worst=worst,
        curves=tuple(_curves(worst, half)),
        findings=(),
        left_out=("reverse-sigmoid: it needs logits, and the model shows probabilities.",),
        queries=50_000,
        seconds=5_321.5,
        environment={"versions": {"torch": "2.9"}, "commit": "abc1234", "device": "cpu"},
    )  # fmt: skip
    return with_findings(result)


def with_findings(result: AuditResult) -> AuditResult:
    return replace(result, findings=findings(result))


def _cells(
    defense: str, thief: str, threat: Threat, value: float | str, budgets: tuple[int, ...],
    half: float, measurable: bool, first: float,
) -> list[Cell]:  # fmt: skip
    def cell(budget: int, outcome: CellOutcome, share: float, seeds: int, note: str = "") -> Cell:
        accuracy = START[threat] + share * (MODEL_ACCURACY - START[threat])
        wide = half * (2 if outcome == "screened out" else 1)
        recovered = interval(share, wide) if measurable else None
        return Cell(
            defense=defense, thief=thief, threat=threat, budget=budget, outcome=outcome, note=note,
            seeds=seeds, queries=budget, accuracy=estimate(accuracy),
            fidelity=estimate(accuracy + 0.01), recovered=recovered, recovered_fidelity=recovered,
        )  # fmt: skip

    if value == "screened":
        note = "The second best thief leads it by 21 points."
        return [cell(budgets[0], "screened out", 0.3, 1, note)]
    if isinstance(value, str):
        return [
            Cell(defense=defense, thief=thief, threat=threat, budget=budgets[0], note=value,
                 outcome="not applicable")
        ]  # fmt: skip
    steps = max(1, len(budgets) - 1)
    return [
        cell(budget, "raced", value * (first + (1 - first) * place / steps), 3)
        for place, budget in enumerate(budgets if len(budgets) > 1 else ())
    ] or [cell(budgets[0], "raced", value, 3)]


def _worst(cells: Sequence[Cell]) -> tuple[Worst, ...]:
    """The thief with the largest number of each defense, threat and budget."""
    found: dict[tuple[str, Threat, int], Cell] = {}
    for cell in cells:
        if cell.outcome != "raced" or cell.accuracy is None:
            continue
        place = (cell.defense, cell.threat, cell.budget)
        best = found.get(place)
        if best is None or best.accuracy is None or cell.accuracy.value > best.accuracy.value:
            found[place] = cell
    return tuple(
        Worst(
            defense=defense, threat=threat, budget=budget, thief=cell.thief,
            accuracy=cell.accuracy, fidelity=cell.fidelity,
            recovered=cell.recovered, recovered_fidelity=cell.recovered_fidelity,
        )
        for (defense, threat, budget), cell in found.items()
        if cell.accuracy is not None and cell.fidelity is not None
    )  # fmt: skip


def _curves(worst: Sequence[Worst], half: float) -> list[CurveSummary]:
    """Crossings on straight lines over the budgets, from nothing at no query."""
    found = []
    for defense, threat in dict.fromkeys((w.defense, w.threat) for w in worst):
        entries = [w for w in worst if (w.defense, w.threat) == (defense, threat)]
        points = [(w.budget, w.recovered.value) for w in entries if w.recovered is not None]
        area = interval(sum(value for _, value in points) / len(points), half) if points else None
        found.append(
            CurveSummary(
                defense=defense, threat=threat, area=area,
                to_half=_crossing(points, 0.5, half), to_ninety=_crossing(points, 0.9, half),
            )
        )  # fmt: skip
    return found


def _crossing(points: Sequence[tuple[int, float]], share: float, half: float) -> Crossing:
    def at(shift: float) -> float | None:
        before = (0, 0.0)
        for budget, value in points:
            if value + shift >= share:
                span = value + shift - before[1]
                return before[0] + (budget - before[0]) * (share - before[1]) / span
            before = (budget, value + shift)
        return None

    return Crossing(value=at(0.0), low=at(half), high=at(-half))


SAME = {**FULL, "none": {**FULL["none"], SAME_FEATURES: 0.99}}
"""An audit that the thief with the model's own encoder wins."""
