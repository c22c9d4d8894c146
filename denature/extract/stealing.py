"""A theft in a folder, from the first query to the last clone, which a repeated call resumes."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from denature.answers.answerer import AnswerChange
from denature.core.errors import ConfigError, RunError
from denature.core.files import write_text
from denature.core.record import environment, today
from denature.core.schema import encode
from denature.core.sharing import shared
from denature.core.untrusted import read_json
from denature.data import DataConfig, Dataset, load
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import NOISE, Pool, open_pool, pool_of_tests
from denature.extract.compatibility import about_of, check_side, fitted
from denature.extract.config import ExtractionConfig
from denature.extract.measure import Reference, accuracy_of, ask_reference
from denature.extract.selection.catalogue import find_selection
from denature.extract.theft import CLONES, FORMER, LEDGER, RESULT, Clone, Theft
from denature.extract.thief import StolenRun, Thief, check_pool
from denature.extract.victims.base import Victim, VictimInfo
from denature.nets import create, outline_of, parameter_count
from denature.remote.config import RequestConfig
from denature.train.config import Training
from denature.train.objectives.cloned import Cloned
from denature.train.order import objective_settings
from denature.train.run import Run
from denature.train.session import Session

PLAN = "plan.json"

MOST_WEIGHTS = 2**26
"""Weights of a clone whose size follows from a victim's claim; training takes 16 bytes each."""


def steal(
    victim: Victim,
    *,
    net: str,
    backbone: Run | str | None = None,
    pool: str | DataConfig,
    budgets: Sequence[int],
    out: str | Path,
    test: str | DataConfig | None = None,
    stealing: ExtractionConfig | None = None,
    pace: RequestConfig | None = None,
    objective: Cloned | None = None,
    defense: AnswerChange | None = None,
    training: Training | None = None,
    price: float | None = None,
    scope: str = "",
    session: Session | None = None,
) -> Theft:
    """Query a victim with images, and train clones on its answers.

    All answers are stored in `out`. A repeated call resumes a stopped theft, a larger budget sends
    the missing queries only, and finished clones are not trained again.

    Args:
        victim: the model to copy; see `denature.extract.victims`.
        net: the clone's network.
        backbone: initial weights of all layers but the last; see `denature.train.Order`.
        pool: source of the query images, of which the training split is used; `noise` for noise.
        budgets: numbers of queries; a fresh clone is trained for each, on its first answers.
        out: folder for ledger, clones and result.
        test: labelled images for the evaluation; the pool's own by default, where it has as many
            classes as the victim.
        stealing: selection of the queries, and number of clones.
        pace: rate, concurrency and retries of the requests.
        objective: training objective of the clone.
        defense: changes the stored answers before the clones learn from them.
        training: settings of its training; the seed is the first clone's.
        price: US dollars a query.
        scope: scope and permission of the test, for result and page.
        session: saved states, stops, workers and progress.

    Raises:
        DenatureError: see `denature.core.errors`; received answers are stored.
    """
    session, pace = session or Session(), pace or RequestConfig()
    stealing, training = stealing or ExtractionConfig(), training or Training()
    objective = objective or Cloned()
    budgets, selection = sorted(set(budgets)), find_selection(stealing.choose)
    _check_costs(budgets, stealing.repeats, price)
    about = about_of(victim)
    source = pool if isinstance(pool, DataConfig) else DataConfig(source=pool)
    tests = _tests(test, source)
    check_side(about, tests.image_size)
    size = tests.image_size or about.image_size
    dataset = load(replace(tests, image_size=size), progress=session.progress)
    about = fitted(about, dataset, session.progress)
    # A network that cannot be built fails here, before any query is paid for.
    channels, size = dataset.channels, dataset.image_size
    _check_clone(net, dataset, about, claimed=tests.image_size is None)
    images = open_pool(
        source,
        channels=channels,
        image_size=size,
        seed=stealing.pool_seed,
        progress=session.progress,
    )
    check_pool(images, selection)  # before the folder is bound to a theft that cannot run
    out, start = Path(out), backbone.digest if isinstance(backbone, Run) else backbone
    _claim(out, _plan(about, images, stealing, net, start, training, objective, defense))
    finished = any((out / name).exists() for name in (CLONES, RESULT, FORMER))
    with Ledger(out / LEDGER, answered=finished) as ledger:
        measuring = Oracle(
            victim=victim,
            ledger=ledger,
            about=about,
            budget=2 * stealing.fidelity,  # lost queries are sent once more
            purpose="measure",
            pace=pace,
            price=price,
            stopper=session.stopper,
            progress=session.progress,
        )
        test_pool = pool_of_tests(dataset)
        reference = ask_reference(
            measuring, dataset, test_pool, images=stealing.fidelity, seed=stealing.pool_seed
        )
        thief = Thief(
            oracle=replace(measuring, budget=budgets[-1], purpose="train"),
            images=images,
            held_out=test_pool,
            dataset=dataset,
            selection=selection,
            stealing=stealing,
            net=net,
            backbone=backbone,
            objective=objective,
            defense=defense,
            training=training,
            session=session,
            out=out,
        )
        theft = _result(thief, thief.steal(budgets), reference, measuring.purpose)
    theft = replace(theft, scope=scope, date=today())
    write_text(
        out / RESULT, json.dumps(shared(theft.to_dict(), out), indent=1, allow_nan=False) + "\n"
    )
    return theft


