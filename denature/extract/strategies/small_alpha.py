"""The thief that gives scores a small weight beside labels."""

from dataclasses import dataclass
from typing import ClassVar, final

from denature.core.schema import check_fields
from denature.extract.config import Threat
from denature.extract.strategies.base import (
    Attempt,
    Lesson,
    Situation,
    Steps,
    Strategy,
    TrainedClone,
)
from denature.extract.strategies.common import lesson_labels, query, usable
from denature.train.objectives.distilled import Distilled


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class SmallAlpha(Strategy):
    """Random images of the pool, and a clone that learns mostly from labels.

    The labels are the true ones of owned images, and the shown classes of the others.
    """

    name: ClassVar[str] = "small-alpha"
    about: ClassVar[str] = (
        "Queries random images, and trains a clone on labels, true ones where they are known, "
        "with the shown scores as a small part of the loss."
    )
    source: ClassVar[str] = (
        "The distillation of Hinton et al. (2015, arXiv:1503.02531) at the lower end of the alphas "
        "of the Nasty Teacher paper (Ma et al. 2021, arXiv:2105.07381), where its students lose "
        "the least; a thief has the victim's classes in place of most true labels."
    )
    threats: ClassVar[tuple[Threat, ...]] = ("A", "B")

    alpha: float = 0.1
    """Weight of the shown scores; the rest goes to the labels."""
    temperature: float = 4.0
    """tau of the scores' term, tau^2 KL; the paper's for CIFAR-10."""

    def __post_init__(self) -> None:
        rules = {
            "alpha": (0 < self.alpha < 1, "a share in (0, 1)"),
            "temperature": (self.temperature > 0, "above 0"),
        }
        check_fields(self, rules)

    def excluded(self, situation: Situation) -> str | None:
        if situation.kind == "label" and situation.threat == "B":
            return (
                "The answers are labels and no true ones are known, so that alpha weighs nothing."
            )
        return None

    def steps(self, attempt: Attempt) -> Steps:
        images, answers = query(attempt)
        lesson = Lesson(
            images=images,
            answers=usable(answers),
            labels=lesson_labels(attempt, images, answers),
            objective=Distilled(alpha=self.alpha, temperature=self.temperature),
        )
        [run] = yield [lesson]
        return TrainedClone(run.network)
