"""Gradient redirection: answers that push a thief's weights in one direction."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.defenses.base import Context, NetworkRole, Perturbation
from denature.defenses.distributions import normalised, probabilities

if TYPE_CHECKING:
    from torch import Tensor, nn

    from denature.core.types import Pixels


@final
@dataclass(frozen=True, kw_only=True)
class GradientRedirection(Perturbation):
    """Moves mass to the class whose log-likelihood grows most along one direction of the weights.

    GRAD^2 (Mazeika et al. 2022) maximises <G^T y~, z>, where G is the Jacobian of a surrogate's
    log-probabilities over all its parameters and z is the direction of all ones, the same for every
    query. This is linear in y~: its coefficients c_k are the derivatives of log p_k along z, and
    the optimum within an L1 ball is exact, see `redirected`.
    """

    name: ClassVar[str] = "gradient-redirection"
    role: ClassVar[NetworkRole | None] = "surrogate"
    differentiates: ClassVar[bool] = True
    keeps_top: ClassVar[bool] = False

    epsilon: float = 1.0
    """Largest L1 distance from the true probabilities, in (0, 2]; 0.1 to 1 in the paper."""

    def __post_init__(self) -> None:
        check_fields(self, {"epsilon": (0 < self.epsilon <= 2, "above 0 and at most 2")})

    def prepare(self, network: "nn.Module") -> "nn.Module":
        """A copy that shares the network's tensors; see `along_ones`."""
        from denature.defenses.along_ones import with_direction

        return with_direction(network)

    def look(self, network: "nn.Module", pixels: "Pixels") -> "Tensor":
        """The coefficients c, batch x classes in float64.

        They are one product of a batch with the Jacobian, about two forward passes, where the
        backward mode needs a pass for each class or a second derivative of each image.
        """
        import torch

        from denature.defenses.along_ones import derivative

        logits, growth = (found.to("cpu", torch.float64) for found in derivative(network, pixels))
        mean: Tensor = (logits.softmax(-1) * growth).sum(-1, keepdim=True)
        return growth - mean

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        true = normalised(probabilities(values, kind))
        return redirected(true, context.evidence, self.epsilon).to(values)


def redirected(true: "Tensor", coefficients: "Tensor", epsilon: float) -> "Tensor":
    """The distribution with the largest <c, y~> within an L1 ball around the true one.

    The class of the largest coefficient receives up to epsilon / 2, from the classes of the
    smallest ones. Of equal coefficients the last class receives, and the first ones give.

    Args:
        true: y, batch x classes.
        coefficients: c, batch x classes.
        epsilon: radius of the ball.
    """
    order = coefficients.argsort(dim=-1, stable=True)
    mass = true.gather(-1, order)
    moved = (1 - mass[..., -1:]).clamp(0, epsilon / 2)
    given = (moved - (mass.cumsum(-1) - mass)).clamp_min(0).minimum(mass)
    given[..., -1:] = -moved
    return true.scatter(-1, order, mass - given)
