"""The thief that learns from images that it did not query too."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.core.schema import check_fields
from denature.extract.strategies.base import (
    Attempt,
    Lesson,
    Steps,
    Strategy,
    TrainedClone,
    images_of_training,
)
from denature.extract.strategies.common import as_labels, lesson_labels, query
from denature.train.config import Training
from denature.train.objectives.fixmatch import NO_LABEL, FixMatch


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class SemiSupervised(Strategy):
    """FixMatch with the shown classes as the few labels, and the rest of the pool without any."""

    name: ClassVar[str] = "semi-supervised"
    about: ClassVar[str] = (
        "Queries few images for their class, and trains a clone by FixMatch on these and on images "
        "of the pool that were not queried."
    )
    source: ClassVar[str] = (
        "Semi-supervised extraction (Jagielski et al. 2020), with FixMatch (Sohn et al. 2020) in "
        "place of MixMatch, without a moving average of the weights."
    )
    whole_pool: ClassVar[bool] = True

    unlabelled: int = 5000
    """Images of the pool that are learned without a query."""
    mu: int = 7
    """Images a labelled one in training; labelled images are repeated to reach it."""
    threshold: float = 0.95
    weight: float = 1.0

    def __post_init__(self) -> None:
        rules = {
            "unlabelled": (self.unlabelled >= 0, "at least 0"),
            "mu": (self.mu >= 2, "at least 2"),
        }
        check_fields(self, rules)

    def trained_images(self, budget: int, training: Training) -> float:
        images = budget + math.ceil(self.unlabelled * self.mu / (self.mu - 1))
        return images_of_training(images, training)

    def steps(self, attempt: Attempt) -> Steps:
        queried, answers = query(attempt)
        images = np.concatenate([queried, attempt.pool(len(queried), self.unlabelled)])
        shown = torch.full((len(images),), NO_LABEL)
        shown[: len(queried)] = as_labels(answers).values
        labels = lesson_labels(attempt, images, Answers("label", shown))
        known, others = np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0)
        repeats = max(1, round(len(others) / len(known) / (self.mu - 1)))
        rows = np.concatenate([*[known] * repeats, others])
        lesson = Lesson(
            images=images[rows],
            answers=Answers("label", torch.from_numpy(labels[rows])),
            labels=labels[rows],
            objective=FixMatch(threshold=self.threshold, weight=self.weight),
        )
        [run] = yield [lesson]
        note = f"{len(known):,} labels, {len(others):,} images without one"
        return TrainedClone(run.network, note)
