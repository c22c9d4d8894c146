"""The one line of JSON that other programs build on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from denature.audit.result import AuditResult


def line(result: AuditResult, *, seconds: float, report: Path) -> str:
    """The result of an audit for other programs.

    Accuracies and fidelities are objects with value, low, high, n and over; recovered advantages
    have value, low and high, or are null where they are not measurable; queries beyond the largest
    budget are null. Cells without a measurement are listed apart.
    """
    found: dict[str, Any] = {
        "victim": {"name": result.model.name, "accuracy": asdict(result.model.accuracy)},
        "defenses": [
            {
                "defense": price.defense,
                "top1_kept": price.top1_kept.value,
                "accuracy": price.accuracy.value,
                "l1": price.l1,
                "ece": price.ece,
                "log_loss": price.log_loss,
                "exact": price.exact.value,
                "latency_ms": price.latency_ms,
            }
            for price in result.defenses
        ],
        "cells": [asdict(cell) for cell in result.cells if cell.accuracy is not None],
        "not_measured": [
            {"defense": c.defense, "thief": c.thief, "threat": c.threat, "budget": c.budget,
             "outcome": c.outcome, "note": c.note}
            for c in result.cells if c.accuracy is None
        ],
        "worst": [asdict(worst) for worst in result.worst],
        **{
            name: [
                {"defense": curve.defense, "threat": curve.threat, **asdict(getattr(curve, field))}
                for curve in result.curves
            ]
            for name, field in (("queries_to_half", "to_half"), ("queries_to_90", "to_ninety"))
        },
        "areas": [
            {"defense": curve.defense, "threat": curve.threat,
             "recovered": curve.area and asdict(curve.area)}
            for curve in result.curves
        ],
        "baselines": [asdict(baseline) for baseline in result.baselines],
        "left_out": list(result.left_out),
        "plan": asdict(result.plan),
        "scope": result.scope,
        "date": result.date,
        "seconds": round(seconds, 2),
        "report": str(report),
    }  # fmt: skip
    return json.dumps(found, allow_nan=False)
