"""The objective of a normal network: training on the true labels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.core.schema import check_fields
from denature.train.objectives.base import Objective

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from denature.answers import Answers
    from denature.core.types import Labels, Logits, PerExample


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Normal(Objective):
    """Cross-entropy against the true labels; the mean absolute error where they are landmarks.

    With a temperature it is the teacher's loss in defensive distillation (Papernot et al. 2016):
    logits / T, without a factor T^2; the network is deployed at 1.
    """

    kind: ClassVar[str] = "normal"
    label: ClassVar[str] = "alone (true labels)"
    rebuilt: ClassVar[bool] = True
    baseline: ClassVar[bool] = True
    landmarks: ClassVar[bool] = True
    softened: ClassVar[bool] = True

    temperature: float = 1.0
    """T that divides the logits in training; without effect for landmarks."""
    smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes (Szegedy et al. 2016)."""

    def __post_init__(self) -> None:
        rules = {
            "temperature": (self.temperature > 0, "above 0"),
            "smoothing": (0 <= self.smoothing < 1, "a share in [0, 1)"),
        }
        check_fields(self, rules)

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from torch.nn import functional as F

        from denature.losses.landmarks import coordinate_error

        if labels.is_floating_point():
            return coordinate_error(logits, labels)
        return F.cross_entropy(
            logits / self.temperature, labels, reduction="none", label_smoothing=self.smoothing
        )
