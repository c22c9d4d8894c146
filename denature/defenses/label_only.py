"""Labels without scores."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.defenses.base import Context, Defense

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class LabelOnly(Defense):
    """Shows the predicted class only; of equal scores the first class is predicted."""

    name: ClassVar[str] = "label-only"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("logits", "probabilities", "label")
    gives: ClassVar[AnswerKind | None] = "label"
    keeps_top: ClassVar[bool] = True

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        if kind == "label":
            return values
        return values.masked_fill(values.isnan(), float("-inf")).argmax(-1)
