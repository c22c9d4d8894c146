"""The naive thief, which takes the answers as they are."""

from dataclasses import dataclass
from typing import ClassVar, final

from denature.extract.config import Threat
from denature.extract.strategies.base import Attempt, Lesson, Steps, Strategy, TrainedClone
from denature.extract.strategies.common import query, usable


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Naive(Strategy):
    """Random images of the pool, and a clone that learns their answers."""

    name: ClassVar[str] = "naive"
    about: ClassVar[str] = "Queries random images, and trains a clone on the answers as shown."
    source: ClassVar[str] = "Knockoff Nets with random queries (Orekondy et al. 2019)."
    threats: ClassVar[tuple[Threat, ...]] = ("A", "B")

    def steps(self, attempt: Attempt) -> Steps:
        images, answers = query(attempt)
        [run] = yield [Lesson(images=images, answers=usable(answers))]
        return TrainedClone(run.network)
