"""The thief that learns smoothed labels."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.core.schema import check_fields
from denature.extract.config import Threat
from denature.extract.strategies.base import Attempt, Lesson, Steps, Strategy, TrainedClone
from denature.extract.strategies.common import lesson_labels, query


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSmoothing(Strategy):
    """Random images of the pool, and a clone that learns their smoothed labels.

    The labels are the true ones of owned images, and the shown classes of the others. A defense
    that takes more from students than smoothing gives them is no better than labels alone.
    """

    name: ClassVar[str] = "label-smoothing"
    about: ClassVar[str] = (
        "Queries random images, and trains a clone on smoothed labels: the true ones where they "
        "are known, and the predicted classes elsewhere."
    )
    source: ClassVar[str] = (
        "Label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7), the measure of "
        "undistillable teachers in Markov KD (ECCV 2024)."
    )
    threats: ClassVar[tuple[Threat, ...]] = ("A", "B")

    smoothing: float = 0.1
    """Share of each label that is spread evenly over all classes; the published setting."""

    def __post_init__(self) -> None:
        check_fields(self, {"smoothing": (0 < self.smoothing < 1, "a share in (0, 1)")})

    def steps(self, attempt: Attempt) -> Steps:
        images, answers = query(attempt)
        labels = lesson_labels(attempt, images, answers)
        smoothed = self._smoothed(labels, attempt.situation.classes)
        [run] = yield [Lesson(images=images, answers=smoothed, labels=labels)]
        return TrainedClone(run.network)

    def _smoothed(self, labels: np.ndarray, classes: int) -> Answers:
        hot = torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()
        return Answers("probabilities", (1 - self.smoothing) * hot + self.smoothing / classes)
