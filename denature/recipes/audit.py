"""The audit of a model, as an experiment: the networks of its defenses, its cells, its result."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

from denature.audit.auditor import Auditor
from denature.audit.cells import REVISION, CellStore
from denature.audit.clone_training import CloneTrainer
from denature.audit.config import IN_TRAINING, AuditConfig
from denature.audit.defending import Defender, chain_named
from denature.audit.engine import Engine
from denature.audit.findings import findings
from denature.audit.measurements import Measurements, Trial
from denature.audit.opening import Encoder, QueryContext, identity, no_better_than_chance
from denature.audit.pricing import prices
from denature.audit.result import AuditedModel, AuditPlan, AuditResult
from denature.audit.score import estimate
from denature.audit.source import Harvest
from denature.audit.summary import baselines_of, cells_of, curves_of, worst_of
from denature.core.progress import Progress, format_seconds
from denature.core.record import environment, today
from denature.core.revisions import REVISIONS
from denature.core.schema import decode, encode
from denature.core.text import counted
from denature.data import DataConfig, Dataset
from denature.defenses.base import Chain
from denature.extract.asking.bill import Bill, Part
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.limits import check_max_cost
from denature.extract.strategies.base import Extra, Strategy
from denature.extract.strategies.catalogue import strategy_of
from denature.extract.theft import LEDGER
from denature.extract.victims.base import Victim
from denature.extract.victims.called import FunctionVictim
from denature.recipes.audit_time import seconds_of_cells
from denature.recipes.estimate import training_seconds
from denature.recipes.experiment import MeasuredResult, load_classes
from denature.recipes.given import check_paid
from denature.remote.config import RequestConfig
from denature.report.links import RESULT
from denature.train import Nasty, Order, Run, Training
from denature.train.config import Device
from denature.train.objectives.misinformed import Misinformed
from denature.train.session import Session


@final
@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the worst thief gets of a model at each budget, behind each defense.

    Raises:
        ConfigError: a defense, a thief or an option of theirs is unknown.
    """

    model: Run | Victim
    name: str
    """As the user named it."""
    config: AuditConfig
    source: DataConfig
    """Labelled data of the model's classes; its test split measures, and teaches no clone."""
    folder: Path
    pool: DataConfig | None = None
    """Images of the thief; the training split of `source` by default, without its labels."""
    other_pool: DataConfig | None = None
    """Images of another domain."""
    backbone: Run | str | None = None
    """A pretrained network that the thief may start from."""
    encoder: Run | None = None
    """A public network whose layers except the last are known to be the model's."""
    training: Training = field(default_factory=Training)
    """Training of the clones."""
    pace: RequestConfig = field(default_factory=RequestConfig)
    max_queries: int | None = None
    """Images that a service is asked about, at most."""
    max_cost: float | None = None
    """US dollars for these, at most, which needs `price_per_1000`."""
    scope: str = ""
    """Scope and permission of the test, for result and page."""
    device: Device = "auto"

    def __post_init__(self) -> None:
        check_max_cost(self.max_cost, self.price)
        check_paid(self.max_cost, {self.name: self.model})
        self.thieves  # noqa: B018 - names are checked before anything is asked
        self.chains  # noqa: B018

    @property
    def price(self) -> float | None:
        """US dollars a query."""
        per_1000 = self.config.price_per_1000
        return None if per_1000 is None else per_1000 / 1000

    @property
    def runs_folder(self) -> Path:
        return self.folder

    @property
    def is_new(self) -> bool:
        """Whether no audit was finished in the folder."""
        return not (self.folder / RESULT).is_file()

    @cached_property
    def thieves(self) -> list[Strategy]:
        return [strategy_of(name) for name in self.config.thieves]

    @cached_property
    def chains(self) -> dict[str, Chain | None]:
        """Chains of output defenses by name; None for the in-training defense."""
        return {name: chain_named(name) for name in self.config.defenses}

    @property
    def net(self) -> str:
        """Network of the clones."""
        own = self.model.record.net.name if isinstance(self.model, Run) else "cnn"
        return self.config.student or own

    def data(self, progress: Progress) -> Dataset:
        return load_classes(self.source, "an audit compares classes", progress)

    def orders(self) -> Sequence[Order]:
        """The nasty teacher, and the network that is trained to be wrong, where they are wanted."""
        return [order for order in (self.nasty, self.misinformation) if order is not None]

    @cached_property
    def nasty(self) -> Order | None:
        """The nasty teacher of a run, with the run as its adversary."""
        model = self.model
        if IN_TRAINING not in self.config.defenses or not isinstance(model, Run):
            return None
        net, before = self._own_training
        return Order(
            net=net,
            objective=Nasty(),
            # One-cycle leaves nasty teachers harmless; `auto` is the late step.
            training=replace(before, schedule="auto", milestones=(), device=self.device),
            source=model,
            under=self.folder / "defenses",
        )

    @cached_property
    def misinformation(self) -> Order | None:
        """The network of adaptive misinformation, where a chain needs it."""
        if not any("misinformation" in chain.roles for chain in self.chains.values() if chain):
            return None
        net, training = self._own_training
        return Order(
            net=net,
            objective=Misinformed(),
            training=replace(training, device=self.device),
            under=self.folder / "defenses",
        )

    @property
    def _own_training(self) -> tuple[str, Training]:
        """Network and training of a run, for networks of its defender; else those of clones."""
        if not isinstance(self.model, Run):
            return self.net, self.training
        settings = self.model.record.config.get("training", {})
        found = decode(Training, settings, where="the record") if settings else self.training
        # It starts from random weights, which no frozen training could change.
        return self.model.record.net.name, replace(found, frozen=False)

    def measure(self, runs: Mapping[Order, Run], data: Dataset, session: Session) -> MeasuredResult:
        """Measure all cells that are needed; finished ones are read again."""
        started = time.perf_counter()
        with self.opened(runs, data, session) as opened:
            found = opened.auditor.measure()
            result = opened.result(found, time.perf_counter() - started)
        records = [run.record for run in runs.values()]
        if isinstance(self.model, Run):
            records.insert(0, self.model.record)
        return MeasuredResult(result, records)

    def estimate(self, session: Session) -> list[str]:
        """The plan as sentences; nothing is trained for it, and few images are asked."""
        with self.opened(None, self.data(session.progress), session) as opened:
            return opened.plan_lines()

    def announce(self, session: Session) -> None:
        """Say the plan of a new audit, before the networks of its defenses are trained."""
        if self.is_new:
            for sentence in self.estimate(session):
                session.progress.say(sentence)

    @contextmanager
    def opened(
        self, runs: Mapping[Order, Run] | None, data: Dataset, session: Session
    ) -> "Iterator[OpenAudit]":
        with Ledger(self.folder / LEDGER) as ledger:
            context = QueryContext(
                data=data,
                ledger=ledger,
                pace=self.pace,
                max_queries=self.max_queries,
                device=self.device,
                session=session,
                price=self.price,
                max_cost=self.max_cost,
            )
            yield OpenAudit(self, runs, context)


