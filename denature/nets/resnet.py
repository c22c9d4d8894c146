"""ResNet with a 3x3 stem, as is usual on CIFAR (He et al. 2016, arXiv:1512.03385)."""

from typing import final

from torch import nn
from torch.nn import functional as F

from denature.core.types import Logits, Pixels


@final
class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, activated after the sum."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            self.shortcut.append(nn.Conv2d(inputs, width, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(width))

    def forward(self, x: Pixels) -> Pixels:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


@final
class ResNet(nn.Module):
    """Four stages of 64, 128, 256 and 512 channels; the mean over positions feeds the classifier.

    The mean is adaptive, where the official code pools 4x4 and so fits 32x32 images only.
    """

    def __init__(self, blocks: tuple[int, int, int, int], *, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._stage(64, 64, blocks[0], stride=1)
        self.layer2 = self._stage(64, 128, blocks[1], stride=2)
        self.layer3 = self._stage(128, 256, blocks[2], stride=2)
        self.layer4 = self._stage(256, 512, blocks[3], stride=2)
        self.linear = nn.Linear(512, classes)

    @staticmethod
    def _stage(inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inputs, width, stride)
        return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(count - 1)))

    def forward(self, x: Pixels) -> Logits:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Logits = self.linear(x.mean((2, 3)))
        return logits


def resnet18(*, classes: int, channels: int, image_size: int) -> ResNet:
    """11,173,962 parameters for 3 channels and 10 classes."""
    return ResNet((2, 2, 2, 2), classes=classes, channels=channels)
