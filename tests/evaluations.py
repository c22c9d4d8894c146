"""Evaluations of networks as single calls, and outcomes that are drawn again, for tests."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from denature.core.redact import without_paths
from denature.core.schema import encode
from denature.data import DataConfig
from denature.extract.victims.base import Victim
from denature.recipes.experiment import Experiment
from denature.recipes.flatness import FlatnessComparison, FlatnessConfig
from denature.recipes.robustness import RobustnessEvaluation
from denature.recipes.runner import run
from denature.report.flatness import FlatnessResult
from denature.report.page import REPORT, render
from denature.report.results import Outcome, read_outcome
from denature.report.robustness import RobustnessResult
from denature.robust.config import AttackConfig
from denature.train import Run
from denature.train.config import Device
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
    """What is measured, without its page: figures take longer than most attacks of tests."""
    result = _measured(_robustness(targets, data, attack_config, out, **options), session)
    assert isinstance(result, RobustnessResult)
    return result


def robustness_and_page(
    targets: Sequence[Run | Victim],
    data: str | DataConfig,
    attack_config: AttackConfig,
    out: Path,
    **options: Any,
) -> RobustnessResult:
    outcome = run(_robustness(targets, data, attack_config, out, **options))
    assert is_drawn_again(outcome)
    result = outcome.result
    assert isinstance(result, RobustnessResult)
    return result


def flatness(
    runs: Sequence[Run],
    data: str | DataConfig,
    out: Path,
    *,
    device: Device = "auto",
    **options: int,
) -> FlatnessResult:
    """What is measured, without its page."""
    comparison = FlatnessComparison(
        runs=runs,
        source=_config(data),
        folder=out,
        config=FlatnessConfig(**options),
        device=device,
    )
    result = _measured(comparison)
    assert isinstance(result, FlatnessResult)
    return result


def _robustness(
    targets: Sequence[Run | Victim],
    data: str | DataConfig,
    attack_config: AttackConfig,
    out: Path,
    **options: Any,
) -> RobustnessEvaluation:
    return RobustnessEvaluation(
        targets=targets, source=_config(data), attack_config=attack_config, folder=out, **options
    )


def _config(data: str | DataConfig) -> DataConfig:
    return DataConfig(source=data) if isinstance(data, str) else data


def _measured(experiment: Experiment, session: Session | None = None) -> object:
    session = session or Session()
    return experiment.measure({}, experiment.data(session.progress), session).result


def is_drawn_again(outcome: Outcome) -> bool:
    """Whether the files of an outcome give it and its page again, without this machine's paths."""
    again = encode(read_outcome(outcome.folder).result)
    same = again == without_paths(encode(outcome.result), outcome.folder)
    return same and page_is_drawn_again(outcome.folder)


def page_is_drawn_again(folder: Path) -> bool:
    """Whether result and records in a folder give the page in it."""
    return render(read_outcome(folder).page) == (folder / REPORT).read_text()


def around(run: Run, network: nn.Module, name: str, recipe: str = "") -> Run:
    """A run with another network in it, of a recipe of its own."""
    net = replace(run.record.net, digest=name)
    record = replace(run.record, recipe=recipe or name, net=net)
    return Run(record, network.eval(), run.folder and run.folder.parent / name)
