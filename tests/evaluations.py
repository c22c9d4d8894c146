"""Evaluations of networks as single calls, for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from denature.data import DataConfig
from denature.extract.victims.base import Victim
from denature.recipes.flatness import FlatnessComparison
from denature.recipes.robustness import RobustnessEvaluation
from denature.recipes.runner import run
from denature.report.flatness import FlatnessResult
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
    result = run(evaluation, session).result
    assert isinstance(result, RobustnessResult)
    return result


def flatness(
    runs: Sequence[Run], data: str | DataConfig, out: Path, **options: Any
) -> FlatnessResult:
    source = DataConfig(source=data) if isinstance(data, str) else data
    result = run(FlatnessComparison(runs=runs, source=source, folder=out, **options)).result
    assert isinstance(result, FlatnessResult)
    return result
