"""The theft of a model as a function."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from denature.api.keywords import ModelKeywords, describes_model, model_options
from denature.core.keywords import many
from denature.data.given import DataLike
from denature.extract.config import Choose, ExtractionConfig
from denature.recipes.commands import finish, theft_of
from denature.recipes.given import ModelLike
from denature.remote.config import RequestConfig
from denature.report.results import Outcome
from denature.train.config import Training
from denature.train.objectives.cloned import Cloned
from denature.train.run import Run
from denature.train.session import Session, default_session


@describes_model
def steal(
    model: ModelLike,
    pool: DataLike,
    *,
    student: str,
    budget: int | Sequence[int],
    test: DataLike | None = None,
    backbone: Run | str | Path | None = None,
    choose: Choose = "random",
    repeats: int = 1,
    seeds: int = 1,
    test_images: int | None = None,
    fidelity_extra: bool = False,
    round_size: int = 1000,
    pool_seed: int = 0,
    temperature: float = 1.0,
    decimals: int | None = None,
    top: int = 0,
    endpoint_url: str | None = None,
    training: Training | None = None,
    trust: Sequence[str] = (),
    price_per_1000: float | None = None,
    max_cost: float | None = None,
    pace: RequestConfig | None = None,
    name: str | None = None,
    scope: str = "",
    out: str | Path | None = None,
    session: Session | None = None,
    **options: Unpack[ModelKeywords],
) -> Outcome:
    """Query a model within budgets and train clones on its answers, as `denature steal` does.

    Query only models that you are allowed to query.

    Args:
        model: see `ModelLike`.
        pool: images to query with, whose labels are never read, see `denature.data.load`; or
            `noise`.
        student: network of the clones.
        budget: numbers of queries, those for fidelity included; a fresh clone is trained for each.
        test: labelled images to measure with; those of the pool by default.
        backbone: initial weights of all layers but the last.
        choose: see `denature.extract.config.ExtractionConfig`, as for the next six options.
        repeats: see there.
        seeds: see there.
        test_images: see there.
        fidelity_extra: see there.
        round_size: see there.
        pool_seed: see there.
        temperature: that of the clones' training; see
            `denature.train.objectives.cloned.Cloned`.
        decimals: decimals to which the stored answers are rounded before clones learn from them;
            None leaves them as they are.
        top: number of largest classes to ask for; 0 for all.
        endpoint_url: address of the service in place of Amazon's, for rekognition.
        training: settings of the clones' training.
        trust: modules of your own that a run's record may import, and .pt2 files that may be loaded
            although this can execute code.
        price_per_1000: US dollars per thousand queries.
        max_cost: US dollars for all queries, at most.
        pace: rate and retries of requests.
        name: name of the model in the default of `out`, and of its stored answers where it is a
            function or a module.
        scope: scope and permission of the test, for result and page.
        out: folder for ledger, clones and report; by default one under runs/.
        session: saved states, stops, workers and progress.
        **options: what the model does not state itself; see `ModelKeywords`.

    Returns:
        The result, a `Theft`, with its page.

    Raises:
        DenatureError: see `denature.core.errors`; received answers are kept.
    """
    planned = theft_of(
        model,
        pool,
        student=student,
        budget=many(budget),
        test=test,
        backbone=backbone,
        config=ExtractionConfig(
            choose=choose,
            repeats=repeats,
            seeds=seeds,
            test_images=test_images,
            fidelity_extra=fidelity_extra,
            round_size=round_size,
            pool_seed=pool_seed,
        ),
        objective=Cloned(temperature=temperature),
        decimals=decimals,
        top=top,
        endpoint_url=endpoint_url,
        training=training,
        options=model_options(options),
        price_per_1000=price_per_1000,
        max_cost=max_cost,
        pace=pace or RequestConfig(),
        name=name,
        scope=scope,
        out=out,
        trust=trust,
        session=session or default_session(),
    )
    return finish(planned)
