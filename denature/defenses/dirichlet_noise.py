"""Probabilities drawn around the true ones."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.defenses.base import Context, Perturbation
from denature.defenses.distributions import probabilities
from denature.defenses.randomness import Randomness

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class DirichletNoise(Perturbation):
    """Draws each answer from the Dirichlet distribution with the parameters c * y.

    Its mean is the true answer y, and the variance of a probability y_k is y_k (1 - y_k) / (c + 1).
    A probability of 0 stays below 1e-11 in the mean.
    """

    name: ClassVar[str] = "dirichlet-noise"
    random: ClassVar[bool] = True
    keeps_top: ClassVar[bool] = False

    concentration: float = 10.0
    """c, above 0; the larger, the less noise."""

    def __post_init__(self) -> None:
        check_fields(self, {"concentration": (self.concentration > 0, "above 0")})

    def begin(self, seed: int) -> Randomness:
        return Randomness(seed, self.name)

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        import numpy as np
        import torch

        # The floor keeps rows finite that were rounded to zeros.
        shape = self.concentration * probabilities(values, kind).clamp_min(1e-12).numpy()
        # Gamma(a) = Gamma(a + 1) U^(1 / a) (Marsaglia and Tsang, 2000, section 6), in logarithms:
        # for a small a all draws of Gamma(a) are 0 in float64. -log U is Gamma(1).
        drawn = context.memory.generator.standard_gamma(
            np.stack([shape + 1, np.ones_like(shape)], axis=1)
        )
        logs = np.log(drawn[:, 0]) - drawn[:, 1] / shape
        return torch.from_numpy(logs).softmax(-1).to(values)