@final
class OpenAudit:
    """An audit with its data, its ledger and its defenses.

    Args:
        audit: the settings.
        runs: the networks of its defenses; None for a plan, which needs none.
        context: its data and its ledger.
    """

    def __init__(
        self, audit: Audit, runs: Mapping[Order, Run] | None, context: QueryContext
    ) -> None:
        self.audit, self.context = audit, context
        for role, run in (("encoder", audit.encoder), ("backbone", audit.backbone)):
            if isinstance(run, Run):
                context.check_images(role, run)
        self.pool = context.pool(audit.pool or audit.source)
        self.other = None if audit.other_pool is None else context.pool(audit.other_pool)
        context.check_plan(
            audit.config,
            pool=self.pool,
            other=self.other,
            net=audit.net,
            training=audit.training,
        )
        budgets = audit.config.budgets(len(self.pool.rows), channels=context.data.channels)
        self.harvest = context.harvest(audit.model, audit.config.test_images, least=budgets[0])
        self.tests = context.tests(audit.model, audit.config.test_images)
        self.digest = identity(audit.model, self.harvest)
        self.trainer = CloneTrainer(
            dataset=context.data, net=audit.net, training=audit.training, session=context.session
        )
        self.defender = self._defender(runs)
        self.auditor = self._auditor()

    def _defender(self, runs: Mapping[Order, Run] | None) -> Defender:
        audit = self.audit
        made = runs or {}
        misinformation = None if audit.misinformation is None else made.get(audit.misinformation)
        return Defender(
            harvest=self.harvest,
            digest=self.digest,
            chains=audit.chains,
            nasty=None if audit.nasty is None else self._nasty(made.get(audit.nasty)),
            misinformation=misinformation,
            only_planned=runs is None,
            pool=self.pool,
            trainer=self.trainer,
            folder=audit.folder / "defenses",
            model=audit.model if isinstance(audit.model, Run) else None,
        )

    def _nasty(self, run: Run | None) -> tuple[Harvest, str]:
        """Answers and identity of the nasty teacher; in a plan the model stands for it."""
        if run is None:
            return self.harvest, ""
        return self.context.harvest(run, self.audit.config.test_images), run.digest

    def _auditor(self) -> Auditor:
        audit = self.audit
        store = CellStore(audit.folder, self._common())
        return Auditor(
            config=audit.config,
            sources=list(self.defender.sources()),
            trainer=self.trainer,
            engine=Engine(trainer=self.trainer, store=store, tests=self.tests, device=audit.device),
            store=store,
            pool=self.pool,
            other=self.other,
            backbone=audit.backbone,
            encoder=None if audit.encoder is None else Encoder(audit.encoder.network),
            extras=self._extras(),
            thieves=audit.thieves,
            announce=self._announce,
        )

    def _common(self) -> dict[str, Any]:
        """What all cells have in common."""
        audit = self.audit
        return {
            "data": self.context.data.digest,
            "tests": hashlib.sha256(self.tests.rows.numpy().tobytes()).hexdigest()[:16],
            "pool": self.pool.pool.digest,
            "other": None,  # of the strategies that use it; see `Auditor.extras`
            "net": audit.net,
            "training": encode(audit.training),
            "backbone": None,
            "encoder": None,
            "revisions": {**REVISIONS, "audit": REVISION},
        }

    def _extras(self) -> dict[Extra, str | None]:
        """Identity of what some strategies take besides the pool."""
        audit, backbone = self.audit, self.audit.backbone
        return {
            "other": None if self.other is None else self.other.pool.digest,
            "backbone": backbone.digest if isinstance(backbone, Run) else backbone,
            "encoder": None if audit.encoder is None else audit.encoder.digest,
        }

    # Plan and result

    def _announce(self) -> None:
        """Say the plan of cells that a finished audit lacks, and what speaks against measuring."""
        sentences = [] if self.audit.is_new else self.plan_lines()  # see `Audit.announce`
        sentences += no_better_than_chance(self.harvest, self.tests, self.context.data.classes)
        for sentence in sentences:
            self.context.session.progress.say(sentence)

    def plan(self) -> AuditPlan:
        audit, auditor = self.audit, self.auditor
        return AuditPlan(
            effort=audit.config.effort,
            data=audit.source.source,
            pool=self.pool.name,
            other_pool=None if self.other is None else self.other.name,
            test=len(self.tests),
            labelled=auditor.owned_count,
            budgets=auditor.budgets,
            seeds=auditor.seeds,
            defenses=tuple(source.name for source in auditor.sources),
            thieves=tuple(strategy.name for strategy in auditor.thieves),
            net=audit.net,
            epochs=audit.training.epochs,
            grid=audit.config.grid,
            price_per_1000=audit.config.price_per_1000,
        )

    def bill(self) -> Bill:
        """What the audit asks of its model at most; each image is asked once."""
        images = len(self.tests) + self.defender.images + self.auditor.most_asked()
        oracle = self.harvest.oracle
        lost = oracle.ledger.lost(oracle.target, oracle.purpose)
        part = Part(name="images", queries=images, spent=self.harvest.spent, lost=lost)
        return Bill.of(oracle, [part], budget=self.audit.max_queries, in_parts=True)

    def plan_lines(self) -> list[str]:
        """What the audit does at most, as sentences."""
        auditor, config = self.auditor, self.audit.config
        trials, bill = auditor.trials(), self.bill()
        tests, queries = len(self.tests), bill.parts[0].queries
        service = not isinstance(self.audit.model, Run)
        some = "a budget" if len(auditor.budgets) == 1 else "budgets"
        budgets = f"{some} of {', '.join(f'{budget:,}' for budget in auditor.budgets)} queries"
        how = (
            "every cell"
            if config.grid
            else "screening leaves out thieves whose interval lies behind the second best"
        )
        return [
            f"Effort {config.effort}: {counted(len(auditor.sources), 'defense')}, "
            f"{counted(len(auditor.thieves), 'thief', 'thieves')}, {budgets}, "
            f"{counted(auditor.seeds, 'seed')}; {how}.",
            f"At most {counted(len(trials), 'cell')} and {queries:,} queries, {tests:,} of them "
            "for test images.",
            self._time(trials),
            *(bill.lines() if service else ()),
            *(f"Left out: {reason}" for reason in self.defender.left_out),
        ]

    def _time(self, trials: Sequence[Trial]) -> str:
        """Time of training of cells and of the networks of defenses, as a sentence."""
        audit, data, pool = self.audit, self.context.data, self.context.session.workers
        workers = 1 if pool is None else pool.size
        own = training_seconds([(o, data) for o in audit.orders()], audit.folder, workers=workers)
        every, few = seconds_of_cells(
            data,
            trials,
            self.auditor.least_trials(),
            net=audit.net,
            training=audit.training,
            done=audit.folder / "none",
            workers=workers,
        )
        most, least = format_seconds(every + own), format_seconds(few + own)
        few_left = f", {least} if screening leaves out all thieves that it can" * (few < every)
        return f"Training: {most} at most{few_left}."

    def result(self, found: Measurements, seconds: float) -> AuditResult:
        half = found.halves.reporting
        right = (found.victim == found.labels)[None]
        result = AuditResult(
            model=AuditedModel(
                name=self.audit.name,
                kind=self.auditor.sources[0].shown_kind,
                classes=self.context.data.classes,
                accuracy=estimate(right[:, half]),
                digest=self.digest,
                served=not isinstance(self.audit.model, Run | FunctionVictim),
                nan_answers=self.harvest.nan_answers,
                not_summing=self.harvest.not_summing,
            ),
            plan=self.plan(),
            baselines=tuple(baselines_of(found)),
            defenses=tuple(prices(self.auditor.sources, self.tests, half)),
            cells=tuple(cells_of(found)),
            worst=tuple(worst_of(found)),
            curves=tuple(curves_of(found, owned=self.auditor.owned_count)),
            findings=(),
            left_out=tuple(self.defender.left_out),
            queries=self.harvest.spent,
            seconds=seconds,
            environment=environment(),
            scope=self.audit.scope,
            date=today(),
        )
        return replace(result, findings=findings(result))
