"""An audit from its sources to its result: baselines, screening, racing, scores."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.audit.attempt import CellAttempt, PoolOrder
from denature.audit.cells import CellName, CellStore, MeasuredCell, predictions_by_seed
from denature.audit.config import SMALLEST_ONLY, WITH_LABELS, AuditConfig
from denature.audit.engine import Engine, Task
from denature.audit.learning import Classroom
from denature.audit.measurements import BaselineHits, Column, Measurements, Trial
from denature.audit.race import Screened, screen
from denature.audit.score import Halves, halves
from denature.audit.source import Source
from denature.core.errors import ConfigError
from denature.core.schema import encode
from denature.core.seeds import generator
from denature.extract.asking.pool import digest_of
from denature.extract.strategies.alone import Alone
from denature.extract.strategies.base import LabelledImages, Situation, Strategy, Threat

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
    classroom: Classroom
    engine: Engine
    store: CellStore
    pool: PoolOrder
    other: PoolOrder | None = None
    backbone: "Run | str | None" = None
    encoder: "nn.Module | None" = None
    thieves: Sequence[Strategy] = field(default_factory=tuple)
    announce: Callable[[], None] = lambda: None
    """Is called once, before the first cell that must be measured."""

    _announced: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        smallest = self.budgets[0]
        if len(self.pool.rows) < self.budgets[-1]:
            raise ConfigError(
                f"The largest budget is {self.budgets[-1]:,}, and {self.pool.name} has "
                f"{len(self.pool.rows):,} images that differ from each other and from the test "
                "images. Take a smaller --budget or a larger --pool."
            )
        if self.owned_count and smallest < 2:
            raise ConfigError(f"The smallest budget is {smallest}; it must be at least 2.")

    @cached_property
    def budgets(self) -> tuple[int, ...]:
        return self.config.budgets(len(self.pool.rows))

    @property
    def seeds(self) -> int:
        return self.config.preset.seeds if self.config.seeds is None else self.config.seeds

    @property
    def classes(self) -> int:
        return len(self.classroom.dataset.classes)

    @property
    def owned_count(self) -> int:
        return self.config.owned(self.classes)

    @property
    def threats(self) -> tuple[Threat, ...]:
        return ("A", "B") if self.owned_count else ("B",)

    def measure(self) -> Measurements:
        """Measure all cells that are needed; measured ones are read again."""
        tests = self.engine.tests
        labels: np.ndarray = tests.labels[tests.rows].numpy()
        images: np.ndarray = tests.images[tests.rows].numpy()
        victim = classes_of(self.sources[0].harvest(images))
        parts = halves(len(labels), self.classroom.training.seed)
        columns = [
            self._column(source, threat) for source in self.sources for threat in self.threats
        ]
        running = [self._starters(column) for column in columns]
        known = self._carry_out([t for trials in running for t in trials.values()], "screening")
        left = [self._leave(trials, known, labels, parts, seeds=1) for trials in running]
        screened: dict[CellName, tuple[MeasuredCell | None, Screened]] = {
            trial.cell: (known[trial.cell, 0], why)
            for found in left
            for trial, why in found.items()
        }
        raced: dict[CellName, list[MeasuredCell]] = {}
        for budget in self.budgets:
            trials = [
                replace(trial, budget=budget, seed=seed)
                for trials in running
                for trial in trials.values()
                if budget == self.budgets[0] or trial.strategy.name not in SMALLEST_ONLY
                for seed in range(self.seeds)
            ]
            known |= self._carry_out(trials, f"racing with {budget:,} queries")
            for trial in trials:
                raced.setdefault(trial.cell, []).append(known[trial.cell, trial.seed])
            for of_column in running:
                at_budget = {
                    n: replace(t, budget=budget)
                    for n, t in of_column.items()
                    if replace(t, budget=budget).cell in raced
                }
                for trial, why in self._leave(
                    at_budget, known, labels, parts, seeds=self.seeds
                ).items():
                    del of_column[trial.strategy.name]
                    screened |= {
                        replace(trial, budget=larger).cell: (None, why)
                        for larger in self.budgets
                        if larger > budget
                    }
        return Measurements(
            labels=labels,
            victim=victim,
            halves=parts,
            baselines={
                threat: self._baseline(threat, labels, victim, parts) for threat in self.threats
            },
            raced=raced,
            screened=screened,
            excluded=dict(self._excluded(columns)),
        )

    def _excluded(self, columns: Sequence[Column]) -> Iterator[tuple[CellName, str]]:
        """Cells that are not measured whatever comes out, with the reason."""
        for column in columns:
            for budget in self.budgets:
                for thief, reason in column.excluded.items():
                    yield CellName(column.source.name, thief, column.threat, budget), reason
                for strategy in column.strategies:
                    if budget > self.budgets[0] and strategy.name in SMALLEST_ONLY:
                        name = CellName(column.source.name, strategy.name, column.threat, budget)
                        yield name, "It trains on the whole pool, so only at the smallest budget."

    def largest(self) -> Counter[tuple[int, float]]:
        """Cells at most, by budget and number of trainings."""
        return Counter(
            (budget, strategy.trainings)
            for source in self.sources
            for threat in self.threats
            for strategy in self._column(source, threat).strategies
            for budget in self.budgets
            if budget == self.budgets[0] or strategy.name not in SMALLEST_ONLY
            for _ in range(self.seeds)
        )

    # Thieves

    def _column(self, source: Source, threat: Threat) -> Column:
        """The strategies that make sense here, and the reasons against the others."""
        situation = self.situation(source, threat, self.budgets[0])
        named = [s for s in self.thieves if threat == "B" or s.name in WITH_LABELS]
        reasons = {s.name: s.excluded(situation) for s in named}
        return Column(
            source=source,
            threat=threat,
            strategies=[s for s in named if reasons[s.name] is None],
            excluded={name: reason for name, reason in reasons.items() if reason is not None},
        )

    def _starters(self, column: Column) -> dict[str, Trial]:
        """The trials of one column at the smallest budget, by thief."""
        return {
            strategy.name: Trial(
                source=column.source,
                threat=column.threat,
                strategy=strategy,
                budget=self.budgets[0],
            )
            for strategy in column.strategies
        }

    def _leave(
        self,
        trials: dict[str, Trial],
        known: Mapping[tuple[CellName, int], MeasuredCell],
        labels: np.ndarray,
        parts: Halves,
        *,
        seeds: int,
    ) -> dict[Trial, Screened]:
        """Remove the thieves of one column that are surely behind, and return them."""
        if self.config.grid or not trials:
            return {}
        half = parts.choosing
        hits = {
            name: predictions_by_seed([known[trial.cell, seed] for seed in range(seeds)])[:, half]
            == labels[half]
            for name, trial in trials.items()
        }
        behind = {
            name: screened
            for name, screened in screen(hits, next(iter(trials.values())).budget).items()
            if not screened.raced
        }
        return {trials.pop(name): screened for name, screened in behind.items()}

    def situation(self, source: Source, threat: Threat, budget: int) -> Situation:
        return Situation(
            threat=threat,
            kind=source.shown_kind,
            random=source.chain.random,
            perturbs=source.chain.perturbs,
            classes=self.classes,
            net=self.classroom.net,
            budget=budget,
            labelled=self.owned_count if threat == "A" else 0,
            backbone=None if self.backbone is None else str(self.backbone),
            encoder=self.encoder is not None,
            other_pool=None if self.other is None else self.other.name,
        )

    # Cells

    def _carry_out(
        self, trials: Sequence[Trial], stage: str
    ) -> dict[tuple[CellName, int], MeasuredCell]:
        """Cells by name and seed; those that are stored are read."""
        keys = {trial: self.store.key(self._settings(trial)) for trial in dict.fromkeys(trials)}
        missing = [trial for trial, key in keys.items() if self.store.read(key) is None]
        if missing and not self._announced:
            self._announced.append(stage)
            self.announce()
        tasks = [self._task(trial, keys[trial]) for trial in missing]
        with self.classroom.session.progress.task(stage, len(tasks), "cells") as progress:
            for count in self.engine.carry_out(tasks):
                progress.advance(count)
        return {
            (trial.cell, trial.seed): cell
            for trial, key in keys.items()
            if (cell := self.store.read(key)) is not None
        }

    def _settings(self, trial: Trial) -> dict[str, Any]:
        """What tells a cell from the other cells of audits in this folder."""
        strategy = trial.strategy
        asks = not isinstance(strategy, Alone)
        return {
            "source": trial.source.digest if asks else None,
            "defense": trial.source.chain.settings if asks else None,
            "thief": {"name": strategy.name, **encode(cast("DataclassInstance", strategy))},
            "threat": trial.threat,
            "labelled": self.owned_count if trial.threat == "A" else 0,
            "budget": trial.budget,
            "seed": trial.seed,
        }

    def _task(self, trial: Trial, key: str) -> Task:
        owned = self.owned(trial.seed) if trial.threat == "A" else None
        attempt = CellAttempt(
            situation=self.situation(trial.source, trial.threat, trial.budget),
            seed=trial.seed,
            source=trial.source,
            main=self.pool,
            other=self.other,
            owned=None if owned is None else owned[0],
            owned_contents=frozenset() if owned is None else owned[1],
            backbone=self.backbone,
            encoder=self.encoder,
        )
        return Task(key=key, strategy=trial.strategy, attempt=attempt)

    # Threat A

    def owned(self, seed: int) -> tuple[LabelledImages, frozenset[bytes]]:
        """The labelled images of a thief, drawn from the training split, and their digests."""
        train = self.classroom.dataset.train
        order = generator(seed, "owned images").permutation(len(train.rows))
        rows = train.rows[torch.from_numpy(order[: self.owned_count])]
        images = train.images[rows].numpy()
        labelled = LabelledImages(images, train.labels[rows].numpy())
        return labelled, frozenset(digest_of(image) for image in images)

    def _baseline(
        self, threat: Threat, labels: np.ndarray, victim: np.ndarray, parts: Halves
    ) -> BaselineHits:
        """What a thief has without a query; see docs/score.md."""
        if threat == "B":
            share = 1 / self.classes
            return BaselineHits(name="chance", hits=share, agreement=share)
        named = {"owned labels": 0.0, f"owned labels, smoothed {SMOOTHING:g}": SMOOTHING}
        found = {name: self._alone(smoothing) for name, smoothing in named.items()}
        best = max(found, key=lambda name: (found[name] == labels)[:, parts.choosing].mean())
        return BaselineHits(name=best, hits=found[best] == labels, agreement=found[best] == victim)

    def _alone(self, smoothing: float) -> np.ndarray:
        """Classes that students of the owned labels give the test images, seeds x images."""
        trial = Trial(
            source=self.sources[0],
            threat="A",
            strategy=Alone(smoothing=smoothing),
            budget=self.owned_count,
        )
        seeds = range(max(BASELINE_SEEDS, self.seeds))
        trials = [replace(trial, seed=seed) for seed in seeds]
        return predictions_by_seed(list(self._carry_out(trials, "baseline").values()))


def classes_of(answers: Answers) -> np.ndarray:
    """The predicted classes of true answers, int64; of equal scores the first."""
    values = answers.values
    found: np.ndarray = (values if answers.kind == "label" else values.argmax(-1)).numpy()
    return found
