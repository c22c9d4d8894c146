"""Pre-activation ResNets for CIFAR (He et al. 2016, arXiv:1603.05027): "ResNetC" in the paper."""

from typing import final

from torch import nn
from torch.nn import functional as F

from denature.core.types import Logits, Pixels
from denature.nets.pooling import check_cells, pooled


@final
class PreActBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions; a bare 1x1 where shapes change."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.downsample = _downsample(inputs, width, stride)

    def forward(self, x: Pixels) -> Pixels:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        summed: Pixels = out + self.downsample(x)
        return summed


@final
class PreActBottleneck(nn.Module):
    """The same before a 3x3 convolution between two 1x1, the last four times as wide."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, self.expansion * width, 1, bias=False)
        self.downsample = _downsample(inputs, self.expansion * width, stride)

    def forward(self, x: Pixels) -> Pixels:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        out = self.conv3(F.relu(self.bn3(out)))
        summed: Pixels = out + self.downsample(x)
        return summed


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))


@final
class ResNetC(nn.Module):
    """Three stages of 16, 32 and 64 channels with `depth` // 6 blocks each.

    Bottlenecks from 44 layers up, as in the official code, which keeps the number of blocks: they
    are deeper than their names. He's initialisation of the convolutions (fan out), as there. The
    last mean is adaptive, where the official code pools 8x8 and so fits 32x32 images only.
    """

    def __init__(
        self, depth: int, *, classes: int, channels: int, image_size: int, cells: int = 1
    ) -> None:
        super().__init__()
        check_cells(cells, -(-image_size // 4))
        self.cells = cells
        self.block = PreActBottleneck if depth >= 44 else PreActBlock
        count, wide = (depth - 2) // 6, self.block.expansion
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.layer1 = self._stage(16, 16, count, stride=1)
        self.layer2 = self._stage(16 * wide, 32, count, stride=2)
        self.layer3 = self._stage(32 * wide, 64, count, stride=2)
        self.bn = nn.BatchNorm2d(64 * wide)
        self.fc = nn.Linear(64 * wide * cells**2, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
        rest = (self.block(width * self.block.expansion, width, 1) for _ in range(count - 1))
        return nn.Sequential(self.block(inputs, width, stride), *rest)

    def forward(self, x: Pixels) -> Logits:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        logits: Logits = self.fc(pooled(F.relu(self.bn(x)), self.cells))
        return logits


def resnetc20(**shape: int) -> ResNetC:
    """272,282 parameters for 3 channels and 10 classes."""
    return ResNetC(20, **shape)


def resnetc32(**shape: int) -> ResNetC:
    """466,714 parameters for 3 channels and 10 classes."""
    return ResNetC(32, **shape)


def resnetc44(**shape: int) -> ResNetC:
    """683,162 parameters for 3 channels and 10 classes."""
    return ResNetC(44, **shape)


def resnetc56(**shape: int) -> ResNetC:
    """868,634 parameters for 3 channels and 10 classes."""
    return ResNetC(56, **shape)


def resnetc110(**shape: int) -> ResNetC:
    """1,703,258 parameters for 3 channels and 10 classes."""
    return ResNetC(110, **shape)
