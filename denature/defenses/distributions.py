"""Answers as distributions in float64, for defenses that move probability mass."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from denature.answers.kinds import AnswerKind
    from denature.core.types import Pixels


def distributions(values: "Tensor", kind: "AnswerKind") -> "Tensor":
    """The probabilities that scores stand for, batch x classes in float64, each row summing to 1.

    A hidden score counts as probability 0, and a row without any mass as the uniform distribution.

    Args:
        values: logits or probabilities, batch x classes.
        kind: which of the two.
    """
    import torch

    if kind == "logits":
        least = torch.finfo(torch.float64).min
        return values.double().nan_to_num(nan=least).softmax(-1)
    mass = values.double().nan_to_num(nan=0.0)
    total = mass.sum(-1, keepdim=True)
    return torch.where(total > 0, mass / total, 1 / max(1, values.shape[-1]))


def predicted(network: "nn.Module", pixels: "Pixels") -> "Tensor":
    """The probabilities of a network, batch x classes in float64, without gradients."""
    import torch

    with torch.no_grad():
        logits: Tensor = network(pixels)
    return distributions(logits, "logits")


def towards(true: "Tensor", target: "Tensor", epsilon: float) -> "Tensor":
    """The point on the way from one distribution to another that is at most epsilon (L1) away.

    Args:
        true: batch x classes.
        target: batch x classes.
        epsilon: largest L1 distance, above 0.
    """
    distance = (true - target).abs().sum(-1, keepdim=True)
    share = (epsilon / distance).clamp_max(1)
    return (1 - share) * true + share * target
