"""A share of the largest scores."""

from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.defenses.base import Context, Defense
from denature.defenses.top_k import largest

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class SparseLogits(Defense):
    """Shows the floor(ratio * K) largest of K scores, at least one, and hides the others.

    Stingy Teacher (Ma et al., 2022), which shows logits; shown probabilities are not scaled. The
    paper gives hidden logits to the student as minus infinity before its temperature; here they
    are hidden, and the thief may fill them in. Of equal scores the first are shown.
    """

    name: ClassVar[str] = "sparse-logits"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("logits", "probabilities")
    keeps_top: ClassVar[bool] = True

    ratio: float = 0.1
    """Share of scores shown, above 0 and at most 1; the paper has 0.2 for 10 classes and 0.1 for
    100 and 200."""

    def __post_init__(self) -> None:
        check_fields(self, {"ratio": (0 < self.ratio <= 1, "above 0 and at most 1")})

    def shows(self, classes: int) -> int:
        # The float 0.29 * 100 lies just below 29.
        return max(1, floor(self.ratio * classes + 1e-9))

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        return largest(values, self.shows(values.shape[-1]))
