"""The audit of a model as a function."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from denature.api.keywords import ModelKeywords, describes_model, model_options
from denature.audit.config import AuditConfig, AuditEffort
from denature.core.keywords import many
from denature.data.given import DataLike
from denature.recipes.commands import audit_of
from denature.recipes.given import ModelLike
from denature.recipes.runner import run
from denature.remote.config import RequestConfig
from denature.report.results import Outcome
from denature.train.config import Device
from denature.train.run import Run
from denature.train.session import Session, default_session


@describes_model
def audit(
    model: ModelLike,
    data: DataLike,
    *,
    pool: DataLike | None = None,
    other_pool: DataLike | None = None,
    backbone: Run | str | Path | None = None,
    encoder: Run | str | Path | None = None,
    effort: AuditEffort = "quick",
    defense: str | Sequence[str] = (),
    thief: str | Sequence[str] = (),
    budget: int | Sequence[int] = (),
    labelled: int | None = None,
    seeds: int | None = None,
    student: str | None = None,
    test_images: int | None = None,
    grid: bool = False,
    price_per_1000: float | None = None,
    epochs: int = 30,
    seed: int = 0,
    trust: Sequence[str] = (),
    max_queries: int | None = None,
    max_cost: float | None = None,
    pace: RequestConfig | None = None,
    name: str | None = None,
    scope: str = "",
    out: str | Path | None = None,
    device: Device = "auto",
    session: Session | None = None,
    **options: Unpack[ModelKeywords],
) -> Outcome:
    """Audit a model, as `denature audit` does: what the worst thief gets behind each defense.

    Args:
        model: see `ModelLike`.
        data: labelled data of the model's classes, see `denature.data.load`; the test split
            measures.
        pool: images of the thief; by default the training images of `data`, without their labels.
        other_pool: images of another domain.
        backbone: a pretrained network that a thief may start from.
        encoder: a public network whose layers except the last are known to be the model's.
        effort: see `denature.audit.config.AuditConfig`, as for the next nine options.
        defense: see there.
        thief: see there.
        budget: see there.
        labelled: see there.
        seeds: see there.
        student: see there.
        test_images: see there.
        grid: see there.
        price_per_1000: see there.
        epochs: epochs of the clones at least.
        seed: seed of clones, queries and defenses.
        trust: modules of your own that a run's record may import, and .pt2 files that may be loaded
            although this can execute code.
        max_queries: images that the model is asked about, at most.
        max_cost: US dollars for them, at most, which needs `price_per_1000`.
        pace: rate and retries of requests.
        name: name of the model on the page, in the default of `out`, and of its stored answers
            where it is a function or a module.
        scope: scope and permission of the test, for result and page.
        out: folder for cells, tables and report, from which a stopped audit resumes; by default
            one under runs/.
        device: where to compute.
        session: saved states, stops, workers and progress.
        **options: what the model does not state itself; see `ModelKeywords`.

    Returns:
        The result with its page; see `Outcome.report` and `Outcome.to_frame`.

    Raises:
        DenatureError: see `denature.core.errors`.
    """
    session = session or default_session()
    experiment = audit_of(
        model,
        data,
        pool=pool,
        other_pool=other_pool,
        backbone=backbone,
        encoder=encoder,
        config=AuditConfig(
            effort=effort,
            defense=many(defense),
            thief=many(thief),
            budget=many(budget),
            labelled=labelled,
            seeds=seeds,
            student=student,
            test_images=test_images,
            grid=grid,
            price_per_1000=price_per_1000,
        ),
        epochs=epochs,
        seed=seed,
        options=model_options(options),
        max_queries=max_queries,
        max_cost=max_cost,
        pace=pace or RequestConfig(),
        name=name,
        scope=scope,
        out=out,
        device=device,
        trust=trust,
        progress=session.progress,
    )
    experiment.announce(session)
    return run(experiment, session)
