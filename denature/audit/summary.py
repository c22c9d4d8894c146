"""From measurements to the cells, worst thieves and curves of a result: pure functions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from denature.audit.cells import CellName, MeasuredCell
from denature.audit.measurements import Measurements
from denature.audit.result import Baseline, Cell, Crossing, CurveSummary, Interval, Worst
from denature.audit.score import (
    AdvantageCurve,
    SeedHits,
    advantage_curve,
    area,
    estimate,
    queries_to,
    recovered,
    recovered_fidelity,
    worst,
)
from denature.core.stats import Estimate
from denature.extract.config import Threat


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One cell on the reporting half."""

    accuracy: Estimate
    fidelity: Estimate
    recovered: Interval | None
    recovered_fidelity: Interval | None


def baselines_of(found: Measurements) -> list[Baseline]:
    """What a thief has without a query, on the reporting half."""
    half = found.halves.reporting
    return [
        Baseline(
            threat=threat,
            name=baseline.name,
            accuracy=_share(baseline.hits, half),
            fidelity=_share(baseline.agreement, half),
        )
        for threat, baseline in found.baselines.items()
    ]


def _share(hits: SeedHits | float, half: np.ndarray) -> Estimate:
    if isinstance(hits, float):
        return Estimate(hits, hits, hits, len(half), "images")
    return estimate(hits[:, half])


def scored(found: Measurements, threat: Threat, cells: Sequence[MeasuredCell]) -> Scored:
    """Accuracy, fidelity and recovered advantage of a cell, on the reporting half."""
    half, baseline = found.halves.reporting, found.baselines[threat]
    hits, agreement = found.hits(cells)[:, half], found.agreement(cells)[:, half]
    right = found.victim[half] == found.labels[half]
    return Scored(
        accuracy=estimate(hits),
        fidelity=estimate(agreement),
        recovered=recovered(hits, _on(baseline.hits, half), right),
        recovered_fidelity=recovered_fidelity(agreement, _on(baseline.agreement, half)),
    )


def _on(hits: SeedHits | float, half: np.ndarray) -> SeedHits | float:
    return hits if isinstance(hits, float) else hits[:, half]


def cells_of(found: Measurements) -> Iterator[Cell]:
    """All cells: raced, screened out, not applicable."""
    for name, cells in found.raced.items():
        yield _measured(found, name, cells, "")
    for name, (cell, screened) in found.screened.items():
        if cell is None:
            yield Cell(**name._asdict(), outcome="screened out", note=screened.note)
        else:
            yield _measured(found, name, [cell], screened.note)
    for name, reason in found.excluded.items():
        yield Cell(**name._asdict(), outcome="not applicable", note=reason)


def _measured(
    found: Measurements, name: CellName, cells: Sequence[MeasuredCell], screened: str
) -> Cell:
    score = scored(found, name.threat, cells)
    notes = dict.fromkeys(cell.note for cell in cells if cell.note)
    return Cell(
        **name._asdict(),
        outcome="screened out" if screened else "raced",
        note=" ".join(filter(None, [screened, "; ".join(notes)])),
        seeds=len(cells),
        queries=max(cell.queries for cell in cells),
        accuracy=score.accuracy,
        fidelity=score.fidelity,
        recovered=score.recovered,
        recovered_fidelity=score.recovered_fidelity,
    )


def columns_of(found: Measurements) -> list[tuple[str, Threat]]:
    """Defenses under their threats, in the order in which they were measured."""
    return list(dict.fromkeys((name.defense, name.threat) for name in found.raced))


def worst_of(found: Measurements) -> Iterator[Worst]:
    """The worst thief against each defense at each budget, chosen on the choosing half."""
    for defense, threat in columns_of(found):
        for budget, (thief, cells) in worst_cells(found, defense, threat).items():
            score = scored(found, threat, cells)
            yield Worst(
                defense=defense,
                threat=threat,
                budget=budget,
                thief=thief,
                accuracy=score.accuracy,
                fidelity=score.fidelity,
                recovered=score.recovered,
                recovered_fidelity=score.recovered_fidelity,
            )


def worst_cells(
    found: Measurements, defense: str, threat: Threat
) -> dict[int, tuple[str, Sequence[MeasuredCell]]]:
    """The worst thief and its cells, by ascending budget."""
    by_budget: dict[int, dict[str, Sequence[MeasuredCell]]] = {}
    for name, cells in found.raced.items():
        if (name.defense, name.threat) == (defense, threat):
            by_budget.setdefault(name.budget, {})[name.thief] = cells
    chosen = {}
    for budget, of_thief in sorted(by_budget.items()):
        hits = {thief: found.hits(cells) for thief, cells in of_thief.items()}
        thief = worst(hits, found.halves.choosing)
        chosen[budget] = (thief, of_thief[thief])
    return chosen


def curves_of(found: Measurements, *, owned: int = 0) -> Iterator[CurveSummary]:
    """Area of each curve of the worst thief, and the queries at which it crosses shares.

    Args:
        found: all that was measured.
        owned: labelled images of threat A, about which its thief asks first.
    """
    for defense, threat in columns_of(found):
        curve = worst_curve(found, defense, threat)
        beyond = Crossing(value=None, low=None, high=None)
        start = max(1, owned) if threat == "A" else 1
        yield CurveSummary(
            defense=defense,
            threat=threat,
            area=None if curve is None else area(curve),
            to_half=beyond if curve is None else queries_to(0.5, curve, start=start),
            to_ninety=beyond if curve is None else queries_to(0.9, curve, start=start),
            least=0 if curve is None else curve.budgets[0],
        )


def worst_curve(found: Measurements, defense: str, threat: Threat) -> AdvantageCurve | None:
    """Recovered advantage of the worst thief at each budget, on the reporting half."""
    half, baseline = found.halves.reporting, found.baselines[threat]
    clones: Mapping[int, SeedHits] = {
        budget: found.hits(cells)[:, half]
        for budget, (_, cells) in worst_cells(found, defense, threat).items()
    }
    right = found.victim[half] == found.labels[half]
    return advantage_curve(clones, _on(baseline.hits, half), right)
