"""A theft before its first query: everything that can be known and refused without one."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

from denature.answers.answerer import AnswerChange
from denature.core.errors import ConfigError, RunError
from denature.core.files import write_text
from denature.core.schema import encode
from denature.core.untrusted import read_json
from denature.data import DataConfig, Dataset, load
from denature.data.given import DataLike
from denature.data.loading import config_of
from denature.extract.asking.bill import Bill, Part
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.limits import affordable, check_max_cost
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import BLOCK, NOISE, Pool, StoredPool, open_pool, pool_of_tests
from denature.extract.compatibility import about_of, check_side, fitted
from denature.extract.config import ExtractionConfig
from denature.extract.feasibility import check_clone, sample_of
from denature.extract.levels import CostBudget, Division, divided
from denature.extract.selection.base import Selection
from denature.extract.selection.catalogue import find_selection
from denature.extract.theft import CLONES, FORMER, LEDGER, RESULT
from denature.extract.thief import check_selection, first_rows
from denature.extract.victims.base import Victim, VictimInfo
from denature.nets import create, outline_of, parameter_count
from denature.remote.config import RequestConfig
from denature.train.config import Training
from denature.train.objectives.cloned import Cloned
from denature.train.order import objective_settings
from denature.train.run import Run
from denature.train.session import Session, default_session

PLAN = "plan.json"

MOST_WEIGHTS = 2**26
"""Weights of a clone whose size follows from a victim's claim; training takes 16 bytes each."""