def _check_costs(budgets: Sequence[int], repeats: int, price: float | None) -> None:
    if not budgets or budgets[0] // repeats < 2:
        raise ConfigError(
            f"budgets are {budgets}, with {repeats} queries an image; wanted is at least one "
            "budget, for at least two images."
        )
    if price is not None and not 0 <= price < math.inf:
        raise ConfigError(f"price is {price}; it must be at least 0, and finite.")


def _check_clone(net: str, dataset: Dataset, about: VictimInfo, *, claimed: bool) -> None:
    """Check that a clone can be built, and that a victim's claim does not make it huge.

    Raises:
        ConfigError: see `create`, or the network has more than `MOST_WEIGHTS` weights.
    """
    classes, channels, size = len(dataset.classes), dataset.channels, dataset.image_size
    outline = outline_of(net, classes=classes, channels=channels, image_size=size)
    if outline is None:
        create(net, classes=classes, channels=channels, image_size=size)
    elif (count := parameter_count(outline)) > MOST_WEIGHTS and claimed:
        raise ConfigError(
            f"A clone {net} for the images that {about.target} takes has {count:,} weights, where "
            f"up to {MOST_WEIGHTS:,} are taken on its word; if this is intended, pass --image-size "
            f"{size}."
        )


def _tests(test: str | DataConfig | None, pool: DataConfig) -> DataConfig:
    """The source of labelled images."""
    config = DataConfig(source=test) if isinstance(test, str) else test or pool
    if config.source == NOISE:
        raise ConfigError("Noise has no labels to measure with; name labelled images with --test.")
    return config


def _plan(
    about: VictimInfo,
    images: Pool,
    stealing: ExtractionConfig,
    net: str,
    start: str | None,
    training: Training,
    objective: Cloned,
    defense: AnswerChange | None,
) -> dict[str, Any]:
    """What a folder is bound to: all that decides which images are queried, except the budget."""
    plan: dict[str, Any] = {
        "target": about.target,
        "options": about.options,
        "pool": f"{images.name} {images.digest}",
        "choose": stealing.choose,
        "repeats": stealing.repeats,
        "pool_seed": stealing.pool_seed,
    }
    if find_selection(stealing.choose).select is None:
        return plan
    # Clones choose the queries, so their training counts.
    plan |= {"round_size": stealing.round_size, "net": net}
    plan |= {"objective": objective_settings(objective, defense)}
    return plan | {"training": encode(training), "backbone": start}


def _claim(out: Path, plan: dict[str, Any]) -> None:
    """Bind a folder to this theft, whose budget may grow.

    Raises:
        RunError: the folder holds another theft.
    """
    path = out / PLAN
    if not path.exists():
        write_text(path, json.dumps(plan, indent=1) + "\n")
        return
    try:
        before = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}. Name another folder with --out.") from None
    if before != plan:
        changed = [
            f"{key} was {before.get(key)}, is {plan.get(key)}"
            for key in dict.fromkeys((*before, *plan))
            if before.get(key) != plan.get(key)
        ]
        raise RunError(
            f"{out} holds another theft: {'; '.join(changed)}. Name another folder with --out."
        )


def _result(
    thief: Thief, stolen: Sequence[StolenRun], reference: Reference, measuring: str
) -> Theft:
    """The result of a theft, with each clone's fidelity; `measuring` is a purpose of queries."""
    oracle, stealing = thief.oracle, thief.stealing
    tallies = oracle.ledger.tallies(oracle.target)
    tally = tallies[oracle.purpose]
    assert oracle.kind is not None
    return Theft(
        target=oracle.about.target,
        kind=oracle.kind,
        pool=thief.images.name,
        test=thief.dataset.config.source,
        net=thief.net,
        choose=stealing.choose,
        repeats=stealing.repeats,
        price=oracle.price,
        spent=tally.queries,
        lost=tally.queries - tally.answered,
        answers_per_second=oracle.answered / oracle.seconds if oracle.answered else None,
        measuring=tallies[measuring].queries,
        victim_accuracy=reference.accuracy,
        clones=tuple(
            _clone(clone, reference, price=oracle.price, device=thief.training.device)
            for clone in stolen
        ),
        environment=environment(),
    )


def _clone(stolen: StolenRun, reference: Reference, *, price: float | None, device: str) -> Clone:
    record = stolen.run.record
    assert record.data is not None
    assert record.seed is not None
    return Clone(
        budget=stolen.budget,
        answers=record.data.train,
        spent=stolen.spent,
        money=None if price is None else price * stolen.spent,
        seed=record.seed,
        net=record.net.name,
        accuracy=accuracy_of(record),
        fidelity=reference.fidelity(stolen.run, device=device),
        folder=str(stolen.run.folder),
        id=record.id,
        chosen_on=record.chosen_on,
    )
