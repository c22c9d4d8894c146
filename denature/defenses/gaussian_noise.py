"""Scores with Gaussian noise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, final

from denature.answers.kinds import AnswerKind
from denature.core.errors import ConfigError
from denature.core.schema import check_fields
from denature.defenses.base import Context, Perturbation
from denature.defenses.distributions import normalised, probabilities
from denature.defenses.randomness import Randomness

if TYPE_CHECKING:
    from torch import Tensor

Space: TypeAlias = Literal["scores", "log-odds"]


@final
@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Perturbation):
    """Adds independent normal noise to each score; probabilities stay a distribution.

    In the space `scores` the noise is added to the logits or probabilities themselves, as ART's
    `GaussianNoise` does. Probabilities below 0 then become 0 and each row is scaled to sum to 1;
    ART does so only where all rows of a batch are distributions, and divides by 0 where a row has
    no entry above 0. Here the class with the largest entry gets everything in such a row.

    In the space `log-odds`, for probabilities, the noise is added to log(y / (1 - y)), as in the
    random baseline of Prediction Poisoning (Orekondy et al., 2020), and the row is scaled to sum
    to 1. The projection on a ball of radius epsilon of that paper is left out. Probabilities of
    exactly 0 stay 0.
    """

    name: ClassVar[str] = "gaussian-noise"
    gives: ClassVar[AnswerKind | None] = None
    random: ClassVar[bool] = True
    keeps_top: ClassVar[bool] = False

    scale: float = 0.2
    """Standard deviation of the noise, above 0; ART's default."""
    space: Space = "scores"
    """Where the noise is added; logits are refused in `log-odds`."""

    def __post_init__(self) -> None:
        check_fields(self, {"scale": (self.scale > 0, "above 0")})

    def kind(self, kind: AnswerKind) -> AnswerKind:
        if self.space == "log-odds" and kind == "logits":
            raise ConfigError(
                "The defense gaussian-noise has log-odds of probabilities only, not of logits; "
                "show probabilities or use space=scores."
            )
        return super().kind(kind)

    def begin(self, seed: int) -> Randomness:
        return Randomness(seed, self.name)

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        import torch

        drawn = context.memory.generator.standard_normal(tuple(values.shape))
        noise = self.scale * torch.from_numpy(drawn)
        if kind == "logits":
            return (values.to(noise) + noise).to(values)
        true = probabilities(values, kind)
        if self.space == "log-odds":
            return normalised((true.logit() + noise).sigmoid()).to(values)
        return normalised(true + noise).to(values)
