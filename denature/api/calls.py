"""The commands that take models and data, as functions with their options."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from denature.api.models import ModelLike, model_of, name_of
from denature.audit.config import AuditConfig
from denature.audit.config import Effort as AuditEffort
from denature.core.errors import ConfigError
from denature.core.record import read_record
from denature.core.stats import Estimate
from denature.data import load
from denature.data.given import DataLike
from denature.data.loading import config_of
from denature.extract.config import Choose, ExtractionConfig
from denature.extract.evaluation import evaluate_victim
from denature.extract.stealing import steal as carry_out
from denature.extract.victims.find import folder_name
from denature.extract.victims.local import local
from denature.recipes.audit import Audit
from denature.recipes.robustness import RobustnessEvaluation
from denature.recipes.runner import run
from denature.remote.config import RequestConfig
from denature.report.results import Outcome, write_outcome
from denature.robust.config import AttackConfig
from denature.robust.config import Effort as AttackEffort
from denature.train.config import Device, Precision, Training
from denature.train.run import Run
from denature.train.runs import evaluate_run
from denature.train.session import Session, usual_session


def audit(
    model: ModelLike,
    data: DataLike,
    *,
    pool: DataLike | None = None,
    other_pool: DataLike | None = None,
    backbone: Run | str | None = None,
    encoder: Run | None = None,
    effort: AuditEffort = "quick",
    defense: Sequence[str] = (),
    thief: Sequence[str] = (),
    budget: Sequence[int] = (),
    labelled: int | None = None,
    seeds: int | None = None,
    student: str | None = None,
    test_images: int | None = None,
    grid: bool = False,
    price_per_1000: float | None = None,
    epochs: int = 30,
    seed: int = 0,
    max_queries: int | None = None,
    max_cost: float | None = None,
    pace: RequestConfig | None = None,
    name: str | None = None,
    scope: str = "",
    out: str | Path | None = None,
    device: Device = "auto",
    session: Session | None = None,
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

    Returns:
        The result with its page; see `Outcome.report` and `Outcome.to_frame`.

    Raises:
        DenatureError: see `denature.core.errors`.
    """
    session = session or usual_session()
    source = config_of(data, progress=session.progress)
    found = model_of(model, source, name=name)
    name = name or name_of(model)
    experiment = Audit(
        model=found,
        name=name,
        config=AuditConfig(
            effort=effort,
            defense=tuple(defense),
            thief=tuple(thief),
            budget=tuple(budget),
            labelled=labelled,
            seeds=seeds,
            student=student,
            test_images=test_images,
            grid=grid,
            price_per_1000=price_per_1000,
        ),
        source=source,
        folder=_folder(out, "audit-of", name),
        pool=None if pool is None else config_of(pool, progress=session.progress),
        other_pool=None if other_pool is None else config_of(other_pool, progress=session.progress),
        backbone=backbone,
        encoder=encoder,
        training=Training(epochs=epochs, seed=seed, device=device),
        pace=pace or RequestConfig(),
        max_queries=max_queries,
        max_cost=max_cost,
        scope=scope,
        device=device,
    )
    return run(experiment, session)


