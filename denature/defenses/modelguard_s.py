"""Answers from a shared codebook."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from denature.answers.kinds import AnswerKind
from denature.core.schema import check_fields
from denature.defenses.base import Context, Perturbation
from denature.defenses.distributions import probabilities

if TYPE_CHECKING:
    from torch import Tensor

    from denature.defenses.codebook import Codebook


@final
@dataclass(frozen=True, kw_only=True)
class ModelGuardS(Perturbation):
    """Shows the first codeword of the predicted class that is near; else the answer becomes one.

    ModelGuard-S (Tang et al., USENIX Security 2024), as released: not the nearest codeword within
    an L1 distance of epsilon but the oldest, and without any, the true answer is shown unchanged
    and is a codeword from then on. Distances are computed in float64. All users share the
    codebook, so an answer depends on the order of all queries before it. A full codebook shows its
    nearest codeword; see `denature.defenses.codebook`.

    Each codeword is a true answer, so as many answers leak exactly as there are codewords, most of
    them among the first queries. Of 5,000 answers with normal logits of standard deviation 3, at
    epsilon 0.2, 0.6 and 1, were shown exactly: 53, 5 and 1 % with 10 classes, and 98, 85 and 55 %
    with 100 classes. With many classes or a small epsilon the mechanism hides little.
    """

    name: ClassVar[str] = "modelguard-s"
    keeps_top: ClassVar[bool] = True

    epsilon: float = 1.0
    """Largest L1 distance from the true answer to the shown one until the codebook is full, above 0
    and at most 2; the paper's is 1."""

    def __post_init__(self) -> None:
        check_fields(self, {"epsilon": (0 < self.epsilon <= 2, "above 0 and at most 2")})

    def begin(self, seed: int) -> "Codebook":
        from denature.defenses.codebook import Codebook

        return Codebook()

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        true = probabilities(values, kind)
        # Of the values themselves: a softmax may make the two largest logits equal.
        predicted = values.argmax(-1)
        shown: Tensor = context.memory.quantised(true, predicted, self.epsilon)
        return shown.to(values)
