"""The thief that learns the shown classes alone."""

from dataclasses import dataclass
from typing import ClassVar, final

from denature.extract.config import Threat
from denature.extract.strategies.base import Attempt, Lesson, Steps, Strategy, TrainedClone
from denature.extract.strategies.common import as_labels, query


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedLabels(Strategy):
    """Random images of the pool, and a clone that learns the largest score of each answer.

    No defense that keeps the predicted class takes anything from this thief.
    """

    name: ClassVar[str] = "labels"
    about: ClassVar[str] = "Queries random images, and trains a clone on the predicted classes."
    source: ClassVar[str] = (
        "CopycatCNN (Correia-Silva et al. 2018, arXiv:1806.05476), here with random images of the "
        "pool."
    )
    threats: ClassVar[tuple[Threat, ...]] = ("A", "B")

    def steps(self, attempt: Attempt) -> Steps:
        images, answers = query(attempt)
        [run] = yield [Lesson(images=images, answers=as_labels(answers))]
        return TrainedClone(run.network)
