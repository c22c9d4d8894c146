"""MobileNetV2 for small images (Sandler et al. 2018, arXiv:1801.04381), as in Nasty Teacher."""

from typing import final

from torch import nn
from torch.nn import functional as F

from denature.core.types import Logits, Pixels

STAGES = ((2, 24, 2), (3, 32, 2), (4, 64, 2), (3, 96, 1), (3, 160, 1))
"""Blocks, channels and first stride of stages 2 to 6."""


@final
class InvertedResidual(nn.Module):
    """A 1x1 that widens, a depthwise 3x3, a 1x1 that narrows; a sum where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, widen: int) -> None:
        super().__init__()
        wide = inputs * widen
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, wide, 1),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, padding=1, groups=wide),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        self.sums = stride == 1 and inputs == outputs

    def forward(self, x: Pixels) -> Pixels:
        out: Pixels = self.residual(x)
        return out + x if self.sums else out


@final
class MobileNetV2(nn.Module):
    """2,254,090 parameters for 3 channels and 10 classes.

    As in the official code the stem is a 1x1 convolution with a border of one pixel, and
    convolutions have biases.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.pre = nn.Sequential(
            nn.Conv2d(channels, 32, 1, padding=1), nn.BatchNorm2d(32), nn.ReLU6()
        )
        self.stage1 = InvertedResidual(32, 16, 1, 1)
        inputs = 16
        for number, (count, width, stride) in enumerate(STAGES, start=2):
            rest = (InvertedResidual(width, width, 1, 6) for _ in range(count - 1))
            first = InvertedResidual(inputs, width, stride, 6)
            self.add_module(f"stage{number}", nn.Sequential(first, *rest))
            inputs = width
        self.stage7 = InvertedResidual(inputs, 320, 1, 6)
        self.conv1 = nn.Sequential(nn.Conv2d(320, 1280, 1), nn.BatchNorm2d(1280), nn.ReLU6())
        self.conv2 = nn.Conv2d(1280, classes, 1)

    def forward(self, x: Pixels) -> Logits:
        x = self.stage1(self.pre(x))
        for number in range(2, 7):
            x = self.get_submodule(f"stage{number}")(x)
        x = F.adaptive_avg_pool2d(self.conv1(self.stage7(x)), 1)
        logits: Logits = self.conv2(x).flatten(1)
        return logits
