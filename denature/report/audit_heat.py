"""Recovered advantage of each thief against each defense as a heat map."""

from denature.audit.reading import defenses, final, final_cell, short_names, thieves
from denature.audit.result import AuditResult, Cell, Worst
from denature.core.text import counted
from denature.extract.config import Threat
from denature.report.page import HeatCell, HeatMap
from denature.report.words import share

NOTE = (
    "Framed: the worst thief against a defense, chosen on one half of the test images; the other "
    "half is shown, so that another number of a column can be larger. In italics: of a smaller "
    "budget, after which the thief was screened out. n/a: the thief does not apply there; ?: not "
    "measurable. Each cell has its reason and intervals beside the pointer, and in the table of "
    "all cells below."
)


def heat_map(result: AuditResult, threat: Threat, *, note: str) -> HeatMap:
    """The map of one threat, at the largest budget at which each thief was measured."""
    columns = defenses(result)
    short = short_names(columns)
    worst = final(result, threat)
    gone = {(cell.defense, cell.thief) for cell in result.cells
            if (cell.threat, cell.outcome) == (threat, "screened out")}  # fmt: skip
    rows = []
    for thief in thieves(result):
        cells = [final_cell(result, defense, thief, threat) for defense in columns]
        if any(cells):
            marks = [defense in worst and worst[defense].thief == thief for defense in columns]
            # A framed cell is that of the worst thief's budget, which may be a smaller one.
            framed = (
                _measured_at(result, worst[defense], cell) if marked else cell
                for defense, cell, marked in zip(columns, cells, marks, strict=True)
            )
            cells = list(framed)
            pairs = zip(cells, marks, strict=True)
            entries = [
                _heat_cell(cell, marked, left=cell is not None and (cell.defense, thief) in gone)
                for cell, marked in pairs
            ]
            rows.append((thief, entries))
    budget = max((entry.budget for entry in result.worst if entry.threat == threat), default=0)
    return HeatMap(
        columns=[short[name] for name in columns],
        rows=rows,
        corner="thief",
        caption="Recovered advantage in % by thief and defense, at the largest budget of each "
        f"cell (at most {budget:,} queries).",
        note=note,
        heading=f"Thieves and defenses, threat {threat}",
    )


def _measured_at(result: AuditResult, worst: Worst, other: Cell | None) -> Cell | None:
    """The cell of a worst thief."""
    place = (worst.defense, worst.thief, worst.threat, worst.budget)
    for cell in result.cells:
        if (cell.defense, cell.thief, cell.threat, cell.budget) == place:
            return cell
    return other


def _heat_cell(cell: Cell | None, marked: bool, *, left: bool) -> HeatCell:
    """A cell of the map; `left` where the thief was screened out at this budget or later."""
    if cell is None:
        return HeatCell(text="", tip="Not run.", kind="empty")
    tip = cell_tip(cell)
    if marked:
        tip = f"Worst thief. {tip}"
    if cell.outcome == "not applicable":
        return HeatCell(text="n/a", tip=tip, kind="empty")
    if cell.recovered is None:
        kind = "out" if cell.outcome == "screened out" else "?"
        return HeatCell(text=kind, tip=tip, kind="empty", marked=marked)
    value = cell.recovered.value
    return HeatCell(
        text=f"{100 * value:z.0f}",
        tip=tip,
        kind="minor" if left else "measured",
        share=min(1.0, max(0.0, value)),
        marked=marked,
    )


def cell_tip(cell: Cell) -> str:
    """All that is known of a cell, in sentences."""
    said = [f"{cell.thief} against {cell.defense}."]
    if cell.outcome == "not applicable":
        said.append("Not applicable.")
    else:
        seeds = counted(cell.seeds, "seed")
        screened = "Screened out: " if cell.outcome == "screened out" else ""
        said.append(f"{screened}{cell.queries:,} queries, {seeds}.")
        if cell.recovered is not None:
            said.append(f"Recovered {share(cell.recovered)}.")
        elif cell.accuracy is not None:
            said.append("Recovered advantage is not measurable.")
        if cell.accuracy is not None and cell.fidelity is not None:
            said.append(f"Accuracy {share(cell.accuracy)}, fidelity {share(cell.fidelity)}.")
    return " ".join([*said, *[cell.note] * bool(cell.note)])
