"""ResNet with a 3x3 stem, as usual for CIFAR (He et al. 2016, arXiv:1512.03385)."""

from typing import TypeAlias, final

from torch import nn
from torch.nn import functional as F

from denature.core.types import Logits, Pixels
from denature.nets.pooling import check_cells, pooled


@final
class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, activated after the sum."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Pixels) -> Pixels:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


@final
class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1, the last four times as wide; the stride is in the 3x3."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Pixels) -> Pixels:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


ResidualBlock: TypeAlias = type[BasicBlock] | type[Bottleneck]


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A 1x1 convolution and batch norm where shapes change, else nothing."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


@final
class ResNet(nn.Module):
    """Four stages of 64, 128, 256 and 512 channels; the mean over positions feeds the classifier.

    The mean is adaptive, where the official code pools 4x4 and so fits 32x32 images only.
    """

    def __init__(
        self,
        block: ResidualBlock,
        counts: tuple[int, int, int, int],
        *,
        classes: int,
        channels: int,
        image_size: int,
        cells: int = 1,
    ) -> None:
        super().__init__()
        check_cells(cells, -(-image_size // 8))
        self.cells = cells
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        wide = block.expansion
        self.layer1 = _stage(block, 64, 64, counts[0], stride=1)
        self.layer2 = _stage(block, 64 * wide, 128, counts[1], stride=2)
        self.layer3 = _stage(block, 128 * wide, 256, counts[2], stride=2)
        self.layer4 = _stage(block, 256 * wide, 512, counts[3], stride=2)
        self.linear = nn.Linear(512 * wide * cells**2, classes)

    def forward(self, x: Pixels) -> Logits:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Logits = self.linear(pooled(x, self.cells))
        return logits


def _stage(block: ResidualBlock, inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
    rest = (block(width * block.expansion, width, 1) for _ in range(count - 1))
    return nn.Sequential(block(inputs, width, stride), *rest)


def resnet18(**shape: int) -> ResNet:
    """11,173,962 parameters for 3 channels and 10 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **shape)


def resnet34(**shape: int) -> ResNet:
    """21,282,122 parameters for 3 channels and 10 classes."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **shape)


def resnet50(**shape: int) -> ResNet:
    """23,520,842 parameters for 3 channels and 10 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **shape)
