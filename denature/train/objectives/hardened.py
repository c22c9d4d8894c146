"""The objective of the student in defensive distillation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.core.schema import check_fields
from denature.train.objectives.base import Objective

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from denature.answers import Answers
    from denature.core.types import Labels, Logits, PerExample


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Hardened(Objective):
    """Learns a teacher's answers at a temperature, and is deployed at 1 (Papernot et al. 2016).

    The cross-entropy of the student's logits / T against softmax(teacher's logits / T), without
    true labels and without a factor T^2, as in the original.
    """

    kind: ClassVar[str] = "hardened"
    asks: ClassVar[str] = "teacher"
    needs_logits: ClassVar[bool] = True
    softened: ClassVar[bool] = True
    label: ClassVar[str] = "{teacher} teacher, hardened by its answers"
    rebuilt: ClassVar[bool] = True

    temperature: float = 20.0
    """T in training, of teacher and student; the network is deployed at 1."""

    def __post_init__(self) -> None:
        check_fields(self, {"temperature": (self.temperature > 0, "above 0")})

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from denature.losses.soft import soft_cross_entropy

        assert answers is not None
        assert answers.kind == "logits"
        return soft_cross_entropy(logits, answers.values, temperature=self.temperature)
