"""Adaptive misinformation: wrong answers to images that the model is unsure of."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.defenses.base import Context, NetworkRole, Perturbation
from denature.defenses.distributions import normalised, probabilities
from denature.defenses.surrogates import predicted

if TYPE_CHECKING:
    from torch import Tensor, nn

    from denature.core.types import Pixels


@final
@dataclass(frozen=True, kw_only=True)
class AdaptiveMisinformation(Perturbation):
    """Shows (1 - h) y + h f^, with h = sigmoid(nu (tau - max y)) and a network f^ that is wrong.

    Kariyappa & Qureshi 2020 (arXiv:1911.07100). Images of a thief's pool are meant to be far from
    the training images, and so to have a small max y, for which the paper trains the victim with
    outlier exposure. f^ is a network of `denature.train.objectives.misinformed`.
    """

    name: ClassVar[str] = "adaptive-misinformation"
    role: ClassVar[NetworkRole | None] = "misinformation"
    keeps_top: ClassVar[bool] = False

    tau: float = 0.7
    """max y below which the answer is mostly that of f^, in [0, 1]; ModelGuard's comparison takes
    0.7 on CIFAR-10, 0.4 on CIFAR-100."""
    nu: float = 1000.0
    """Steepness of the change at tau, above 0; 1000 is almost a step."""

    def __post_init__(self) -> None:
        rules = {
            "tau": (0 <= self.tau <= 1, "a probability in [0, 1]"),
            "nu": (self.nu > 0, "above 0"),
        }
        check_fields(self, rules)

    def look(self, network: "nn.Module", pixels: "Pixels") -> "Tensor":
        """The probabilities of f^, batch x classes in float64."""
        return predicted(network, pixels)

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        true = normalised(probabilities(values, kind))
        share = (self.nu * (self.tau - true.amax(-1, keepdim=True))).sigmoid()
        wrong: Tensor = context.evidence
        return ((1 - share) * true + share * wrong).to(values)
