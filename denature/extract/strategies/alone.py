"""A thief without queries, the baseline of threat A."""

from dataclasses import dataclass
from typing import ClassVar, final

from denature.extract.config import Threat
from denature.extract.strategies.base import (
    Attempt,
    Lesson,
    Situation,
    Steps,
    Strategy,
    TrainedClone,
)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Alone(Strategy):
    """A student of the owned labels; every thief of threat A could do as much for nothing."""

    name: ClassVar[str] = "alone"
    about: ClassVar[str] = "Trains on the owned labels, without a query."
    source: ClassVar[str] = "Label smoothing as a yardstick: Markov KD (ECCV 2024)."
    threats: ClassVar[tuple[Threat, ...]] = ("A",)

    smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes."""

    def excluded(self, situation: Situation) -> str | None:
        return None if situation.labelled else "The thief owns no labelled images."

    def steps(self, attempt: Attempt) -> Steps:
        import torch

        from denature.answers.answerer import Answers
        from denature.train.objectives.normal import Normal

        assert attempt.owned is not None
        labels = Answers("label", torch.from_numpy(attempt.owned.labels))
        objective = Normal(smoothing=self.smoothing)
        lesson = Lesson(images=attempt.owned.images, answers=labels, objective=objective)
        [run] = yield [lesson]
        return TrainedClone(run.network)
