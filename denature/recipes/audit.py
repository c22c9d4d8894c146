"""The audit of a model, as an experiment: the networks of its defenses, its cells, its result."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

from torch import nn

from denature.audit.attempt import PoolOrder
from denature.audit.auditor import Auditor
from denature.audit.cells import CellStore
from denature.audit.config import UNDEFENDED, AuditConfig
from denature.audit.engine import Engine
from denature.audit.learning import Classroom
from denature.audit.pricing import prices
from denature.audit.result import AuditedModel, AuditPlan, AuditResult
from denature.audit.score import estimate
from denature.audit.source import Harvest, Source
from denature.audit.summary import baselines_of, cells_of, curves_of, worst_of
from denature.core.errors import ConfigError
from denature.core.progress import Progress, format_seconds
from denature.core.record import environment
from denature.core.revisions import REVISIONS
from denature.core.schema import decode, encode
from denature.core.seeds import seeded
from denature.data import DataConfig, Dataset
from denature.data.dataset import Split
from denature.defenses.base import Chain, NetworkRole
from denature.defenses.catalogue import chain_of
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import StoredPool, open_pool, pool_of_tests
from denature.extract.compatibility import about_of, fitted
from denature.extract.config import RequestConfig
from denature.extract.strategies.base import Lesson, Strategy
from denature.extract.strategies.catalogue import strategy_of
from denature.extract.victims.base import Victim
from denature.extract.victims.local import local
from denature.nets import create
from denature.recipes.estimate import training_seconds
from denature.recipes.experiment import Measured, load_classes
from denature.train import Nasty, Normal, Order, Run, Training, make
from denature.train.classes import ClassMatcher
from denature.train.config import Device
from denature.train.session import Session

LEDGER = "ledger.sqlite"

IN_TRAINING = "nasty"
"""The in-training defense that is trained from a run, and audited like any other model."""

SERVICE_TESTS = 1000
"""Test images that a service is asked about, at most, unless more are wanted."""

SURROGATE_EPOCHS = 10
"""Epochs of the defender's surrogate (Mazeika et al. 2022: 10 of 50)."""

SURROGATE_IMAGES = 5000


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
    training: Training = field(default_factory=Training)
    """Training of the clones."""
    pace: RequestConfig = field(default_factory=RequestConfig)
    max_queries: int | None = None
    """Images that a service is asked about, at most."""
    device: Device = "auto"

    def __post_init__(self) -> None:
        self.thieves  # noqa: B018 - names are checked before anything is asked
        self.chains  # noqa: B018

    @property
    def runs_folder(self) -> Path:
        return self.folder

    @cached_property
    def thieves(self) -> list[Strategy]:
        return [strategy_of(name) for name in self.config.thieves]

    @cached_property
    def chains(self) -> dict[str, Chain]:
        """Chains of output defenses by name."""
        return {name: chain_of(name) for name in self.config.defenses if name != IN_TRAINING}

    @property
    def net(self) -> str:
        """Network of the clones."""
        own = self.model.record.net.name if isinstance(self.model, Run) else "cnn"
        return self.config.net or own

    @property
    def roles(self) -> set[NetworkRole]:
        return {role for chain in self.chains.values() for role in chain.roles}

    def data(self, progress: Progress) -> Dataset:
        return load_classes(self.source, "an audit compares classes", progress)

    def orders(self) -> Sequence[Order]:
        """The nasty teacher, and the network that is trained to be wrong, where they are wanted."""
        return [order for order in (self._nasty, self._misinformation) if order is not None]

    @cached_property
    def _nasty(self) -> Order | None:
        model = self.model
        if IN_TRAINING not in self.config.defenses or not isinstance(model, Run):
            return None
        settings = model.record.config.get("training", {})
        before = decode(Training, settings, where="the record") if settings else self.training
        return Order(
            net=model.record.net.name,
            objective=Nasty(),
            # One-cycle leaves nasty teachers harmless; `auto` is the late step.
            training=replace(before, schedule="auto", milestones=(), device=self.device),
            source=model,
            under=self.folder / "defenses",
        )

    @cached_property
    def _misinformation(self) -> Order | None:
        if "misinformation" not in self.roles:
            return None
        from denature.train.objectives.misinformed import Misinformed

        return Order(
            net=self.net,
            objective=Misinformed(),
            training=self.training,
            under=self.folder / "defenses",
        )

    def measure(self, runs: Mapping[Order, Run], data: Dataset, session: Session) -> Measured:
        """Measure all cells that are needed; finished ones are read again."""
        started = time.perf_counter()
        with self._opened(runs, data, session) as audit:
            result = audit.result(time.perf_counter() - started)
        records = [run.record for run in runs.values()]
        if isinstance(self.model, Run):
            records.insert(0, self.model.record)
        return Measured(result, records)

    def estimate(self, session: Session) -> list[str]:
        """The plan as sentences; nothing is trained but what the plan needs to know."""
        data = self.data(session.progress)
        runs = dict(
            zip(self.orders(), make(list(self.orders()), data, session=session), strict=True)
        )
        with self._opened(runs, data, session) as audit:
            return audit.plan_lines()

    @contextmanager
    def _opened(
        self, runs: Mapping[Order, Run], data: Dataset, session: Session
    ) -> "Iterator[_OpenAudit]":
        with Ledger(self.folder / LEDGER) as ledger:
            yield _OpenAudit(self, runs, data, session, ledger)


