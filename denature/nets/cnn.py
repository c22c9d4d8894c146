"""The five-layer CNN of the Nasty Teacher paper."""

from typing import final

from torch import nn
from torch.nn import functional as F

from denature.core.types import Logits, Pixels


@final
class CNN(nn.Module):
    """Three times (3x3 convolution, batch norm, 2x2 maximum, ReLU), then two linear layers.

    357,514 parameters for 3x32x32 and 10 classes. Differs from the official one, which flattens
    into a fixed 2048 features and so mixes samples at other image sizes: the first linear layer
    here has the size that the images ask for.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(128)
        self.fc1 = nn.Linear(128 * (image_size // 8) ** 2, 128)
        self.fcbn1 = nn.BatchNorm1d(128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x: Pixels) -> Logits:
        x = F.relu(F.max_pool2d(self.bn1(self.conv1(x)), 2))
        x = F.relu(F.max_pool2d(self.bn2(self.conv2(x)), 2))
        x = F.relu(F.max_pool2d(self.bn3(self.conv3(x)), 2))
        logits: Logits = self.fc2(F.relu(self.fcbn1(self.fc1(x.flatten(1)))))
        return logits
