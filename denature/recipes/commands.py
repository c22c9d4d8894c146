"""What the commands on models do, for the command line and for Python: from names to experiments.

Each function opens its model and its data, names the folder, and makes what carries the work out.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from denature.audit.config import AuditConfig
from denature.core.keywords import many
from denature.core.progress import SILENT, Progress
from denature.core.record import read_record
from denature.data import load
from denature.data.given import DataLike
from denature.data.loading import config_of
from denature.defenses.rounding import Rounding
from denature.extract.config import ExtractionConfig
from denature.extract.planning import PlannedTheft, plan_theft
from denature.extract.stealing import carry_out
from denature.extract.victims.base import Victim
from denature.extract.victims.called import FunctionVictim
from denature.extract.victims.find import folder_name
from denature.nets import check_name
from denature.recipes.audit import Audit
from denature.recipes.evaluation import ModelEvaluation
from denature.recipes.flatness import FlatnessComparison, FlatnessConfig
from denature.recipes.given import ModelLike, backbone_of, models_of, name_of, open_target
from denature.recipes.models import ModelOptions, price_of
from denature.recipes.robustness import RobustnessEvaluation
from denature.remote.config import RequestConfig
from denature.report.results import Outcome, write_outcome
from denature.robust.config import AttackConfig
from denature.robust.verdict import CONTROLS
from denature.train.config import Device, Precision, Training
from denature.train.objectives.cloned import Cloned
from denature.train.run import Run, load_run
from denature.train.session import Session

DIGEST = re.compile(r"\b[0-9a-f]{16}\b")
"""Digest of code or weights in the identity of a function."""


def audit_of(
    model: ModelLike,
    data: DataLike,
    *,
    pool: DataLike | None = None,
    other_pool: DataLike | None = None,
    backbone: Run | str | Path | None = None,
    encoder: Run | str | Path | None = None,
    config: AuditConfig,
    epochs: int = 30,
    seed: int = 0,
    options: ModelOptions,
    max_queries: int | None = None,
    max_cost: float | None = None,
    pace: RequestConfig,
    name: str | None = None,
    scope: str = "",
    out: str | Path | None = None,
    device: Device = "auto",
    trust: Collection[str] = (),
    progress: Progress = SILENT,
) -> Audit:
    """An audit; see `denature.api.audit` for the arguments."""
    start = backbone_of(backbone, trust)
    public = encoder if isinstance(encoder, Run | None) else load_run(encoder, trust=trust)
    if config.student is not None:
        check_name(config.student)
    source = config_of(data, progress=progress)
    [opened] = models_of(
        [model], source, name=name, options=options, pace=pace, trust=trust, progress=progress
    )
    name = name or name_of(model)
    return Audit(
        model=opened,
        name=name,
        config=replace(config, price_per_1000=price_of(model, config.price_per_1000)),
        source=source,
        folder=_folder(out, f"audit-of-{_short(name, opened)}"),
        pool=None if pool is None else config_of(pool, progress=progress),
        other_pool=None if other_pool is None else config_of(other_pool, progress=progress),
        backbone=start,
        encoder=public,
        training=Training(epochs=epochs, seed=seed, device=device),
        pace=pace,
        max_queries=max_queries,
        max_cost=max_cost,
        scope=scope,
        device=device,
    )


def theft_of(
    model: ModelLike,
    pool: DataLike,
    *,
    student: str,
    budget: Sequence[int],
    test: DataLike | None = None,
    backbone: Run | str | Path | None = None,
    config: ExtractionConfig,
    objective: Cloned | None = None,
    decimals: int | None = None,
    training: Training | None = None,
    options: ModelOptions,
    top: int = 0,
    endpoint_url: str | None = None,
    price_per_1000: float | None = None,
    max_cost: float | None = None,
    pace: RequestConfig,
    name: str | None = None,
    scope: str = "",
    out: str | Path | None = None,
    trust: Collection[str] = (),
    session: Session,
) -> PlannedTheft:
    """A theft, checked without a query; see `denature.api.steal` for the arguments."""
    per_1000, progress = price_of(model, price_per_1000), session.progress
    start = backbone_of(backbone, trust)
    check_name(student)
    source = config_of(pool, progress=progress)
    tests = source if test is None else config_of(test, progress=progress)
    victim = open_target(
        model,
        tests,
        name=name,
        options=options,
        top=top,
        endpoint_url=endpoint_url,
        values=tests.points,
        pace=pace,
        trust=trust,
        progress=progress,
    )
    of = _short(options.model or name or name_of(model), victim)
    return plan_theft(
        victim,
        net=student,
        backbone=start,
        pool=source,
        budgets=budget,
        out=_folder(out, f"theft-of-{of}-with-{folder_name(source.source)}"),
        test=None if test is None else tests,
        stealing=config,
        pace=pace,
        objective=objective,
        defense=None if decimals is None else Rounding(decimals=decimals),
        training=training,
        price=None if per_1000 is None else per_1000 / 1000,
        max_cost=max_cost,
        scope=scope,
        session=session,
    )


def finish(planned: PlannedTheft) -> Outcome:
    """Carry out a theft, or what is left of it, and write its result and its page."""
    theft = carry_out(planned)
    records = [read_record(Path(clone.folder)) for clone in theft.clones]
    with planned.session.progress.task("writing the report", 0, "files"):
        return write_outcome(theft, records, planned.out)


def robustness_of(
    models: Sequence[ModelLike],
    data: DataLike,
    *,
    undefended: Sequence[Run | str | Path] = (),
    controls: int = CONTROLS,
    max_queries: int | None = None,
    price_per_1000: float | None = None,
    max_cost: float | None = None,
    config: AttackConfig,
    options: ModelOptions,
    pace: RequestConfig,
    scope: str = "",
    out: str | Path | None = None,
    device: Device = "auto",
    trust: Collection[str] = (),
    progress: Progress = SILENT,
) -> RobustnessEvaluation:
    """An evaluation of robustness; see `denature.api.robustness` for the arguments."""
    plain = [
        run if isinstance(run, Run) else load_run(run, trust=trust) for run in many(undefended)
    ]
    source = config_of(data, progress=progress)
    targets = models_of(models, source, options=options, pace=pace, trust=trust, progress=progress)
    per_1000 = [price_of(model, price_per_1000) for model in models]
    first = zip(models[:2], targets, strict=False)
    names = "-".join(_short(name_of(model), target) for model, target in first)
    return RobustnessEvaluation(
        targets=targets,
        names=[str(model) if isinstance(model, str | Path) else "" for model in models],
        source=source,
        attack_config=config,
        folder=_folder(out, f"robustness-of-{names}"),
        undefended=plain,
        controls=controls,
        max_queries=max_queries,
        prices=[None if price is None else price / 1000 for price in per_1000],
        max_cost=max_cost,
        pace=pace,
        scope=scope,
        device=device,
    )


def evaluation_of(
    model: ModelLike,
    data: DataLike,
    *,
    options: ModelOptions,
    test_images: int | None = None,
    price_per_1000: float | None = None,
    max_cost: float | None = None,
    pace: RequestConfig,
    name: str | None = None,
    out: str | Path | None = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    trust: Collection[str] = (),
    progress: Progress = SILENT,
) -> ModelEvaluation:
    """The measurement of a model; see `denature.api.evaluate` for the arguments."""
    # The model first: a misspelt one is refused before images are decoded.
    [opened] = models_of(
        [model], data, name=name, options=options, pace=pace, trust=trust, progress=progress
    )
    dataset = load(data, progress=progress)
    name, per_1000 = name or name_of(model), price_of(model, price_per_1000)
    return ModelEvaluation(
        model=opened,
        name=name,
        dataset=dataset,
        folder=_folder(out, f"answers-of-{_short(name, opened)}"),
        test_images=test_images,
        price=None if per_1000 is None else per_1000 / 1000,
        max_cost=max_cost,
        pace=pace,
        device=device,
        precision=precision,
    )


def flatness_of(
    runs: Run | str | Path | Sequence[Run | str | Path],
    data: DataLike,
    *,
    samples: int = 500,
    directions: int = 10,
    seed: int = 0,
    scope: str = "",
    out: str | Path | None = None,
    device: Device = "auto",
    trust: Collection[str] = (),
    progress: Progress = SILENT,
) -> FlatnessComparison:
    """A comparison of runs; see `denature.api.flatness` for the arguments."""
    opened = [run if isinstance(run, Run) else load_run(run, trust=trust) for run in many(runs)]
    names = "-".join(
        run.record.id if run.folder is None else run.folder.resolve().name for run in opened[:2]
    )
    return FlatnessComparison(
        runs=opened,
        source=config_of(data, progress=progress),
        folder=_folder(out, f"flatness-of-{names}"),
        config=FlatnessConfig(samples=samples, directions=directions, seed=seed),
        trust=trust,
        device=device,
        scope=scope,
    )


def _short(name: str, model: Run | Victim) -> str:
    """A model's part of a folder's name, with its digest where it has one: many share a name."""
    short = folder_name(name)
    if isinstance(model, Run):
        digest = model.digest[:8]
    else:
        found = DIGEST.search(model.target) if isinstance(model, FunctionVictim) else None
        digest = found[0][:8] if found else ""
    return short if digest in short else f"{short}-{digest}"


def _folder(out: str | Path | None, usual: str) -> Path:
    return Path("runs") / usual if out is None else Path(out)
