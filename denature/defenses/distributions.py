"""Answers as distributions over classes in float64, for defenses that compute with them."""

from typing import TYPE_CHECKING

from denature.answers.kinds import AnswerKind
from denature.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


def all_scores(values: "Tensor") -> "Tensor":
    """Scores as float64 on the CPU: some devices have no float64.

    Raises:
        ConfigError: a score is hidden.
    """
    import torch

    exact = values.to("cpu", torch.float64)
    if bool(exact.isnan().any()):
        raise ConfigError(
            "A defense got answers with hidden scores, but needs all of them; put it before the "
            "defense that hides them."
        )
    return exact


def probabilities(values: "Tensor", kind: AnswerKind) -> "Tensor":
    """Probabilities of logits or probabilities, batch x classes, float64 on the CPU.

    Raises:
        ConfigError: a score is hidden.
    """
    scores = all_scores(values)
    # Probabilities of a user's function may leave [0, 1] by a rounding error.
    return scores.softmax(-1) if kind == "logits" else scores.clamp(0, 1)


def normalised(scores: "Tensor") -> "Tensor":
    """Rows, batch x classes, without entries below 0 and scaled to sum to 1.

    A row without an entry above 0 is raised until its largest entry is just above 0, so that the
    class of this entry gets everything.
    """
    lift = (1e-12 - scores.amax(-1, keepdim=True)).clamp_min(0)
    positive = (scores + lift).clamp_min(0)
    return positive / positive.sum(-1, keepdim=True)
