"""Readings of an audit's result that findings and pages share."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from denature.audit.config import IN_TRAINING
from denature.audit.result import (
    AuditResult,
    Cell,
    Crossing,
    CurveSummary,
    DefensePrice,
    Interval,
    Worst,
)
from denature.core.stats import less
from denature.extract.config import Threat

NONE = "none"
"""The model without a defense."""

LABEL_ONLY = "label-only"
"""The defense that shows the class alone."""

NAIVE, LABELS, SAME_FEATURES = "naive", "labels", "same-features"
"""Thieves that conclusions name."""

USABLE = 0.9
"""Share of images that keep their shown class, below which a defense may ruin a model for users."""


def spoiled(result: AuditResult) -> list[DefensePrice]:
    """Defenses that change the class of too many images, by the whole interval: no defenses.

    A nasty teacher is another network, and may name other classes where both are wrong: it must be
    right less often than the model, too.
    """
    return [
        price
        for price in result.defenses
        if price.top1_kept.high < USABLE
        and (price.defense != IN_TRAINING or is_less_right(result, price))
    ]


def is_less_right(result: AuditResult, price: DefensePrice) -> bool:
    """Whether a defense is shown to cost accuracy; the interval takes both for independent."""
    return less(price.accuracy, result.model.accuracy).high < 0


def difference(left: Interval, right: Interval) -> Interval:
    """`left` minus `right` with a 95 % interval that takes them for independent.

    Clones of one audit share test images, so that the interval is too wide and hardly ever too
    narrow.
    """
    return Interval(**less(left, right)._asdict())


def is_lower(left: Interval, right: Interval) -> bool:
    """Whether the interval of the difference lies below 0."""
    return difference(left, right).high < 0


def one_seed(result: AuditResult) -> bool:
    """Whether intervals cover test images alone, so that no difference is settled."""
    return result.plan.seeds == 1


def lowers(result: AuditResult, left: Interval, right: Interval) -> bool:
    """Whether the first is shown to be lower; one seed shows nothing."""
    return not one_seed(result) and is_lower(left, right)


def threats(result: AuditResult) -> list[Threat]:
    """Threats with at least one cell."""
    return sorted({cell.threat for cell in result.cells})


def defenses(result: AuditResult) -> list[str]:
    """Defenses of the audit, in the order of their prices, then of their cells."""
    named = [price.defense for price in result.defenses]
    return list(dict.fromkeys([*named, *(cell.defense for cell in result.cells)]))


def thieves(result: AuditResult) -> list[str]:
    """Thieves of the audit, in the order of its plan, then of their cells."""
    return list(dict.fromkeys([*result.plan.thieves, *(cell.thief for cell in result.cells)]))


def final(result: AuditResult, threat: Threat) -> dict[str, Worst]:
    """The worst thief by defense, within the largest budget of a threat.

    It is that of the largest budget, or that of a smaller one which is shown to take more: a thief
    may leave out queries, and one that learns from the whole pool is raced with few alone. Of two
    that differ by chance the larger budget counts, since the largest of several is too large.
    """
    found: dict[str, Worst] = {}
    for worst in sorted(result.worst, key=lambda entry: entry.budget):
        before = found.get(worst.defense)
        if worst.threat == threat and (before is None or not _less(worst, before)):
            found[worst.defense] = worst
    return {name: found[name] for name in defenses(result) if name in found}


def _less(later: Worst, before: Worst) -> bool:
    if later.recovered is None or before.recovered is None:
        return False
    return is_lower(later.recovered, before.recovered)


def left_by(result: AuditResult, threat: Threat) -> dict[str, Interval]:
    """Recovered advantage of the worst thief by defense; see `final`."""
    found = final(result, threat)
    return {name: worst.recovered for name, worst in found.items() if worst.recovered is not None}


def measurable(result: AuditResult) -> list[Threat]:
    """Threats in which recovered advantage is known for at least one defense."""
    return [threat for threat in threats(result) if left_by(result, threat)]


def final_cell(result: AuditResult, defense: str, thief: str, threat: Threat) -> Cell | None:
    """The cell of a thief at the largest budget at which it was measured, else any other one.

    Cells that were raced come before those that were screened out.
    """
    place = (defense, thief, threat)
    cells = [cell for cell in result.cells if (cell.defense, cell.thief, cell.threat) == place]
    return max(
        cells, default=None,
        key=lambda cell: (cell.outcome == "raced", cell.accuracy is not None, cell.budget),
    )  # fmt: skip


def raced(result: AuditResult, defense: str, thief: str, threat: Threat) -> Interval | None:
    """What a thief recovered at the largest budget of the threat; None where it was not raced."""
    budget = max((worst.budget for worst in result.worst if worst.threat == threat), default=0)
    cell = final_cell(result, defense, thief, threat)
    if cell is None or cell.outcome != "raced" or cell.budget != budget:
        return None
    return cell.recovered


class QueryLimit(NamedTuple):
    """Where a limit on the queries of one client belongs."""

    threat: Threat
    """The one that reaches half of the advantage first."""
    crossing: Crossing
    """Queries that reach it there."""
    limit: float
    """Fewest queries that may reach it, by the intervals of all threats."""
    least: int
    """Smallest budget of the threat; fewer queries are interpolated."""


def query_limit(result: AuditResult, defense: str = NONE) -> QueryLimit | None:
    """The limit behind a defense; None where half lies beyond all budgets, or is not measurable."""
    curves = {t: c for t in measurable(result) if (c := curve_of(result, defense, t))}
    reached = {t: c.to_half.value for t, c in curves.items() if c.to_half.value is not None}
    if not reached:
        return None
    threat = min(reached, key=lambda t: reached[t])
    lows = [curve.to_half.low for curve in curves.values() if curve.to_half.low is not None]
    least = curves[threat].least or min(result.plan.budgets)
    return QueryLimit(threat, curves[threat].to_half, min(lows), least)


def curve_of(result: AuditResult, defense: str, threat: Threat) -> CurveSummary | None:
    """The summary of one curve; None where recovered advantage is not measurable."""
    for curve in result.curves:
        if (curve.defense, curve.threat) == (defense, threat) and curve.area is not None:
            return curve
    return None


def short_names(spelled: Sequence[str]) -> Mapping[str, str]:
    """Names of defenses without options, where these tell them apart; by full spelling."""
    plain = {name: _without_options(name) for name in spelled}
    names = list(plain.values())
    return {name: short if names.count(short) == 1 else name for name, short in plain.items()}


def short_name(result: AuditResult, defense: str) -> str:
    """The name of one defense of an audit; see `short_names`."""
    return short_names(defenses(result))[defense]


def _without_options(name: str) -> str:
    """`mad` of `mad@epsilon=0.5+top=true`; the parts of a chain stay."""
    parts = [part for part in name.split("+") if "@" in part or "=" not in part]
    return "+".join(part.partition("@")[0] for part in parts)
