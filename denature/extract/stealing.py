"""A theft in a folder, from the first query to the last clone, which a repeated call resumes."""

from collections.abc import Sequence
from pathlib import Path

from denature.answers.answerer import AnswerChange
from denature.core.record import environment, today
from denature.data.given import DataLike
from denature.extract.config import ExtractionConfig
from denature.extract.levels import Division
from denature.extract.measure import Reference, accuracy_of, ask_reference
from denature.extract.planning import PlannedTheft, plan_theft
from denature.extract.theft import Clone, Theft
from denature.extract.thief import StolenRun, Thief
from denature.extract.victims.base import Victim
from denature.remote.config import RequestConfig
from denature.train.config import Training
from denature.train.objectives.cloned import Cloned
from denature.train.run import Run
from denature.train.session import Session


def steal(
    victim: Victim,
    *,
    net: str,
    backbone: Run | str | None = None,
    pool: DataLike,
    budgets: Sequence[int],
    out: str | Path,
    test: DataLike | None = None,
    stealing: ExtractionConfig | None = None,
    pace: RequestConfig | None = None,
    objective: Cloned | None = None,
    defense: AnswerChange | None = None,
    training: Training | None = None,
    price: float | None = None,
    max_cost: float | None = None,
    scope: str = "",
    session: Session | None = None,
) -> Theft:
    """Query a victim with images, and train clones on its answers.

    All answers and clones are stored in `out`; `denature.api.steal` writes result and page, too. A
    repeated call resumes a stopped theft, a larger budget sends the missing queries only, and
    finished clones are not trained again.

    Args:
        victim: the model to copy; see `denature.extract.victims`.
        net: the clone's network.
        backbone: initial weights of all layers but the last; see `denature.train.Order`.
        pool: query images, of which the training split is used, see `denature.data.load`; `noise`
            for noise.
        budgets: numbers of queries; a fresh clone is trained for each, on its first answers. The
            largest is the hard limit of the theft, with the queries that measure fidelity.
        out: folder for ledger and clones.
        test: labelled images for the evaluation; the pool's own by default, where it has as many
            classes as the victim.
        stealing: selection of the queries, and number of clones.
        pace: rate, concurrency and retries of the requests.
        objective: training objective of the clone.
        defense: changes the stored answers before the clones learn from them.
        training: settings of its training; the seed is the first clone's.
        price: US dollars a query.
        max_cost: US dollars for all queries in the folder, at most, as a second hard limit.
        scope: scope and permission of the test, for result and page.
        session: saved states, stops, workers and progress.

    Raises:
        DenatureError: see `denature.core.errors`; received answers are stored.
    """
    planned = plan_theft(
        victim,
        net=net,
        backbone=backbone,
        pool=pool,
        budgets=budgets,
        out=out,
        test=test,
        stealing=stealing,
        pace=pace,
        objective=objective,
        defense=defense,
        training=training,
        price=price,
        max_cost=max_cost,
        scope=scope,
        session=session,
    )
    return carry_out(planned)


def carry_out(planned: PlannedTheft) -> Theft:
    """Carry out a theft that was planned, or what is left of it; see `steal`."""
    with planned.open_ledger() as ledger:
        division = planned.division(ledger)
        oracle = planned.oracle(ledger, division)
        planned.say(division, planned.bill(oracle, division))
        reference = ask_reference(
            planned.measuring(oracle, division),
            planned.dataset,
            planned.tests,
            images=division.fidelity,
            seed=planned.stealing.pool_seed,
        )
        thief = Thief(
            oracle=oracle,
            images=planned.images,
            held_out=planned.tests,
            dataset=planned.dataset,
            selection=planned.selection,
            stealing=planned.stealing,
            net=planned.net,
            backbone=planned.backbone,
            objective=planned.objective,
            defense=planned.defense,
            training=planned.training,
            session=planned.session,
            out=planned.out,
        )
        stolen = thief.steal([level.queries for level in division.levels])
        return _result(planned, thief, division, stolen, reference)


def _result(
    planned: PlannedTheft,
    thief: Thief,
    division: Division,
    stolen: Sequence[StolenRun],
    reference: Reference,
) -> Theft:
    """The result of a theft, with each clone's fidelity."""
    oracle, stealing = thief.oracle, thief.stealing
    ledger, target = oracle.ledger, oracle.target
    named = {level.queries: level.budget for level in division.levels}
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
        spent=ledger.spent(target, oracle.purpose),
        lost=ledger.lost(target, oracle.purpose),
        answers_per_second=oracle.answered / oracle.seconds if oracle.answered else None,
        measuring=ledger.spent(target, "measure"),
        measuring_lost=ledger.lost(target, "measure"),
        victim_accuracy=reference.accuracy,
        clones=tuple(
            _clone(
                clone,
                reference,
                budget=named[clone.budget],
                price=oracle.price,
                device=thief.training.device,
            )
            for clone in stolen
        ),
        environment=environment(),
        fidelity_extra=stealing.fidelity_extra,
        scope=planned.scope,
        date=today(),
    )


def _clone(
    stolen: StolenRun, reference: Reference, *, budget: int, price: float | None, device: str
) -> Clone:
    record = stolen.run.record
    assert record.data is not None
    assert record.seed is not None
    return Clone(
        budget=budget,
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
