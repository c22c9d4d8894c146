"""The objective of a student: distillation from a teacher."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, final

from denature.core.schema import check_fields
from denature.train.objectives.base import Objective

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from denature.answers import Answers
    from denature.core.types import Labels, Logits, PerExample


AnswerForm: TypeAlias = Literal["soft", "labels"]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Distilled(Objective):
    """A student that learns from a teacher's answers, whatever their kind."""

    kind: ClassVar[str] = "distilled"
    asks: ClassVar[str] = "teacher"
    label: ClassVar[str] = "{teacher} teacher, {answers}"
    rebuilt: ClassVar[bool] = True

    temperature: float = 4.0
    """tau at which teacher and student are compared; without effect for labels."""
    alpha: float | None = None
    """Weight of the teacher's term, the rest goes to the true labels; 0.9 for soft answers, and 1
    for labels, because a thief that gets labels only has no true ones."""
    answers: AnswerForm = "soft"
    """Answers of the teacher: all probabilities, or the most probable class only."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "temperature": (self.temperature > 0, "above 0"),
                "alpha": (self.alpha is None or 0 <= self.alpha <= 1, "a share in [0, 1]"),
            },
        )

    def resolved(self) -> "Distilled":
        """The same objective with alpha filled in."""
        usual = 1.0 if self.answers == "labels" else 0.9
        return self if self.alpha is not None else replace(self, alpha=usual)

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from denature.losses.soft import distillation, hard_distillation, log_probabilities

        assert answers is not None
        alpha = self.resolved().alpha
        assert alpha is not None
        values = answers.values
        if answers.kind == "label":
            return hard_distillation(logits, values, labels, alpha=alpha)
        if self.answers == "labels":
            return hard_distillation(logits, values.argmax(-1), labels, alpha=alpha)
        if answers.kind == "probabilities":
            values = log_probabilities(values)
        return distillation(logits, values, labels, temperature=self.temperature, alpha=alpha)
