"""A small network of separable convolutions."""

from itertools import pairwise
from typing import final

from torch import nn

from denature.core.types import Logits, Pixels


class Separable(nn.Sequential):
    """A depthwise 3x3, a pointwise 1x1, batch norm, ReLU, 2x2 maximum."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(
            nn.Conv2d(inside, inside, 3, padding=1, groups=inside, bias=False),
            nn.Conv2d(inside, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
        )


@final
class SepCNN(nn.Module):
    """Four separable convolutions, each halving the image side, and two linear layers.

    The kind of network with which Dixon, Ott and Fagbemi cloned a nose detector, small enough to be
    cheaper than the service. Only a description of their network is known; the sizes are our own.

    Args:
        classes: number of outputs.
        channels: channels of an image.
        image_size: side of an image, in pixels.
        width: channels after the first convolution, doubled by each further one.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int, width: int = 32) -> None:
        super().__init__()
        widths = [channels, *(width * 2**n for n in range(4))]
        self.body = nn.Sequential(*(Separable(a, b) for a, b in pairwise(widths)))
        side = -(-image_size // 16)
        self.fc1 = nn.Linear(widths[-1] * side**2, 4 * width)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(4 * width, classes)

    def forward(self, x: Pixels) -> Logits:
        logits: Logits = self.fc2(self.relu(self.fc1(self.body(x).flatten(1))))
        return logits
