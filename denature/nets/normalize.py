"""Normalisation as part of the network, so that serving and attacks cannot omit it."""

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, fx, nn

from denature.core.errors import ConfigError
from denature.core.types import Logits, Pixels


def check_normalisation(what: str, values: Sequence[float], channels: int) -> None:
    """Check a mean or a standard deviation of images in [0, 1], the input of networks here.

    With values of images in 0..255 all inputs would be close to one constant.

    Raises:
        ConfigError: another number of values than channels, or values that are not finite, of a
            larger scale, or for std not above 0.
    """
    if len(values) != channels:
        raise ConfigError(f"{what} has {len(values)} values for {channels} channels.")
    if not all(math.isfinite(value) and (value > 0 or what.startswith("mean")) for value in values):
        raise ConfigError(f"{what} is {values}; wanted are finite numbers, std above 0.")
    if any(value > 1 for value in values):
        listed = ", ".join(f"{value:g}" for value in values)
        divided = ",".join(f"{value / 255:.4g}" for value in values)
        raise ConfigError(
            f"{what} is {listed}, of images in 0..255; here images are scaled to [0, 1]. Divide it "
            f"by 255: {divided}."
        )


@final
class Normalized(nn.Module):
    """`body` after (x - mean) / std per channel; mean and std travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.body = body

    def forward(self, pixels: Pixels) -> Logits:
        logits: Logits = self.body(normalized(pixels, self.mean, self.std))
        return logits


@fx.wrap  # a leaf in traces, since the code depends on the memory layout of the pixels
def normalized(pixels: Pixels, mean: Tensor, std: Tensor) -> Pixels:
    """(pixels - mean) / std, with mean and std of the shape channels x 1 x 1."""
    rows = pixels.permute(0, 2, 3, 1)
    if not rows.is_contiguous():
        return (pixels - mean) / std
    # In channels-last layout the innermost loop would run over three channels; a loop over a row of
    # pixels takes a sixth of the time for the same numbers.
    batch, height, width, channels = rows.shape
    flat = rows.reshape(batch * height, width * channels)
    # Not `repeat`, which takes 15 microseconds for these few numbers.
    means, stds = (values.view(1, -1).expand(width, -1).reshape(-1) for values in (mean, std))
    flat = (flat - means).div_(stds)
    return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)
