"""What an audit measured, from which its result is a pure function."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from denature.audit.cells import CellName, MeasuredCell, predictions_by_seed
from denature.audit.race import Screened
from denature.audit.score import Halves, SeedHits
from denature.audit.source import Source
from denature.extract.config import Threat
from denature.extract.strategies.base import Strategy
from denature.train.config import Training

LeftOut: TypeAlias = tuple[MeasuredCell | None, Screened]
"""A cell of a thief that was left out, if it was measured, and the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineHits:
    """What a thief of one threat has without a query."""

    name: str
    hits: np.ndarray | float
    """Bool, seeds x test images, or the share of a guess."""
    agreement: np.ndarray | float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measurements:
    """All that was measured, from which the result is a pure function."""

    labels: np.ndarray
    """True classes of all test images, int64."""
    victim: np.ndarray
    """The undefended model's classes for them."""
    halves: Halves
    baselines: Mapping[Threat, BaselineHits]
    raced: Mapping[CellName, Sequence[MeasuredCell]]
    """Cells with all seeds."""
    screened: Mapping[CellName, LeftOut]
    """Cells of thieves that were left out: of screening with the cell of one seed, of larger
    budgets without one."""
    excluded: Mapping[CellName, str]
    """Cells that make no sense, with the reason."""

    def hits(self, cells: Sequence[MeasuredCell]) -> SeedHits:
        """Whether the clones are right, bool, seeds x test images."""
        found: SeedHits = predictions_by_seed(cells) == self.labels
        return found

    def agreement(self, cells: Sequence[MeasuredCell]) -> SeedHits:
        """Whether the clones answer as the undefended model, bool, seeds x test images."""
        found: SeedHits = predictions_by_seed(cells) == self.victim
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One seed of one cell, before it is measured."""

    source: Source
    threat: Threat
    strategy: Strategy
    budget: int
    seed: int = 0

    @property
    def cell(self) -> CellName:
        return CellName(self.source.name, self.strategy.name, self.threat, self.budget)

    def images(self, training: Training) -> float:
        """Images of its trainings, each counted once an epoch, at most."""
        return self.strategy.trained_images(self.budget, training)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Column:
    """One defense under one threat, with the strategies that apply."""

    source: Source
    threat: Threat
    strategies: Sequence[Strategy]
    """Those that apply within at least one budget."""
    excluded: Mapping[tuple[str, int], str]
    """Thieves and budgets that do not go together, with the reason."""

    def trials(self, budget: int) -> list[Trial]:
        """Trials of all strategies that apply within a budget, of seed 0."""
        return [
            Trial(source=self.source, threat=self.threat, strategy=strategy, budget=budget)
            for strategy in self.strategies
            if (strategy.name, budget) not in self.excluded
        ]
