"""What the defender's networks say of images."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from denature.core.types import Pixels


def predicted(network: "nn.Module", pixels: "Pixels") -> "Tensor":
    """The probabilities of a network, batch x classes, in float64 on the CPU."""
    import torch

    with torch.no_grad():
        logits: Tensor = network(pixels)
    return logits.to("cpu", torch.float64).softmax(-1)
