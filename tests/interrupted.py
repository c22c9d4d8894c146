"""Runs that are stopped at a given step, and a network that draws at each."""

import torch
from torch import nn

from denature.core.stopping import Stopper


class StopsAt(Stopper):
    """Stops when it is asked for the n-th time."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.left = asked

    @property
    def reason(self) -> str | None:
        self.left -= 1
        return "a test" if self.left <= 0 else None


class Noisy(nn.Module):
    """Dropout, which draws at every step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(x)
        return found
