"""The largest scores only."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.errors import ConfigError
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
    renormalise: bool = False
    """Whether the shown probabilities are scaled to sum to 1; logits are refused then."""

    def __post_init__(self) -> None:
        check_fields(self, {"k": (self.k >= 1, "at least 1")})

    @property
    def settings(self) -> dict[str, Any]:
        settings = super().settings
        if not self.renormalise:  # digests and plans of before the option was there stay valid
            del settings["defense"]["renormalise"]
        return settings

    def kind(self, kind: AnswerKind) -> AnswerKind:
        if self.renormalise and kind == "logits":
            raise ConfigError(
                "The defense top-k renormalises probabilities only, not logits; show "
                "probabilities or leave renormalise out."
            )
        return super().kind(kind)

    def shows(self, classes: int) -> int:
        return min(self.k, classes)

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        shown = largest(values, self.k)
        if not self.renormalise:
            return shown
        total = shown.nansum(-1, keepdim=True)
        return shown / total.masked_fill(total == 0, 1)  # all are 0 where they were rounded before


def largest(values: "Tensor", count: int) -> "Tensor":
    """The `count` largest scores of each row, batch x classes, with NaN in place of the others."""
    ranked = values.masked_fill(values.isnan(), float("-inf"))
    # topk leaves the order of equal scores open; the wire promises that of the classes.
    shown = ranked.argsort(dim=-1, descending=True, stable=True)[..., :count]
    return values.new_full(values.shape, float("nan")).scatter(-1, shown, values.gather(-1, shown))
