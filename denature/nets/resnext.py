"""ResNeXt-29, 8x64d (Xie et al. 2017, arXiv:1611.05431), as in the Nasty Teacher paper."""

from typing import final

from torch import nn
from torch.nn import functional as F

from denature.core.types import Logits, Pixels

CARDINALITY, WIDEN, BLOCKS = 8, 4, 3


@final
class ResNeXtBlock(nn.Module):
    """1x1, a 3x3 in 8 groups, 1x1; a quarter of the outputs for each group."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        width = CARDINALITY * outputs // WIDEN
        self.conv_reduce = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn_reduce = nn.BatchNorm2d(width)
        self.conv_conv = nn.Conv2d(
            width, width, 3, stride, padding=1, groups=CARDINALITY, bias=False
        )
        self.bn = nn.BatchNorm2d(width)
        self.conv_expand = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn_expand = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut.add_module("shortcut_conv", convolution)
            self.shortcut.add_module("shortcut_bn", nn.BatchNorm2d(outputs))

    def forward(self, x: Pixels) -> Pixels:
        out = F.relu(self.bn_reduce(self.conv_reduce(x)))
        out = F.relu(self.bn(self.conv_conv(out)))
        return F.relu(self.bn_expand(self.conv_expand(out)) + self.shortcut(x))


@final
class ResNeXt29(nn.Module):
    """34,426,698 parameters for 3 channels and 10 classes.

    He's initialisation of the convolutions (fan out), as in the official code.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv_1_3x3 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn_1 = nn.BatchNorm2d(64)
        self.stage_1 = _stage("stage_1", 64, 64 * WIDEN, stride=1)
        self.stage_2 = _stage("stage_2", 64 * WIDEN, 128 * WIDEN, stride=2)
        self.stage_3 = _stage("stage_3", 128 * WIDEN, 256 * WIDEN, stride=2)
        self.classifier = nn.Linear(256 * WIDEN, classes)
        nn.init.kaiming_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Pixels) -> Logits:
        x = F.relu(self.bn_1(self.conv_1_3x3(x)))
        x = self.stage_3(self.stage_2(self.stage_1(x)))
        logits: Logits = self.classifier(x.mean((2, 3)))
        return logits


def _stage(name: str, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Three blocks, under the names that they have in official weights."""
    stage = nn.Sequential()
    for number in range(BLOCKS):
        shape = (inputs, outputs, stride) if number == 0 else (outputs, outputs, 1)
        stage.add_module(f"{name}_bottleneck_{number}", ResNeXtBlock(*shape))
    return stage