class _OpenAudit:
    """An audit with its data, its ledger, and the networks of its defenses."""

    def __init__(
        self,
        audit: Audit,
        runs: Mapping[Order, Run],
        data: Dataset,
        session: Session,
        ledger: Ledger,
    ) -> None:
        self.audit, self.runs, self.session, self.ledger = audit, runs, session, ledger
        model = audit.model
        if isinstance(model, Run):
            model = ClassMatcher(data, session.progress)("run", model)
        self.model: Run | Victim = model
        self.data = data
        self.tests = self._tests(data.test)
        self.left_out: list[str] = []
        self.classroom = Classroom(
            dataset=data, net=audit.net, training=audit.training, session=session
        )
        self.harvest = self._harvest(model)
        self.pools = [self._pool(config) for config in (audit.pool or audit.source,)]
        self.other = None if audit.other_pool is None else self._pool(audit.other_pool)
        self.store = CellStore(audit.folder, self._common())
        self.auditor = self._auditor()

    # What the audit needs

    def _tests(self, split: Split) -> Split:
        wanted = self.audit.config.test_images
        if wanted is None:
            wanted = len(split) if isinstance(self.model, Run) else SERVICE_TESTS
        return split if wanted >= len(split) else split.fraction(wanted / len(split))

    def _harvest(self, model: Run | Victim) -> Harvest:
        victim = local(model, kind="logits", device=self.audit.device) if isinstance(
            model, Run) else model  # fmt: skip
        about = fitted(about_of(victim), self.data, self.session.progress)
        oracle = Oracle(
            victim=victim,
            ledger=self.ledger,
            about=about,
            budget=10**9 if self.audit.max_queries is None else self.audit.max_queries,
            purpose="audit",
            pace=self.audit.pace,
            price=None,
            stopper=self.session.stopper,
            progress=self.session.progress,
        )
        return Harvest(oracle, classes=len(self.data.classes))

    def _pool(self, config: DataConfig) -> PoolOrder:
        data = self.data
        pool = open_pool(
            config,
            channels=data.channels,
            image_size=data.image_size,
            progress=self.session.progress,
        )
        if not isinstance(pool, StoredPool):
            raise ConfigError("Noise is no pool of an audit; name images with --pool.")
        tests = pool_of_tests(data)
        return PoolOrder(pool, set(tests.contents(range(tests.size))))

    @cached_property
    def digest(self) -> str:
        """Identity of the model."""
        if isinstance(self.model, Run):
            return self.model.digest
        about = self.harvest.oracle.about
        return hashlib.sha256(f"{about.target} {about.options}".encode()).hexdigest()[:16]

    def _common(self) -> dict[str, Any]:
        audit = self.audit
        return {
            "model": self.digest,
            "data": self.data.digest,
            "tests": hashlib.sha256(self.tests.rows.numpy().tobytes()).hexdigest()[:16],
            "pool": self.pools[0].pool.digest,
            "other": None if self.other is None else self.other.pool.digest,
            "net": audit.net,
            "training": encode(audit.training),
            "backbone": audit.backbone.digest
            if isinstance(audit.backbone, Run)
            else audit.backbone,
            "revisions": dict(REVISIONS),
        }

    # Defenses

    def _auditor(self) -> Auditor:
        audit = self.audit
        self.harvest(self.data.test.images[self.tests.rows[:2]].numpy())  # settles the kind
        return Auditor(
            config=audit.config,
            sources=list(self._sources()),
            classroom=self.classroom,
            engine=Engine(
                classroom=self.classroom,
                store=self.store,
                tests=self.tests,
                device=audit.device,
            ),
            store=self.store,
            pool=self.pools[0],
            other=self.other,
            backbone=audit.backbone,
            thieves=audit.thieves,
            announce=self._announce,
        )

    def _sources(self) -> Iterator[Source]:
        """The model behind each defense; what cannot be audited here is noted."""
        networks = self._networks()
        identity = " ".join([self.digest, *sorted(f"{r}" for r in networks)])
        for name in self.audit.config.defenses:
            if name == IN_TRAINING:
                yield from self._nasty_source()
                continue
            chain = self.audit.chains[name]
            source = Source(
                name=name, harvest=self.harvest, chain=chain, networks=networks, digest=identity
            )
            try:
                source.shown_kind  # noqa: B018
            except ConfigError as error:
                if name == UNDEFENDED:
                    raise
                self.left_out.append(f"{name}: {error}")
                continue
            yield source

    def _nasty_source(self) -> Iterator[Source]:
        order = self.audit._nasty
        if order is None:
            self.left_out.append(
                f"{IN_TRAINING}: it is trained from a run, and {self.audit.name} is none."
            )
            return
        nasty = self.runs[order]
        yield Source(name=IN_TRAINING, harvest=self._harvest(nasty), digest=nasty.digest)

    def _networks(self) -> dict[NetworkRole, nn.Module]:
        """The defender's networks for all chains."""
        networks: dict[NetworkRole, nn.Module] = {}
        roles = self.audit.roles
        if "untrained" in roles:
            networks["untrained"] = self._untrained()
        if "surrogate" in roles:
            networks["surrogate"] = self._surrogate()
        if (order := self.audit._misinformation) is not None:
            networks["misinformation"] = self.runs[order].network
        return {role: network.eval() for role, network in networks.items()}

    def _untrained(self) -> nn.Module:
        data = self.data
        with seeded(self.audit.training.seed, "untrained surrogate"):
            return create(
                self.audit.net,
                classes=len(data.classes),
                channels=data.channels,
                image_size=data.image_size,
            )

    def _surrogate(self) -> nn.Module:
        """A student of the true answers to the pool, as the defender expects the thief's."""
        rows = self.pools[0].shuffled(self.audit.training.seed, set())[:SURROGATE_IMAGES]
        images = self.pools[0].pool.images(rows)
        answers = self.harvest(images)
        if answers.kind != "label":
            answers = answers._replace(values=answers.values.float())
        lesson = Lesson(images=images, answers=answers, training={"epochs": SURROGATE_EPOCHS})
        folder = self.audit.folder / "defenses"
        groups = self.classroom.orders([lesson], folder, seed=0, recipe="surrogate")
        [run] = self.classroom.learn(groups, 1)
        return run.network

    # Plan and result

    def _announce(self) -> None:
        for line in self.plan_lines():
            self.session.progress.say(line)

    def plan(self) -> AuditPlan:
        audit, auditor = self.audit, self.auditor
        return AuditPlan(
            effort=audit.config.effort,
            data=audit.source.source,
            pool=self.pools[0].name,
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

    def plan_lines(self) -> list[str]:
        """What the audit does at most, as sentences."""
        auditor, config = self.auditor, self.audit.config
        trials = auditor.largest()
        cells = sum(trials.values())
        seconds = self._seconds(trials)
        tests = len(self.tests)
        queries = tests + auditor.seeds * auditor.budgets[-1]
        budgets = ", ".join(f"{budget:,}" for budget in auditor.budgets)
        how = "every cell" if config.grid else "screening leaves out thieves that are surely behind"
        return [
            f"Effort {config.effort}: {len(auditor.sources)} defenses, {len(auditor.thieves)} "
            f"thieves, budgets of {budgets} queries, {auditor.seeds} seeds; {how}.",
            f"At most {cells:,} cells, about {queries:,} images asked, of them {tests:,} test "
            f"images, and {format_seconds(seconds)} of training.",
            *(f"Left out: {reason}" for reason in self.left_out),
        ]

    def _seconds(self, trials: Mapping[tuple[int, float], int]) -> float:
        """Seconds of training of cells by budget and number of trainings, at most."""
        total, one = 0.0, {}
        for (budget, trainings), count in trials.items():
            if budget not in one:
                train = self.data.train
                part = replace(self.data, train=replace(train, rows=train.rows[:budget]))
                order = Order(net=self.audit.net, objective=Normal(), training=self.audit.training)
                one[budget] = training_seconds([(order, part)], self.audit.folder / "none")
            total += count * trainings * one[budget]
        return total

    def result(self, seconds: float) -> AuditResult:
        started = time.perf_counter()
        found = self.auditor.measure()
        half = found.halves.reporting
        right = (found.victim == found.labels)[None]
        result = AuditResult(
            model=AuditedModel(
                name=self.audit.name,
                kind=self.auditor.sources[0].shown_kind,
                classes=self.data.classes,
                accuracy=estimate(right[:, half]),
                digest=self.digest,
            ),
            plan=self.plan(),
            baselines=tuple(baselines_of(found)),
            defenses=tuple(prices(self.auditor.sources, self.tests, half)),
            cells=tuple(cells_of(found)),
            worst=tuple(worst_of(found)),
            curves=tuple(curves_of(found)),
            findings=(),
            left_out=tuple(self.left_out),
            queries=len(self.harvest),
            seconds=seconds + time.perf_counter() - started,
            environment=environment(),
        )
        return result
