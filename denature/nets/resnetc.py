"""Pre-activation ResNets for CIFAR (He et al. 2016, arXiv:1603.05027): "ResNetC" in the paper."""

from typing import final

from torch import nn
from torch.nn import functional as F

from denature.core.types import Logits, Pixels


@final
class PreActBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions; a bare 1x1 where shapes change."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != width:
            self.downsample.append(nn.Conv2d(inputs, width, 1, stride, bias=False))

    def forward(self, x: Pixels) -> Pixels:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        summed: Pixels = out + self.downsample(x)
        return summed


@final
class ResNetC(nn.Module):
    """Three stages of 16, 32 and 64 channels, `depth` = 6 n + 2 layers.

    He's initialisation of the convolutions (fan out), as in the official code.
    """

    def __init__(self, depth: int, *, classes: int, channels: int) -> None:
        super().__init__()
        count = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.layer1 = self._stage(16, 16, count, stride=1)
        self.layer2 = self._stage(16, 32, count, stride=2)
        self.layer3 = self._stage(32, 64, count, stride=2)
        self.bn = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
        first = PreActBlock(inputs, width, stride)
        return nn.Sequential(first, *(PreActBlock(width, width, 1) for _ in range(count - 1)))

    def forward(self, x: Pixels) -> Logits:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        logits: Logits = self.fc(F.relu(self.bn(x)).mean((2, 3)))
        return logits


def resnetc20(*, classes: int, channels: int, image_size: int) -> ResNetC:
    """272,282 parameters for 3 channels and 10 classes."""
    return ResNetC(20, classes=classes, channels=channels)


def resnetc32(*, classes: int, channels: int, image_size: int) -> ResNetC:
    """466,714 parameters for 3 channels and 10 classes."""
    return ResNetC(32, classes=classes, channels=channels)
