"""An audit from its sources to its result: baselines, screening, racing, scores."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np

from denature.audit.attempt import (
    CellAttempt,
    PoolOrder,
    contents_of_tests,
    owned_images,
    seed_of,
)
from denature.audit.cells import CellName, CellStore, MeasuredCell, predictions_by_seed
from denature.audit.clone_training import CloneTrainer
from denature.audit.config import AuditConfig
from denature.audit.engine import CellTask, Engine
from denature.audit.measurements import BaselineHits, Column, LeftOut, Measurements, Trial
from denature.audit.outstanding import Outstanding
from denature.audit.race import Screened, fewest, screen
from denature.audit.result import CHANCE, ONE_CLASS
from denature.audit.score import Halves, SeedHits, constant_hits, halves
from denature.audit.source import Source
from denature.core.errors import ConfigError
from denature.core.schema import encode
from denature.extract.config import Threat
from denature.extract.strategies.alone import Alone
from denature.extract.strategies.base import Extra, LabelledImages, Situation, Strategy
from denature.extract.strategies.common import as_labels

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import nn

    from denature.train.run import Run

SMOOTHING = 0.1
"""Label smoothing of the second baseline of threat A."""


BASELINE_SEEDS = 5
"""Seeds of the baselines at least: they cost no query, and with two of them the victim's advantage
is often not measurable (docs/score.md)."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Auditor:
    """Measures the cells of an audit, and finds the worst thief without measuring all of them."""

    config: AuditConfig
    sources: Sequence[Source]
    """The model behind each defense; the first is undefended."""
    trainer: CloneTrainer
    engine: Engine
    store: CellStore
    pool: PoolOrder
    other: PoolOrder | None = None
    backbone: "Run | str | None" = None
    encoder: "nn.Module | None" = None
    thieves: Sequence[Strategy] = field(default_factory=tuple)
    extras: Mapping[Extra, str | None] = field(default_factory=dict)
    """Identity of what some strategies take besides the pool."""
    announce: Callable[[], None] = lambda: None
    """Is called once, before the first cell that must be measured."""

    _announced: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if not self.trials():
            reasons = dict.fromkeys(
                f"{thief}: {why}"
                for source in self.sources
                for threat in self.threats
                for (thief, _), why in self._column(source, threat).excluded.items()
            )
            raise ConfigError(f"No thief applies. {' '.join(reasons)} Name another with --thief.")

    @cached_property
    def budgets(self) -> tuple[int, ...]:
        return self.config.budgets(len(self.pool.rows), channels=self.trainer.dataset.channels)

    @property
    def seeds(self) -> int:
        return self.config.preset.seeds if self.config.seeds is None else self.config.seeds

    @property
    def classes(self) -> int:
        return len(self.trainer.dataset.classes)

    @property
    def owned_count(self) -> int:
        return self.config.owned(self.classes)

    @property
    def threats(self) -> tuple[Threat, ...]:
        return ("A", "B") if self.owned_count else ("B",)

    @cached_property
    def columns(self) -> list[Column]:
        return [self._column(source, threat) for source in self.sources for threat in self.threats]

    def measure(self) -> Measurements:
        """Measure all cells that are needed; measured ones are read again."""
        tests = self.engine.tests
        labels: np.ndarray = tests.labels[tests.rows].numpy()
        images: np.ndarray = tests.images[tests.rows].numpy()
        victim: np.ndarray = as_labels(self.sources[0].harvest(images)).values.numpy()
        parts = halves(len(labels), self.trainer.training.seed)
        alone = self._alone_trials().values() if "A" in self.threats else ()
        planned = [*self.trials(), *itertools.chain(*alone)]
        with Outstanding.shown(planned, self.trainer) as work:
            raced, screened = self._race(self.columns, labels, parts, work)
            baselines = {
                threat: self._baseline(threat, labels, victim, parts, work)
                for threat in self.threats
            }
        return Measurements(
            labels=labels,
            victim=victim,
            halves=parts,
            baselines=baselines,
            raced=raced,
            screened=screened,
            excluded={
                CellName(column.source.name, thief, column.threat, budget): reason
                for column in self.columns
                for (thief, budget), reason in column.excluded.items()
            },
        )

    def _race(
        self, columns: Sequence[Column], labels: np.ndarray, parts: Halves, work: Outstanding
    ) -> tuple[dict[CellName, list[MeasuredCell]], dict[CellName, LeftOut]]:
        """Screen all thieves, then measure budget by budget those that are not surely behind."""

        def hits(cells: Sequence[MeasuredCell]) -> SeedHits:
            found: SeedHits = (predictions_by_seed(cells) == labels)[:, parts.choosing]
            return found

        first = [column.trials(self.budgets[0]) for column in columns]
        known = self._carry_out([trial for trials in first for trial in trials], "screening", work)
        raced: dict[CellName, list[MeasuredCell]] = {}
        screened: dict[CellName, LeftOut] = {}
        gone: set[tuple[str, ...]] = set()
        for column, trials in zip(columns, first, strict=True):
            for trial, why in self._behind(trials, known, hits, seeds=1).items():
                screened[trial.cell] = (known[trial.cell, 0], why)
                screened |= self._not_raced(column, trial, why)
                gone.add(trial.cell[:3])
        work.drop_thieves(gone)
        for budget in self.budgets:
            waves = [
                [trial for trial in column.trials(budget) if trial.cell[:3] not in gone]
                for column in columns
            ]
            repeated = [
                replace(trial, seed=seed)
                for wave in waves
                for trial in wave
                for seed in range(self.seeds)
            ]
            known |= self._carry_out(repeated, f"racing with {budget:,} queries", work)
            for trial in repeated:
                raced.setdefault(trial.cell, []).append(known[trial.cell, trial.seed])
            for column, wave in zip(columns, waves, strict=True):
                for trial, why in self._behind(wave, known, hits, seeds=self.seeds).items():
                    screened |= self._not_raced(column, trial, why)
                    gone.add(trial.cell[:3])
            work.drop_thieves(gone)
        return raced, screened

    def _not_raced(self, column: Column, trial: Trial, why: Screened) -> dict[CellName, LeftOut]:
        """The cells at larger budgets of a thief that left the race, where it would apply."""
        return {
            replace(trial, budget=larger).cell: (None, why)
            for larger in self.budgets
            if larger > trial.budget and (trial.strategy.name, larger) not in column.excluded
        }

    def _behind(
        self,
        trials: Sequence[Trial],
        known: Mapping[tuple[CellName, int], MeasuredCell],
        hits: Callable[[Sequence[MeasuredCell]], SeedHits],
        *,
        seeds: int,
    ) -> dict[Trial, Screened]:
        """The trials of one column that are surely behind; none with `grid`."""
        if self.config.grid or not trials:
            return {}
        by_thief = {
            trial.strategy.name: hits([known[trial.cell, seed] for seed in range(seeds)])
            for trial in trials
        }
        found = screen(by_thief, trials[0].budget)
        return {
            trial: found[trial.strategy.name]
            for trial in trials
            if not found[trial.strategy.name].raced
        }

    def trials(self) -> list[Trial]:
        """All trials that may be measured, without the baselines."""
        return [
            replace(trial, seed=seed)
            for column in self.columns
            for budget in self.budgets
            for trial in column.trials(budget)
            for seed in range(self.seeds)
        ]

    def least_trials(self) -> list[Trial]:
        """The trials that remain where screening leaves out as many thieves as it can.

        The best two are taken for those that train least.
        """
        if self.config.grid:
            return self.trials()
        found = []
        for column in self.columns:
            for budget in self.budgets:
                trials = column.trials(budget)
                raced = fewest(
                    {trial.strategy.name: trial.images(self.trainer.training) for trial in trials}
                )
                for trial in trials:
                    if trial.strategy.name in raced:
                        found += [replace(trial, seed=seed) for seed in range(self.seeds)]
                    elif budget == self.budgets[0]:
                        found.append(trial)  # of screening
        return found

    def most_asked(self) -> int:
        """Images of thieves that the model is asked about, at most: each image is asked once."""
        columns = [self._column(source, "B") for source in self.sources]
        thieves = [strategy for column in columns for strategy in column.strategies]
        most, every = self.budgets[-1], sum(self.budgets)
        # Chosen images differ behind each defense and within each budget; own ones do not.
        of_pool = most + every * sum(thief.queries == "chosen" for thief in thieves)
        others = most * len({thief.name for thief in thieves if thief.queries == "own"})
        owned = min(self.owned_count, most)
        return min(len(self.pool.rows), self.seeds * of_pool) + self.seeds * (others + owned)

    # Thieves

    def _column(self, source: Source, threat: Threat) -> Column:
        """The strategies that make sense here, and the reasons against the others."""
        named = [strategy for strategy in self.thieves if threat in strategy.threats]
        reasons = {
            (strategy.name, budget): reason
            for strategy in named
            for budget in self.budgets
            if (reason := self._reason_against(strategy, source, threat, budget)) is not None
        }
        applied = [s for s in named if any((s.name, b) not in reasons for b in self.budgets)]
        return Column(source=source, threat=threat, strategies=applied, excluded=reasons)

    def _reason_against(
        self, strategy: Strategy, source: Source, threat: Threat, budget: int
    ) -> str | None:
        if strategy.whole_pool and budget > self.budgets[0]:
            return f"It learns from the whole pool, and is raced at {self.budgets[0]:,} queries."
        if threat == "A" and budget < self.owned_count:
            return f"The {self.owned_count:,} owned images, which come first, are not all asked."
        return strategy.excluded(self.situation(source, threat, budget))

    def situation(self, source: Source, threat: Threat, budget: int) -> Situation:
        return Situation(
            threat=threat,
            kind=source.shown_kind,
            random=source.chain.random,
            perturbs=source.chain.perturbs,
            classes=self.classes,
            net=self.trainer.net,
            budget=budget,
            labelled=self.owned_count if threat == "A" else 0,
            backbone=None if self.backbone is None else str(self.backbone),
            encoder=self.encoder is not None,
            other_pool=None if self.other is None else self.other.name,
        )

    # Cells

    def _carry_out(
        self, trials: Sequence[Trial], stage: str, work: Outstanding
    ) -> dict[tuple[CellName, int], MeasuredCell]:
        """Cells by name and seed; those that are stored are read."""
        keys = {trial: self.store.key(self._settings(trial)) for trial in dict.fromkeys(trials)}
        # By key, since a defense that is spelled in two ways has the same cells.
        by_key = {key: trial for trial, key in keys.items()}
        found = {key: cell for key in by_key if (cell := self.store.read(key)) is not None}
        for key in found:
            self.store.tidy(key)  # a kill may have come right after the cell was written
        missing = {key: trial for key, trial in by_key.items() if key not in found}
        if missing and not self._announced:
            self._announced.append(stage)
            self.announce()
        groups, measured = self._groups(missing, work), 0
        work.drop(trials)  # the other ones: they are stored, or the same as one that is not
        for count in itertools.chain([0], self.engine.carry_out(groups, work.task)):
            measured += count
            if missing:
                work.task.advance(0, f"{stage}: {measured:,} of {len(missing):,} cells")
        found |= {key: cell for key in missing if (cell := self.store.read(key)) is not None}
        return {(trial.cell, trial.seed): found[key] for trial, key in keys.items() if key in found}

    def _groups(self, missing: Mapping[str, Trial], work: Outstanding) -> list[list[CellTask]]:
        """Tasks of one thief and seed behind all defenses together; the longest ones first.

        What a thief of labels learns is the same behind all defenses that keep the class.
        """
        groups: dict[tuple[str, Threat, int, int], list[CellTask]] = {}
        for key, trial in sorted(
            missing.items(), key=lambda item: -item[1].images(self.trainer.training)
        ):
            alike = (trial.strategy.name, trial.threat, trial.budget, trial.seed)
            task = CellTask(
                key=key,
                strategy=trial.strategy,
                begin=partial(self._attempt, trial),
                images=work.take(trial),
            )
            groups.setdefault(alike, []).append(task)
        return list(groups.values())

    def _settings(self, trial: Trial) -> dict[str, Any]:
        """What tells a cell from the other cells of audits in this folder."""
        strategy = trial.strategy
        asks = not isinstance(strategy, Alone)
        revisions = trial.source.chain.revisions
        return {
            "source": trial.source.digest if asks else None,
            "defense": trial.source.chain.settings if asks else None,
            "thief": {
                "name": strategy.name,
                **encode(cast("DataclassInstance", strategy)),
                **({"revision": strategy.revision} if strategy.revision > 1 else {}),
            },
            **({"revisions": revisions} if revisions and asks else {}),
            "threat": trial.threat,
            "labelled": self.owned_count if trial.threat == "A" else 0,
            "budget": trial.budget,
            "seed": trial.seed,
            **{name: self.extras[name] for name in strategy.uses},
        }

    def _seed(self, number: int) -> int:
        return seed_of(self.trainer.training, number)

    def _attempt(self, trial: Trial) -> CellAttempt:
        owned = self.owned(trial.seed) if trial.threat == "A" else None
        return CellAttempt(
            situation=self.situation(trial.source, trial.threat, trial.budget),
            seed=self._seed(trial.seed),
            device=self.engine.device,
            source=trial.source,
            main=self.pool,
            other=self.other,
            owned=None if owned is None else owned[0],
            owned_contents=frozenset() if owned is None else owned[1],
            backbone=self.backbone,
            encoder=self.encoder,
        )

    # Threat A

    def owned(self, number: int) -> tuple[LabelledImages, frozenset[bytes]]:
        """The labelled images of a thief in a repetition, and their digests."""
        dataset, seed = self.trainer.dataset, self._seed(number)
        return owned_images(dataset, self._test_contents, count=self.owned_count, seed=seed)

    @cached_property
    def _test_contents(self) -> frozenset[bytes]:
        return contents_of_tests(self.trainer.dataset)

    def _baseline(
        self,
        threat: Threat,
        labels: np.ndarray,
        victim: np.ndarray,
        parts: Halves,
        work: Outstanding,
    ) -> BaselineHits:
        """What a thief has without a query; see docs/score.md."""
        if threat == "B":
            hits, agreement = (constant_hits(classes, self.classes) for classes in (labels, victim))
            name = CHANCE if isinstance(hits, float) else ONE_CLASS
            return BaselineHits(name=name, hits=hits, agreement=agreement)
        found = {
            name: predictions_by_seed(list(self._carry_out(trials, "baseline", work).values()))
            for name, trials in self._alone_trials().items()
        }
        best = max(found, key=lambda name: (found[name] == labels)[:, parts.choosing].mean())
        return BaselineHits(name=best, hits=found[best] == labels, agreement=found[best] == victim)

    def _alone_trials(self) -> dict[str, list[Trial]]:
        """Students of the owned labels, by the name of the baseline."""
        named = {"owned labels": 0.0, f"owned labels, smoothed {SMOOTHING:g}": SMOOTHING}
        source, budget = self.sources[0], self.owned_count
        seeds = range(max(BASELINE_SEEDS, self.seeds))
        return {
            name: [
                Trial(source=source, threat="A", strategy=thief, budget=budget, seed=seed)
                for seed in seeds
            ]
            for name, thief in ((name, Alone(smoothing=share)) for name, share in named.items())
        }
