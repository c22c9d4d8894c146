"""The thief whose clone meets the shown scores at an auxiliary head only."""

from dataclasses import dataclass
from functools import lru_cache
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
from denature.train.objectives.skeptical import Skeptical


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class SkepticalStudent(Strategy):
    """Random images of the pool, and a skeptical student of their answers.

    The labels are the true ones of owned images, and the shown classes of the others. See
    `denature.train.objectives.skeptical.Skeptical`.
    """

    name: ClassVar[str] = "skeptical"
    about: ClassVar[str] = (
        "Queries random images, and trains a clone whose output learns from labels alone; an "
        "auxiliary head on a shallow stage learns the shown scores."
    )
    source: ClassVar[str] = (
        "Skeptical Students (Kundu et al., NeurIPS 2021). The output is detached at the deep head, "
        "as the paper describes; `coupled` is the released code. A thief has the victim's classes "
        "in place of most true labels."
    )
    threats: ClassVar[tuple[Threat, ...]] = ("A", "B")
    trainings: ClassVar[float] = 1.2

    temperature: float = 4.0
    """tau of both distillations."""
    shallow: int = 1
    """Stage of the head that learns the shown scores, from 1."""
    coupled: bool = False
    """Let the output learn from the deep head too, as in the released code."""

    def __post_init__(self) -> None:
        rules = {
            "temperature": (self.temperature > 0, "above 0"),
            "shallow": (self.shallow in (1, 2, 3), "a stage from 1 to 3, the one of the deep head"),
        }
        check_fields(self, rules)

    def excluded(self, situation: Situation) -> str | None:
        if situation.kind == "label":
            return "The answers are labels, and there are no scores to be skeptical of."
        stages = stages_of(situation.net, situation.classes)
        if stages < self.shallow:
            return (
                f"{situation.net} has {stages} stages of features before its last, and the "
                f"auxiliary head needs {self.shallow}."
            )
        return None

    def steps(self, attempt: Attempt) -> Steps:
        images, answers = query(attempt)
        objective = Skeptical(
            temperature=self.temperature, shallow=self.shallow, coupled=self.coupled
        )
        lesson = Lesson(
            images=images,
            answers=usable(answers),
            labels=lesson_labels(attempt, images, answers),
            objective=objective,
        )
        [run] = yield [lesson]
        return TrainedClone(run.network)


@lru_cache
def stages_of(net: str, classes: int) -> int:
    """Number of stages of a network before its last features, at any size of images."""
    import torch

    from denature.core.seeds import seeded
    from denature.nets import create
    from denature.nets.activations import ActivationRecorder

    with seeded(0, "stages"):
        network = create(net, classes=classes).eval()
    with torch.no_grad(), ActivationRecorder(network, stages=True) as recorder:
        recorder.ask(torch.zeros(2, 3, 32, 32))
        return len(recorder.stages)
