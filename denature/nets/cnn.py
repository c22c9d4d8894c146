"""The five-layer CNN of the Nasty Teacher paper."""

from typing import final

from torch import nn
from torch.nn import functional as F

from denature.core.types import Logits, Pixels


@final
class CNN(nn.Module):
    """Three times (3x3 convolution, batch norm, 2x2 maximum, ReLU), then two linear layers.

    357,514 parameters for 3x32x32 and 10 classes. Differs from the official network, which flattens
    into a fixed 2048 features and so mixes samples at other image sizes: the first linear layer
    here has the size that the images require.

    Args:
        classes: number of logits.
        channels: channels of an image.
        image_size: side of an image, in pixels.
        width: channels of the first convolution; the others have twice and four times as many.
        dropout: share of the last hidden units that is dropped in training.
    """

    def __init__(
        self, *, classes: int, channels: int, image_size: int, width: int = 32, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.fc1 = nn.Linear(4 * width * (image_size // 8) ** 2, 4 * width)
        self.fcbn1 = nn.BatchNorm1d(4 * width)
        self.fc2 = nn.Linear(4 * width, classes)
        self.dropout = dropout

    def forward(self, x: Pixels) -> Logits:
        x = F.relu(F.max_pool2d(self.bn1(self.conv1(x)), 2))
        x = F.relu(F.max_pool2d(self.bn2(self.conv2(x)), 2))
        x = F.relu(F.max_pool2d(self.bn3(self.conv3(x)), 2))
        x = F.relu(self.fcbn1(self.fc1(x.flatten(1))))
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        logits: Logits = self.fc2(x)
        return logits
