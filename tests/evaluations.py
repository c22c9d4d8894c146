"""Evaluations of networks as single calls, and outcomes that are drawn again, for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from denature.data import DataConfig
from denature.extract.victims.base import Victim
from denature.recipes.flatness import FlatnessComparison
from denature.recipes.robustness import RobustnessEvaluation
from denature.recipes.runner import run
from denature.report.flatness import FlatnessResult
from denature.report.page import render
from denature.report.results import Outcome, read_outcome
from denature.report.robustness import RobustnessResult
from denature.robust.config import AttackConfig
from denature.train import Run
from denature.train.session import Session


def robustness(
    targets: Sequence[Run | Victim],
    data: str | DataConfig,
    attack_config: AttackConfig,
    out: Path,
    *,
    session: Session | None = None,
    **options: Any,
) -> RobustnessResult:
    source = DataConfig(source=data) if isinstance(data, str) else data
    evaluation = RobustnessEvaluation(
        targets=targets, source=source, attack_config=attack_config, folder=out, **options
    )
    outcome = run(evaluation, session)
    assert is_drawn_again(outcome)
    result = outcome.result
    assert isinstance(result, RobustnessResult)
    return result


def flatness(
    runs: Sequence[Run], data: str | DataConfig, out: Path, **options: Any
) -> FlatnessResult:
    source = DataConfig(source=data) if isinstance(data, str) else data
    outcome = run(FlatnessComparison(runs=runs, source=source, folder=out, **options))
    assert is_drawn_again(outcome)
    result = outcome.result
    assert isinstance(result, FlatnessResult)
    return result


def is_drawn_again(outcome: Outcome) -> bool:
    """Whether the files of an outcome give its page again."""
    again = read_outcome(outcome.folder)
    return again.result == outcome.result and render(again.page) == outcome.report.read_text()
