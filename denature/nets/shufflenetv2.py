"""ShuffleNetV2 1x for small images (Ma et al. 2018, arXiv:1807.11164), as in Nasty Teacher."""

from typing import final

import torch
from torch import nn

from denature.core.types import Logits, Pixels


@final
class ShuffleUnit(nn.Module):
    """Two branches whose channels are then interleaved.

    Where shapes stay, one branch passes half the channels unchanged; else both convolve them all.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.splits = stride == 1 and inputs == outputs
        each, taken = outputs // 2, inputs // 2 if self.splits else inputs
        self.residual = nn.Sequential(
            nn.Conv2d(taken, taken, 1),
            nn.BatchNorm2d(taken),
            nn.ReLU(),
            nn.Conv2d(taken, taken, 3, stride, padding=1, groups=taken),
            nn.BatchNorm2d(taken),
            nn.Conv2d(taken, each, 1),
            nn.BatchNorm2d(each),
            nn.ReLU(),
        )
        self.shortcut = nn.Sequential()
        if not self.splits:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs),
                nn.BatchNorm2d(inputs),
                nn.Conv2d(inputs, each, 1),
                nn.BatchNorm2d(each),
                nn.ReLU(),
            )

    def forward(self, x: Pixels) -> Pixels:
        left, right = x.chunk(2, dim=1) if self.splits else (x, x)
        both = torch.stack((self.shortcut(left), self.residual(right)), dim=2)
        return both.flatten(1, 2)


@final
class ShuffleNetV2(nn.Module):
    """1,268,646 parameters for 3 channels and 10 classes; three stages that halve the side.

    As in the official code the stem keeps the side, and convolutions have biases.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.pre = nn.Sequential(nn.Conv2d(channels, 24, 3, padding=1), nn.BatchNorm2d(24))
        self.stage2 = _stage(24, 116, 4)
        self.stage3 = _stage(116, 232, 8)
        self.stage4 = _stage(232, 464, 4)
        self.conv5 = nn.Sequential(nn.Conv2d(464, 1024, 1), nn.BatchNorm2d(1024), nn.ReLU())
        self.fc = nn.Linear(1024, classes)

    def forward(self, x: Pixels) -> Logits:
        x = self.stage4(self.stage3(self.stage2(self.pre(x))))
        logits: Logits = self.fc(self.conv5(x).mean((2, 3)))
        return logits


def _stage(inputs: int, width: int, count: int) -> nn.Sequential:
    rest = (ShuffleUnit(width, width, 1) for _ in range(count - 1))
    return nn.Sequential(ShuffleUnit(inputs, width, 2), *rest)
