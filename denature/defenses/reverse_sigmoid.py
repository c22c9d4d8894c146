"""Probabilities through a reverse sigmoid."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.defenses.base import Context, Perturbation
from denature.defenses.distributions import all_scores, normalised, probabilities

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class ReverseSigmoid(Perturbation):
    """Scales f(y) = y - beta * (sigmoid(gamma * log(y / (1 - y))) - 1/2) to sum to 1.

    Reverse sigmoid (Lee et al., 2018). Before scaling, f(y) + f(1 - y) = 1. With gamma = 1, f is
    the line (1 - beta) y + beta / 2, so beta = gamma = 1, the default of two published
    implementations, answers uniformly. With gamma below 1 the slope at y = 0 is minus infinity:
    small probabilities change their order, and many true answers give the same shown one. The
    predicted class is not kept: with many classes and a large beta, a class of small probability
    overtakes it.

    Everything is computed in float64. From logits the log-odds are exact, so a saturated answer
    keeps its differences; probabilities of 0 and 1 have infinite log-odds and stay finite. ART
    clips probabilities to 1e-9 first; this does not. Negative f, which only gamma above 1 with
    beta above 1 gives, become 0.
    """

    name: ClassVar[str] = "reverse-sigmoid"
    keeps_top: ClassVar[bool] = False

    beta: float = 1.0
    """Size of the change, 0 to 2. ART's default is 1; ModelGuard has 0.21 for CIFAR-10 and 0.02
    for CIFAR-100, with gamma 0.2."""
    gamma: float = 0.1
    """Factor of the log-odds, 0 or above; 0.1 in ART, 0.1 to 0.4 in papers."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {"beta": (0 <= self.beta <= 2, "0 to 2"), "gamma": (self.gamma >= 0, "at least 0")},
        )

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        true = probabilities(values, kind)
        odds = _log_odds(all_scores(values)) if kind == "logits" else true.logit()
        # 0 * inf would be NaN; a gamma of 0 changes nothing.
        reverse = (self.gamma * odds).sigmoid() if self.gamma else 0.5
        return normalised(true - self.beta * (reverse - 0.5)).to(values)


def _log_odds(logits: "Tensor") -> "Tensor":
    """log(p / (1 - p)), where p = softmax(logits), also where p is 1 to the last digit."""
    log_p = logits.log_softmax(-1)
    top = log_p.argmax(-1, keepdim=True)
    others = log_p.scatter(-1, top, float("-inf")).logsumexp(-1, keepdim=True)
    return log_p - (-log_p.exp()).log1p().scatter(-1, top, others)
