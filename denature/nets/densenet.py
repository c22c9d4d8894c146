"""DenseNet-BC for small images (Huang et al. 2017, arXiv:1608.06993), as in Nasty Teacher."""

from typing import final

import torch
from torch import nn

from denature.core.types import Logits, Pixels

GROWTH = 32


@final
class DenseLayer(nn.Module):
    """Appends 32 channels, from batch norm, ReLU, 1x1, batch norm, ReLU, 3x3, to the input."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.bottle_neck = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, 4 * GROWTH, 1, bias=False),
            nn.BatchNorm2d(4 * GROWTH),
            nn.ReLU(),
            nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False),
        )

    def forward(self, x: Pixels) -> Pixels:
        return torch.cat((x, self.bottle_neck(x)), dim=1)


@final
class Transition(nn.Module):
    """Halves the channels and the side of the feature map."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.down_sample = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.Conv2d(inputs, inputs // 2, 1, bias=False), nn.AvgPool2d(2)
        )

    def forward(self, x: Pixels) -> Pixels:
        out: Pixels = self.down_sample(x)
        return out


@final
class DenseNet(nn.Module):
    """Four dense blocks with transitions between them; parts have the names of official weights."""

    def __init__(self, counts: tuple[int, int, int, int], *, classes: int, channels: int) -> None:
        super().__init__()
        width = 2 * GROWTH
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.features = nn.Sequential()
        for number, count in enumerate(counts):
            last = number == len(counts) - 1
            block = nn.Sequential()
            for place in range(count):
                block.add_module(f"bottle_neck_layer_{place}", DenseLayer(width))
                width += GROWTH
            name = f"dense_block{number}" if last else f"dense_block_layer_{number}"
            self.features.add_module(name, block)
            if not last:
                self.features.add_module(f"transition_layer_{number}", Transition(width))
                width //= 2
        self.features.add_module("bn", nn.BatchNorm2d(width))
        self.features.add_module("relu", nn.ReLU())
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Pixels) -> Logits:
        logits: Logits = self.linear(self.features(self.conv1(x)).mean((2, 3)))
        return logits


def densenet121(*, classes: int, channels: int, image_size: int) -> DenseNet:
    """6,956,298 parameters for 3 channels and 10 classes."""
    return DenseNet((6, 12, 24, 16), classes=classes, channels=channels)
