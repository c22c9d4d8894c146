"""Learning from the true labels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

if TYPE_CHECKING:  # the command line reads the fields without paying for torch
    from denature.answers import Answers
    from denature.core.types import Labels, Logits, PerExample


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Normal:
    """Cross-entropy against the true labels; the mean absolute error where they are landmarks."""

    kind: ClassVar[str] = "normal"
    asks: ClassVar[None] = None
    landmarks: ClassVar[bool] = True

    def __call__(
        self, logits: "Logits", labels: "Labels", answers: "Answers | None", *, done: float
    ) -> "PerExample":
        from torch.nn import functional as F

        from denature.losses.landmarks import coordinate_error

        if labels.is_floating_point():
            return coordinate_error(logits, labels)
        return F.cross_entropy(logits, labels, reduction="none")
