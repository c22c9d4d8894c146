"""The naive thief, which takes the answers as they are."""

from dataclasses import dataclass
from typing import ClassVar, final

from denature.extract.strategies.base import Attempt, Clone, Lesson, Situation, Steps
from denature.extract.strategies.common import query, usable


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Naive:
    """Random images of the pool, and a clone that learns their answers."""

    name: ClassVar[str] = "naive"
    about: ClassVar[str] = "Queries random images, and trains a clone on the answers as shown."
    trainings: ClassVar[float] = 1
    source: ClassVar[str] = "Knockoff Nets with random queries (Orekondy et al. 2019)."

    def excluded(self, situation: Situation) -> str | None:
        return None

    def steps(self, attempt: Attempt) -> Steps:
        images, answers = query(attempt)
        [run] = yield [Lesson(images=images, answers=usable(answers))]
        return Clone(run.network)