FIDELITY, WITHIN, ON_TOP = "fidelity", "within the budget", "on top of the budget"
"""Key of a plan and its value; a plan without the key, as of earlier versions, counts on top."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedTheft:
    """A theft that nothing known without a query speaks against; see `plan_theft`."""

    victim: Victim
    about: VictimInfo
    images: Pool
    """The query images."""
    dataset: Dataset
    """Labelled images; the test split measures."""
    budgets: Sequence[int]
    """Ascending."""
    selection: Selection
    stealing: ExtractionConfig
    """As the folder counts: an earlier theft in it keeps fidelity on top of the budget."""
    pace: RequestConfig
    price: float | None
    max_cost: float | None
    scope: str
    """Scope and permission of the test, as stated by the caller."""
    net: str
    backbone: Run | str | None
    objective: Cloned
    defense: AnswerChange | None
    training: Training
    session: Session
    out: Path
    plan: dict[str, Any]
    """What the folder is bound to."""

    @cached_property
    def tests(self) -> StoredPool:
        """The test images."""
        return pool_of_tests(self.dataset)

    def open_ledger(self) -> Ledger:
        """The ledger of the folder, which is bound to this theft."""
        if not (path := self.out / PLAN).exists():
            write_text(path, json.dumps(self.plan, indent=1) + "\n")
        finished = any((self.out / name).exists() for name in (CLONES, RESULT, FORMER))
        return Ledger(self.out / LEDGER, answered=finished)

    def division(self, ledger: Ledger) -> Division:
        """Queries to learn from and for fidelity, as far as `max_cost` pays for them.

        Args:
            ledger: of this theft.

        Raises:
            ConfigError: see `divided`.
        """
        cost_budget = None
        if self.max_cost is not None and self.price:
            target, spending = ledger.target(self.about), ledger.spending
            more = affordable(self.max_cost - spending.dollars(target, self.price), self.price)
            cost_budget = CostBudget(
                max_cost=self.max_cost,
                price=self.price,
                queries=spending.queries(target) + more,
                measured=spending.queries(target, "measure"),
            )
        return divided(self.budgets, self.stealing, tests=self.tests.size, cost_budget=cost_budget)

    def oracle(self, ledger: Ledger, division: Division) -> Oracle:
        """The victim, for queries to learn from."""
        return Oracle(
            victim=self.victim,
            ledger=ledger,
            about=self.about,
            budget=division.levels[-1].queries,
            purpose="train",
            total=division.total,
            pace=self.pace,
            price=self.price,
            max_cost=self.max_cost,
            stopper=self.session.stopper,
            progress=self.session.progress,
        )

    def measuring(self, oracle: Oracle, division: Division) -> Oracle:
        """The victim, for queries about test images; lost ones are sent once more."""
        return replace(oracle, budget=2 * division.fidelity, purpose="measure")

    def bill(self, oracle: Oracle, division: Division) -> Bill:
        """What the theft costs at most."""
        target, ledger, rounds = oracle.target, oracle.ledger, self.selection.select is not None
        return Bill.of(
            oracle,
            [
                Part(
                    name="of the pool, to learn from",
                    queries=division.learning,
                    limit=oracle.budget,
                    together=self.stealing.round_size * self.stealing.repeats if rounds else None,
                    spent=ledger.spent(target, "train"),
                    lost=ledger.lost(target, "train"),
                ),
                Part(
                    name="test images, for fidelity",
                    queries=division.fidelity,
                    limit=self.measuring(oracle, division).budget,
                    spent=ledger.spent(target, "measure"),
                    lost=ledger.lost(target, "measure"),
                ),
            ],
            budget=division.total,
        )

    def say(self, division: Division, bill: Bill) -> None:
        """Tell what the theft is going to cost, unless its answers are stored."""
        for line in (division.note, *(bill.lines() if bill.queries else ())):
            if line:
                self.session.progress.say(line)

    def sample(self, count: int) -> Dataset:
        """Images of the pool as training data, for estimates and checks; the labels are not true.

        Args:
            count: number of images, at most `BLOCK`.
        """
        seed = self.stealing.pool_seed
        rows = first_rows(self.images, self.tests, seed, min(count, BLOCK))
        return sample_of(self.images, rows, self.dataset)


def plan_theft(
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
) -> PlannedTheft:
    """Check a theft without a query; nothing is written to its folder.

    Args: see `denature.extract.steal`.

    Raises:
        DenatureError: the theft is impossible: the network, the pool, the data or the victim do
            not fit each other, the budgets are too small, or the folder holds another theft.
    """
    session, stealing = session or default_session(), stealing or ExtractionConfig()
    training, objective = training or Training(), objective or Cloned()
    budgets, selection = sorted(set(budgets)), find_selection(stealing.choose)
    _check_costs(budgets, price, max_cost)
    about = about_of(victim)
    source = config_of(pool, progress=session.progress)
    tests = _tests(None if test is None else config_of(test, progress=session.progress), source)
    check_side(about, tests.image_size)
    size = tests.image_size or about.image_size
    dataset = load(replace(tests, image_size=size), progress=session.progress)
    about = fitted(about, dataset, session.progress)
    _check_size(net, dataset, about, claimed=tests.image_size is None)
    images = open_pool(
        source,
        channels=dataset.channels,
        image_size=dataset.image_size,
        seed=stealing.pool_seed,
        progress=session.progress,
    )
    check_selection(images, selection, dataset)
    start = backbone.digest if isinstance(backbone, Run) else backbone
    plan = _plan(about, images, stealing, net, start, training, objective, defense)
    stealing, plan = _as_folder_counts(Path(out), stealing, plan, session)
    planned = PlannedTheft(
        victim=victim,
        about=about,
        images=images,
        dataset=dataset,
        budgets=budgets,
        selection=selection,
        stealing=stealing,
        pace=pace or RequestConfig(),
        price=price,
        max_cost=max_cost,
        scope=scope,
        net=net,
        backbone=backbone,
        objective=objective,
        defense=defense,
        training=training,
        session=session,
        out=Path(out),
        plan=plan,
    )
    _check_levels(planned)
    return planned


def _check_levels(planned: PlannedTheft) -> None:
    """Check that the pool has enough images, and that clones of them can be trained."""
    levels = divided(planned.budgets, planned.stealing, tests=planned.tests.size).levels
    repeats, seed = planned.stealing.repeats, planned.stealing.pool_seed
    first_rows(planned.images, planned.tests, seed, levels[-1].queries // repeats)
    check_clone(
        planned.net,
        planned.sample(levels[0].queries // repeats),
        objective=planned.objective,
        training=planned.training,
        backbone=planned.backbone,
    )


def _check_costs(budgets: Sequence[int], price: float | None, max_cost: float | None) -> None:
    if not budgets:
        raise ConfigError("budgets are []; wanted is at least one budget.")
    if price is not None and not 0 <= price < math.inf:
        raise ConfigError(f"price is {price}; it must be at least 0, and finite.")
    check_max_cost(max_cost, price)


def _check_size(net: str, dataset: Dataset, about: VictimInfo, *, claimed: bool) -> None:
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


def _tests(test: DataConfig | None, pool: DataConfig) -> DataConfig:
    """The source of labelled images."""
    config = test or pool
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


def _as_folder_counts(
    out: Path, stealing: ExtractionConfig, plan: dict[str, Any], session: Session
) -> tuple[ExtractionConfig, dict[str, Any]]:
    """Settings and plan of a theft, whose budget may grow, as its folder counts fidelity.

    A folder of an earlier version, or of `fidelity_extra`, goes on with fidelity on top of its
    budgets: its clones learned from whole budgets.

    Raises:
        RunError: the folder holds another theft.
    """
    path = out / PLAN
    within = {**plan, FIDELITY: WITHIN}
    if not path.exists():
        return stealing, plan if stealing.fidelity_extra else within
    try:
        before = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}. Name another folder with --out.") from None
    on_top = FIDELITY not in before or stealing.fidelity_extra
    wanted = plan if on_top else within
    if before != wanted:
        found = {FIDELITY: ON_TOP, **before}, {FIDELITY: ON_TOP, **wanted}
        changed = [
            f"{key} was {found[0].get(key)}, is {found[1].get(key)}"
            for key in dict.fromkeys((*before, *wanted))
            if found[0].get(key) != found[1].get(key)
        ]
        raise RunError(
            f"{out} holds another theft: {'; '.join(changed)}. Name another folder with --out."
        )
    if on_top and not stealing.fidelity_extra:
        session.progress.say(
            f"The theft in {out} counts fidelity on top of its budgets, as before."
        )
    return replace(stealing, fidelity_extra=on_top), wanted
