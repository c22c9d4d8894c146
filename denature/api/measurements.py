"""What a model is worth, as functions: its robustness, its accuracy and its flatness."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack, cast

from denature.api.keywords import ModelKeywords, describes_model, model_options
from denature.core.keywords import many
from denature.core.stats import Estimate
from denature.data.given import DataLike
from denature.recipes.commands import evaluation_of, flatness_of, robustness_of
from denature.recipes.given import ModelLike
from denature.recipes.runner import run
from denature.remote.config import RequestConfig
from denature.report.results import Outcome
from denature.robust.config import AttackConfig, AttackEffort
from denature.train.config import Device, Precision
from denature.train.run import Run
from denature.train.session import Session, default_session


@describes_model
def robustness(
    models: ModelLike | Sequence[ModelLike],
    data: DataLike,
    *,
    undefended: Sequence[Run | str | Path] = (),
    controls: int = 3,
    max_queries: int | None = None,
    price_per_1000: float | None = None,
    max_cost: float | None = None,
    effort: AttackEffort = "standard",
    attacks: str | Sequence[str] = (),
    linf: float | Sequence[float] = (),
    l2: float | Sequence[float] = (),
    l0: float | Sequence[float] = (),
    samples: int | None = None,
    batch_size: int = 50,
    seed: int = 0,
    trust: Sequence[str] = (),
    pace: RequestConfig | None = None,
    scope: str = "",
    out: str | Path | None = None,
    device: Device = "auto",
    session: Session | None = None,
    **options: Unpack[ModelKeywords],
) -> Outcome:
    """Attack models and look for masked gradients, as `denature robustness` does.

    Args:
        models: one or several, see `ModelLike`. Gradients of a run are used; a module or a function
            is a black box that is queried within `max_queries`.
        data: data of the runs' training, see `denature.data.load`; the test split is attacked.
        undefended: normally trained runs to compare with, which differ in their seeds alone.
        controls: number of undefended networks; missing ones are trained.
        max_queries: queries of each black box at most.
        price_per_1000: US dollars per thousand queries.
        max_cost: US dollars for the queries to all black boxes, at most; with it `max_queries` may
            be left out.
        effort: see `denature.robust.config.AttackConfig`, as for the next seven options.
        attacks: see there.
        linf: see there.
        l2: see there.
        l0: see there.
        samples: see there.
        batch_size: see there.
        seed: see there.
        trust: modules of your own that a run's record may import, and .pt2 files that may be loaded
            although this can execute code.
        pace: rate and retries of requests.
        scope: scope and permission of the test, for result and page.
        out: folder for attacks, tables and report; by default one under runs/.
        device: where to compute.
        session: saved states, stops, workers and progress.
        **options: what the models do not state themselves; see `ModelKeywords`.

    Returns:
        The result with its page.

    Raises:
        DenatureError: see `denature.core.errors`.
    """
    session = session or default_session()
    evaluation = robustness_of(
        cast(Sequence[ModelLike], models if isinstance(models, list | tuple) else [models]),
        data,
        undefended=undefended,
        controls=controls,
        max_queries=max_queries,
        price_per_1000=price_per_1000,
        max_cost=max_cost,
        config=AttackConfig(
            effort=effort,
            attacks=many(attacks),
            linf=many(linf),
            l2=many(l2),
            l0=many(l0),
            samples=samples,
            batch_size=batch_size,
            seed=seed,
        ),
        options=model_options(options),
        pace=pace or RequestConfig(),
        scope=scope,
        out=out,
        device=device,
        trust=trust,
        progress=session.progress,
    )
    return run(evaluation, session)


@describes_model
def evaluate(
    model: ModelLike,
    data: DataLike,
    *,
    trust: Sequence[str] = (),
    test_images: int | None = None,
    price_per_1000: float | None = None,
    max_cost: float | None = None,
    pace: RequestConfig | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    session: Session | None = None,
    **options: Unpack[ModelKeywords],
) -> Estimate:
    """Accuracy of a model on the test split of data, or its error on landmarks.

    Args:
        model: see `ModelLike`.
        data: see `denature.data.load`.
        trust: modules of your own that a run's record may import, and .pt2 files that may be loaded
            although this can execute code.
        test_images: test images at most; by default all for a run, and 1,000 for other models.
        price_per_1000: US dollars per thousand queries.
        max_cost: US dollars for all queries, at most, which needs `price_per_1000`; fewer images
            are measured where it ends them.
        pace: rate and retries of requests.
        name: name of a function's or a module's stored answers.
        out: folder of the answers of a service or a function; by default one under runs/.
        device: where a run computes.
        precision: precision of a run's inference.
        session: its progress is used, and its stopper ends the queries.
        **options: what the model does not state itself; see `ModelKeywords`.

    Raises:
        DenatureError: see `denature.core.errors`.
    """
    session = session or default_session()
    evaluation = evaluation_of(
        model,
        data,
        options=model_options(options),
        test_images=test_images,
        price_per_1000=price_per_1000,
        max_cost=max_cost,
        pace=pace or RequestConfig(),
        name=name,
        out=out,
        device=device,
        precision=precision,
        trust=trust,
        progress=session.progress,
    )
    return evaluation.measure(session)


def flatness(
    runs: Run | str | Path | Sequence[Run | str | Path],
    data: DataLike,
    *,
    samples: int = 500,
    directions: int = 10,
    seed: int = 0,
    trust: Sequence[str] = (),
    scope: str = "",
    out: str | Path | None = None,
    device: Device = "auto",
    session: Session | None = None,
) -> Outcome:
    """Measure the flatness of minima and the sensitivity to the image, as `denature flatness` does.

    Args:
        runs: one or several, or their folders.
        data: data of their training, see `denature.data.load`.
        samples: number of training samples, and of test samples, balanced over classes.
        directions: number of random changes of the weights.
        seed: of samples and directions.
        trust: modules of your own that a run's record may import.
        scope: scope and permission of the test, for result and page.
        out: folder for table, figures and report; by default one under runs/.
        device: where to compute.
        session: progress.

    Returns:
        The result with its page.

    Raises:
        DenatureError: see `denature.core.errors`.
    """
    session = session or default_session()
    comparison = flatness_of(
        runs,
        data,
        samples=samples,
        directions=directions,
        seed=seed,
        scope=scope,
        out=out,
        device=device,
        trust=trust,
        progress=session.progress,
    )
    return run(comparison, session)
