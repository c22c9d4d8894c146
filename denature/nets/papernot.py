"""The network of the defensive distillation paper."""

from typing import final

from torch import nn

from denature.core.errors import ConfigError
from denature.core.types import Logits, Pixels


@final
class Papernot(nn.Module):
    """Two pairs of 3x3 convolutions with 2x2 maxima, and three linear layers.

    Papernot et al. 2016, arXiv:1511.04508, for CIFAR-10, as in Carlini and Wagner's code: 64,
    64, 128 and 128 channels, 256 and 256 units, half of the first ones dropped in training. In that
    code convolutions have no padding: `papernot@padding=0`, for images of 16 pixels and more.

    Args:
        classes: number of logits.
        channels: channels of an image.
        image_size: side of an image, in pixels.
        padding: padding of each convolution, 0 or 1.
        dropout: share of the first hidden units that is dropped in training.

    Raises:
        ConfigError: the images are too small for convolutions without padding.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        image_size: int,
        padding: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()

        def pair(inside: int, outside: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inside, outside, 3, padding=padding), nn.ReLU(),
                nn.Conv2d(outside, outside, 3, padding=padding), nn.ReLU(), nn.MaxPool2d(2),
            ]  # fmt: skip

        lost = 4 * (1 - padding)
        side = ((image_size - lost) // 2 - lost) // 2
        if side < 1:
            raise ConfigError(
                f"papernot without padding takes images of 16 pixels a side and more; these have "
                f"{image_size}. Leave out padding=0."
            )
        self.body = nn.Sequential(*pair(channels, 64), *pair(64, 128), nn.Flatten())
        self.fc1 = nn.Linear(128 * side**2, 256)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(256, 256)
        self.fc3 = nn.Linear(256, classes)
        self.relu = nn.ReLU()

    def forward(self, x: Pixels) -> Logits:
        x = self.dropout(self.relu(self.fc1(self.body(x))))
        logits: Logits = self.fc3(self.relu(self.fc2(x)))
        return logits
