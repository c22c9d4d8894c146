"""ModelGuard-W: the least informative answer within a distance."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.defenses.base import Context, Perturbation
from denature.defenses.distributions import normalised, probabilities

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class ModelGuardW(Perturbation):
    """Shows the distribution y' with the least <log(y + 1e-6), y'> that keeps the predicted class.

    Tang et al. 2024 (USENIX Security, ModelGuard-W) constrain y' to an L1 ball around y and let the
    predicted class lead by 1e-4, and call a solver of linear programmes for each answer. Here the
    programme is solved in batches, see `least_informative`; the optimum is the same. A confident
    answer becomes about (1/2, 1/2) on the top and the least likely class at epsilon 1.
    """

    name: ClassVar[str] = "modelguard-w"
    keeps_top: ClassVar[bool] = True

    epsilon: float = 1.0
    """Largest L1 distance from the true probabilities, in [0.001, 2]; 1 in the paper's comparison.
    Below 0.0002 no distribution need have the lead."""

    def __post_init__(self) -> None:
        check_fields(self, {"epsilon": (0.001 <= self.epsilon <= 2, "0.001 to 2")})

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        true = normalised(probabilities(values, kind))
        # Of the scores: logits that differ may be equal as probabilities.
        order = values.argsort(dim=-1, descending=True, stable=True).cpu()
        return least_informative(true, order, self.epsilon).to(values)


def least_informative(true: "Tensor", order: "Tensor", epsilon: float) -> "Tensor":
    """The optimum of ModelGuard-W's linear programme, see `knapsack.cheapest`.

    Args:
        true: y, batch x classes in float64.
        order: the classes in descending order, batch x classes; the first one is kept.
        epsilon: radius of the L1 ball.
    """
    import torch

    from denature.defenses.knapsack import cheapest

    found = torch.from_numpy(cheapest(true.gather(-1, order).numpy(), epsilon / 2))
    return torch.empty_like(true).scatter(-1, order, found)
