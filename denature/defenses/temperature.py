"""Scores at a temperature."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.defenses.base import Context, Defense
from denature.defenses.distributions import normalised, probabilities

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Temperature(Defense):
    """Divides logits by T; probabilities become softmax(log(p) / T), all of them being shown.

    T above 1 flattens answers, T below 1 sharpens them.
    """

    name: ClassVar[str] = "temperature"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("logits", "probabilities")
    keeps_top: ClassVar[bool] = True
    needs_all: ClassVar[bool] = True
    revision: ClassVar[int] = 2
    """2: probabilities are normalised first."""

    temperature: float = 4.0
    """T, from 0.001 to 1,000."""

    def __post_init__(self) -> None:
        check_fields(
            self, {"temperature": (0.001 <= self.temperature <= 1000, "from 0.001 to 1,000")}
        )

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        if kind == "logits":
            return values / self.temperature
        true = normalised(probabilities(values, kind))
        return (true.log() / self.temperature).softmax(-1).to(values)
