"""Scores and coordinates with few decimals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields, encode
from denature.defenses.base import Context, Defense

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Rounding(Defense):
    """Rounds to decimals, halves to the even digit; labels stay as they are.

    Rounded probabilities are not normalised again, so they need not sum to 1.
    """

    name: ClassVar[str] = "rounding"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("logits", "probabilities", "label", "landmarks")
    keeps_top: ClassVar[bool] = True

    decimals: int = 2
    """Decimals kept, -8 to 15: -1 rounds to tens."""

    def __post_init__(self) -> None:
        check_fields(self, {"decimals": (-8 <= self.decimals <= 15, "-8 to 15")})

    @property
    def settings(self) -> dict[str, Any]:
        # Plans of clones stated the decimals so when the clone's loss rounded the answers.
        return encode(self)

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        if kind == "label":
            return values
        rounded = values.round(decimals=self.decimals)
        # The product with 10^decimals overflows where a score has no such decimals.
        return rounded.where(rounded.isfinite(), values) if self.decimals > 0 else rounded
