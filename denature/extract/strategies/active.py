"""Thieves whose last clone chooses the next images to query."""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.core.schema import check_fields
from denature.extract.selection.base import Select
from denature.extract.selection.both import both
from denature.extract.selection.k_center import k_center
from denature.extract.selection.uncertainty import uncertainty
from denature.extract.strategies.base import (
    Attempt,
    Lesson,
    QuerySource,
    Situation,
    Steps,
    Strategy,
    TrainedClone,
    images_of_training,
)
from denature.extract.strategies.common import usable
from denature.extract.strategies.networks import outputs
from denature.train.config import Training


@dataclass(frozen=True, kw_only=True, slots=True)
class Active(Strategy):
    """Rounds of equal size: the first is random, the clone of all rounds before chooses the next.

    Each round's clone starts anew. Of ActiveThief we keep selection by the clone's probabilities;
    it has 10 rounds, labels only, and a fifth of the budget for choosing the epoch.
    """

    source: ClassVar[str] = (
        "ActiveThief (Pal et al. 2020, arXiv:1905.09165); here k-center starts from the queried "
        "images, and the shown scores are learned."
    )
    queries: ClassVar[QuerySource] = "chosen"
    select: ClassVar[Select]

    rounds: int = 4
    """Trainings of clones, each of which sees a further share of the budget."""
    candidates: int = 10_000
    """Images of the pool among which the clones choose, or the budget if it is larger."""

    def __post_init__(self) -> None:
        rules = {
            "rounds": (self.rounds >= 2, "at least 2"),
            "candidates": (self.candidates >= 1, "at least 1"),
        }
        check_fields(self, rules)

    def excluded(self, situation: Situation) -> str | None:
        if situation.budget < 2 * self.rounds:
            return f"{self.rounds} rounds need {2 * self.rounds} queries or more."
        return None

    def trained_images(self, budget: int, training: Training) -> float:
        sizes = [math.ceil(budget * (n + 1) / self.rounds) for n in range(self.rounds)]
        return sum(images_of_training(size, training) for size in sizes)

    def steps(self, attempt: Attempt) -> Steps:
        count = min(max(self.candidates, attempt.left()), attempt.pool_size())
        budget = min(attempt.left(), count)
        # Candidates are fetched anew each time: many strategies wait for their clones together.
        candidates = partial(attempt.pool, 0, count)
        ends = np.linspace(0, budget, self.rounds + 1).round().astype(int).tolist()
        queried, received = np.arange(ends[1]), [attempt.ask(attempt.pool(0, ends[1]))]
        for before, after in pairwise(ends[1:]):
            [run] = yield [Lesson(images=candidates()[queried], answers=usable(_joined(received)))]
            logits = outputs(run.network, candidates(), device=attempt.device)
            new = self._chosen(logits.float().softmax(-1), queried, after - before)
            received.append(attempt.ask(candidates()[new]))
            queried = np.concatenate([queried, new])
        [run] = yield [Lesson(images=candidates()[queried], answers=usable(_joined(received)))]
        return TrainedClone(run.network)

    def _chosen(self, guesses: torch.Tensor, queried: np.ndarray, count: int) -> np.ndarray:
        """Numbers of the images to query next, int64, `count`, by the probabilities of all."""
        rest = np.setdiff1d(np.arange(len(guesses)), queried)
        chosen: np.ndarray = rest[type(self).select(guesses[rest], guesses[queried], count).numpy()]
        return chosen


def _joined(parts: list[Answers]) -> Answers:
    return Answers(parts[0].kind, torch.cat([part.values for part in parts]))


class ActiveUncertainty(Active):
    """Queries images of which the clone is the least sure."""

    name: ClassVar[str] = "active-uncertainty"
    about: ClassVar[str] = (
        "Queries in rounds the images whose answers of the last clone have the highest entropy."
    )
    select: ClassVar[Select] = staticmethod(uncertainty)


class ActiveKCenter(Active):
    """Queries images whose answers are the farthest from those that are known."""

    name: ClassVar[str] = "active-k-center"
    about: ClassVar[str] = (
        "Queries in rounds the images whose answers of the last clone are the farthest from those "
        "to all queried images."
    )
    select: ClassVar[Select] = staticmethod(k_center)


class ActiveBoth(Active):
    """Queries images that are both unsure and far from the known ones."""

    name: ClassVar[str] = "active-both"
    about: ClassVar[str] = (
        "Queries in rounds the images with the largest sum of entropy and distance, in answers of "
        "the last clone."
    )
    source: ClassVar[str] = (
        "After ActiveThief (Pal et al. 2020, arXiv:1905.09165), whose combination narrows DFAL by "
        "k-center; a sum needs no width of a preselection."
    )
    select: ClassVar[Select] = staticmethod(both)
