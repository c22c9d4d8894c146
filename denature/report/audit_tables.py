"""Tables of an audit: the limit on queries, prices, labels alone, all cells, how it was made."""

from collections.abc import Mapping

from denature.audit.reading import (
    LABEL_ONLY,
    LABELS,
    NONE,
    curve_of,
    defenses,
    final,
    short_names,
    threats,
)
from denature.audit.result import AuditResult, Cell, Crossing, Interval
from denature.extract.config import Threat
from denature.report.audit_verdict import crossing_text, start_of
from denature.report.words import percent

UNKNOWN = "not measurable"


def limit_table(result: AuditResult) -> list[list[str]]:
    """Header and lines: a line for each defense and threat."""
    price = result.plan.price_per_1000
    head = ["Defense", "Threat", "Queries to half", "Queries to 90 %"]
    head += ["US $ to half"] * (price is not None) + ["Recovered %", "Worst thief"]
    head += ["In fidelity %", "Area %"]
    short, lines = short_names(defenses(result)), [head]
    for threat in threats(result):
        for defense, worst in final(result, threat).items():
            curve = curve_of(result, defense, threat)
            half, ninety = (curve.to_half, curve.to_ninety) if curve else (None, None)
            line = [short[defense], threat, _crossing(result, half), _crossing(result, ninety)]
            line += [] if price is None else [_money(half, price)]
            most = max(result.plan.budgets)
            at = "" if worst.budget == most else f", {worst.budget:,} queries"
            line += [_recovered(worst.recovered), worst.thief + at]
            area = curve.area if curve else None
            lines.append([*line, _recovered(worst.recovered_fidelity), _recovered(area)])
    return lines


def _crossing(result: AuditResult, crossing: Crossing | None) -> str:
    return UNKNOWN if crossing is None else crossing_text(crossing, result.plan)


def _money(crossing: Crossing | None, price: float) -> str:
    if crossing is None:
        return UNKNOWN
    return "beyond" if crossing.value is None else f"{crossing.value * price / 1000:,.2f}"


def _recovered(found: Interval | None) -> str:
    return UNKNOWN if found is None else percent(found)


def price_table(result: AuditResult) -> list[list[str]]:
    """Header and lines: what each defense costs honest users."""
    head = ["Defense", "Top-1 kept %", "Accuracy %", "Exact %", "L1", "ECE", "Log loss", "Added ms"]
    short = short_names(defenses(result))
    return [
        head,
        *(
            [
                short[price.defense],
                percent(price.top1_kept),
                percent(price.accuracy),
                percent(price.exact),
                _number(price.l1),
                _number(price.ece),
                _number(price.log_loss),
                f"{price.latency_ms:.2f}",
            ]
            for price in result.defenses
        ),
    ]


def _number(value: float | None) -> str:
    return "labels" if value is None else f"{value:.3f}"


def label_table(result: AuditResult) -> list[list[str]]:
    """Header and lines: what labels alone give away, at each budget."""
    bounded = any(worst.defense == LABEL_ONLY for worst in result.worst)
    head = ["Threat", "Queries", f"Thief {LABELS}, recovered %", "Its clone's accuracy %"]
    lines = [head + [f"Worst thief behind {LABEL_ONLY}, recovered %"] * bounded]
    for threat in threats(result):
        for budget in result.plan.budgets:
            cell = _label_cell(result, threat, budget)
            behind = next(
                (
                    _recovered(worst.recovered)
                    for worst in result.worst
                    if (worst.defense, worst.threat, worst.budget) == (LABEL_ONLY, threat, budget)
                ),
                "not run",
            )
            if cell is None and (not bounded or behind == "not run"):
                continue
            taken = ["not run", ""] if cell is None else [_recovered(cell.recovered), _score(cell)]
            lines.append([threat, f"{budget:,}", *taken, *[behind] * bounded])
    return lines


def _label_cell(result: AuditResult, threat: Threat, budget: int) -> Cell | None:
    place = (NONE, LABELS, threat, budget)
    for cell in result.cells:
        same = (cell.defense, cell.thief, cell.threat, cell.budget) == place
        if same and cell.accuracy is not None:
            return cell
    return None


def _score(cell: Cell) -> str:
    return "" if cell.accuracy is None else percent(cell.accuracy)


def cell_table(result: AuditResult) -> list[list[str]]:
    """Header and lines: every cell of the audit."""
    short = short_names(defenses(result))
    head = ["Defense", "Thief", "Threat", "Outcome", "Note", "Budget", "Seeds"]
    lines = [[*head, "Recovered %", "In fidelity %", "Accuracy %", "Fidelity %"]]
    for cell in result.cells:
        measured = cell.accuracy is not None
        lines.append(
            [
                short[cell.defense], cell.thief, cell.threat, cell.outcome, cell.note,
                f"{cell.budget:,}", str(cell.seeds or ""),
                *(_recovered(found) if measured else ""
                  for found in (cell.recovered, cell.recovered_fidelity)),
                _score(cell), "" if cell.fidelity is None else percent(cell.fidelity),
            ]
        )  # fmt: skip
    return lines


def method_table(result: AuditResult) -> list[list[str]]:
    """Header and lines: the plan, and what was spent."""
    plan, model = result.plan, result.model
    accuracy = f"{percent(model.accuracy)} % before any defense, on {model.accuracy.n:,} images"
    made: dict[str, str] = {
        "Model": f"{model.name}: {model.kind}, {len(model.classes)} classes, {accuracy}; digest "
        f"{model.digest}",
        "Effort": plan.effort,
        "Data": plan.data,
        "Pool": plan.pool + (f"; another domain: {plan.other_pool}" if plan.other_pool else ""),
        "Test images": f"{plan.test:,}: one half chooses the worst thief, the other one is "
        "reported",
        "Labelled images of threat A": f"{plan.labelled:,}" if plan.labelled else "none",
        "Budgets": ", ".join(f"{budget:,}" for budget in plan.budgets),
        "Seeds": str(plan.seeds),
        "Clones": f"{plan.net}, trained afresh at each budget; at least {plan.epochs} epochs and "
        "500 steps, where a thief names no others",
        "Defenses": ", ".join(plan.defenses),
        "Thieves": ", ".join(plan.thieves),
        "Search": _search(plan.grid),
        "Intervals": "95 %, over seeds and test images together; of one seed, over test images",
        "Spent": f"{result.queries:,} queries to the model; {result.seconds:,.0f} s by the "
        "last command, for the cells that no earlier one had measured",
        "Made on": _environment(result.environment),
    }
    made |= {
        f"Without a query, threat {base.threat}": f"{base.name}: accuracy "
        f"{start_of(base)}, fidelity {percent(base.fidelity)} %"
        for base in result.baselines
    }
    return [["Setting", "Value"], *([key, value] for key, value in made.items() if value)]


def _search(grid: bool) -> str:
    if grid:
        return "every applicable thief at every budget with every seed"
    return (
        "every applicable thief at the smallest budget with one seed; then, budget by budget and "
        "with all seeds, the best two, naive, labels, and those that are not behind beyond the "
        "interval over seeds and test images"
    )


def _environment(environment: Mapping[str, object]) -> str:
    versions = environment.get("versions")
    named = versions if isinstance(versions, Mapping) else {}
    said = [str(environment[key]) for key in ("device", "commit") if environment.get(key)]
    return "; ".join([*said, ", ".join(f"{key} {named[key]}" for key in sorted(named))]).strip("; ")