def steal(
    model: ModelLike,
    pool: DataLike,
    *,
    student: str,
    budget: Sequence[int],
    test: DataLike | None = None,
    backbone: Run | str | None = None,
    choose: Choose = "random",
    repeats: int = 1,
    seeds: int = 1,
    fidelity: int | None = None,
    fidelity_extra: bool = False,
    training: Training | None = None,
    price_per_1000: float | None = None,
    max_cost: float | None = None,
    pace: RequestConfig | None = None,
    name: str | None = None,
    scope: str = "",
    out: str | Path | None = None,
    session: Session | None = None,
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
        choose: see `denature.extract.config.ExtractionConfig`, as for the next four options.
        repeats: see there.
        seeds: see there.
        fidelity: see there.
        fidelity_extra: see there.
        training: settings of the clones' training.
        price_per_1000: US dollars per thousand queries.
        max_cost: US dollars for all queries, at most.
        pace: rate and retries of requests.
        name: name of the model in the default of `out`, and of its stored answers where it is a
            function or a module.
        scope: scope and permission of the test, for result and page.
        out: folder for ledger, clones and report; by default one under runs/.
        session: saved states, stops, workers and progress.

    Returns:
        The result, a `Theft`, with its page.

    Raises:
        DenatureError: see `denature.core.errors`; received answers are kept.
    """
    session = session or usual_session()
    source = config_of(pool, progress=session.progress)
    tests = source if test is None else config_of(test, progress=session.progress)
    found = model_of(model, tests, name=name)
    folder = _folder(out, "theft-of", name or name_of(model))
    theft = carry_out(
        local(found) if isinstance(found, Run) else found,
        net=student,
        backbone=backbone,
        pool=source,
        budgets=budget,
        out=folder,
        test=tests,
        stealing=ExtractionConfig(
            choose=choose,
            repeats=repeats,
            seeds=seeds,
            fidelity=fidelity,
            fidelity_extra=fidelity_extra,
        ),
        pace=pace,
        training=training,
        price=None if price_per_1000 is None else price_per_1000 / 1000,
        max_cost=max_cost,
        scope=scope,
        session=session,
    )
    records = [read_record(Path(clone.folder)) for clone in theft.clones]
    return write_outcome(theft, records, folder)


def robustness(
    models: ModelLike | Sequence[ModelLike],
    data: DataLike,
    *,
    undefended: Sequence[Run] = (),
    controls: int = 3,
    budget: int | None = None,
    effort: AttackEffort = "standard",
    attacks: Sequence[str] = (),
    linf: Sequence[float] = (),
    l2: Sequence[float] = (),
    l0: Sequence[float] = (),
    samples: int | None = None,
    seed: int = 0,
    pace: RequestConfig | None = None,
    scope: str = "",
    out: str | Path | None = None,
    device: Device = "auto",
    session: Session | None = None,
) -> Outcome:
    """Attack models and look for masked gradients, as `denature robustness` does.

    Args:
        models: one or several, see `ModelLike`. Gradients of a run are used; a module or a function
            is a black box that is queried within `budget`.
        data: data of the runs' training, see `denature.data.load`; the test split is attacked.
        undefended: normally trained runs to compare with, which differ in their seeds alone.
        controls: number of undefended networks; missing ones are trained.
        budget: queries of each black box at most.
        effort: see `denature.robust.config.AttackConfig`, as for the next six options.
        attacks: see there.
        linf: see there.
        l2: see there.
        l0: see there.
        samples: see there.
        seed: see there.
        pace: rate and retries of requests.
        scope: scope and permission of the test, for result and page.
        out: folder for attacks, tables and report; by default one under runs/.
        device: where to compute.
        session: saved states, stops, workers and progress.

    Returns:
        The result with its page.

    Raises:
        DenatureError: see `denature.core.errors`.
    """
    session = session or usual_session()
    source = config_of(data, progress=session.progress)
    given = cast(Sequence[ModelLike], models if isinstance(models, list | tuple) else [models])
    found = [model_of(model, source) for model in given]
    names = "-".join(map(name_of, given[:2]))
    evaluation = RobustnessEvaluation(
        targets=found,
        source=source,
        attack_config=AttackConfig(
            effort=effort,
            attacks=tuple(attacks),
            linf=tuple(linf),
            l2=tuple(l2),
            l0=tuple(l0),
            samples=samples,
            seed=seed,
        ),
        folder=_folder(out, "robustness-of", names),
        undefended=undefended,
        controls=controls,
        budget=budget,
        pace=pace or RequestConfig(),
        scope=scope,
        device=device,
    )
    return run(evaluation, session)


def evaluate(
    model: ModelLike,
    data: DataLike,
    *,
    test_images: int | None = None,
    price_per_1000: float | None = None,
    max_cost: float | None = None,
    pace: RequestConfig | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    session: Session | None = None,
) -> Estimate:
    """Accuracy of a model on the test split of data, or its error on landmarks.

    Args:
        model: see `ModelLike`.
        data: see `denature.data.load`.
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

    Raises:
        DenatureError: see `denature.core.errors`.
    """
    session = session or usual_session()
    dataset = load(data, progress=session.progress)
    found = model_of(model, dataset, name=name)
    if isinstance(found, Run):
        if max_cost is not None:
            raise ConfigError(
                "max_cost limits what queries cost, and the model is a network in this process. "
                "Leave it out."
            )
        if test_images is not None and test_images < len(dataset.test):
            test = dataset.test.fraction(test_images / len(dataset.test))
            dataset = replace(dataset, test=test)
        return evaluate_run(
            found, dataset, device=device, precision=precision, progress=session.progress
        )
    return evaluate_victim(
        found,
        dataset,
        images=test_images,
        folder=_folder(out, "answers-of", name or name_of(model)),
        pace=pace or RequestConfig(),
        price=None if price_per_1000 is None else price_per_1000 / 1000,
        max_cost=max_cost,
        stopper=session.stopper,
        progress=session.progress,
    )


def _folder(out: str | Path | None, kind: str, name: str) -> Path:
    return Path(out or Path("runs") / f"{kind}-{folder_name(name)}")
