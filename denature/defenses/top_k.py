"""The largest scores only."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.defenses.base import Context, Defense

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class TopK(Defense):
    """Shows the k largest scores and hides the others; of equal scores the first are shown."""

    name: ClassVar[str] = "top-k"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("logits", "probabilities")
    keeps_top: ClassVar[bool] = True

    k: int = 1
    """Number of scores shown; all where there are fewer classes."""

    def __post_init__(self) -> None:
        check_fields(self, {"k": (self.k >= 1, "at least 1")})

    def shows(self, scores: int) -> int:
        return min(self.k, scores)

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        ranked = values.masked_fill(values.isnan(), float("-inf"))
        # topk leaves the order of equal scores open; the wire promises that of the classes.
        shown = ranked.argsort(dim=-1, descending=True, stable=True)[..., : self.k]
        return values.new_full(values.shape, float("nan")).scatter(
            -1, shown, values.gather(-1, shown)
        )
