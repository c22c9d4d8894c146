"""A perceptron with two hidden layers of 512."""

from typing import final

from torch import nn
from torch.nn import functional as F

from denature.core.types import Logits, Pixels


@final
class MLP(nn.Module):
    """1,841,162 parameters for 3x32x32 and 10 classes.

    Differs from the official network, whose logits pass a ReLU: no logit can then be negative, and
    a dead logit gets no gradient.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * image_size**2, 512)
        self.fc2 = nn.Linear(512, 512)
        self.fc3 = nn.Linear(512, classes)

    def forward(self, x: Pixels) -> Logits:
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Logits = self.fc3(F.relu(self.fc2(x)))
        return logits
