"""Normalisation as part of the network, so that whoever serves or attacks it cannot forget it."""

from typing import final

import torch
from torch import Tensor, nn

from denature.core.types import Logits, Pixels


@final
class Normalized(nn.Module):
    """`body` after (x - mean) / std per channel; mean and std travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.body = body

    def forward(self, pixels: Pixels) -> Logits:
        logits: Logits = self.body((pixels - self.mean) / self.std)
        return logits
