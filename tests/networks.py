"""The catalogue of networks, as parameters of tests."""

import pytest
import torch
from torch import nn

from denature.nets import NETS

RELATIVES = ("resnetc32", "resnetc44", "resnetc56", "resnetc110", "resnet34", "resnext29")
"""Deeper ones of blocks that a smaller network has, and the one that is the slowest by far."""

NETWORKS = [
    pytest.param(name, marks=pytest.mark.slow if name in RELATIVES else ()) for name in NETS
]

every_network = pytest.mark.parametrize("name", NETWORKS)


class Mixing(nn.Module):
    """Normalises by the batch even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.Flatten(),
            nn.Linear(288, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(x)
        return found
