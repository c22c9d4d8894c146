"""Strong views of images, which change a class's looks more than shifts and mirrors do.

They are drawn anew in each step from torch's global generator, which a training step seeds; so they
have no numbers, and no answers are kept of them.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from denature.core.types import Pixels

LIMITS = (math.pi / 6, 0.3, 0.3, 0.6, 0.6, 0.9, 0.9)
"""Largest rotation in radians; shears across and down; shifts across and down, in half sides;
changes of brightness and of contrast, as shares."""

CHANGES = 2
"""Changes of one image, as in RandAugment."""

CUTOUT = 0.25
"""Largest half side of the square that is cut out, as a share of the image's side."""


@torch.no_grad()
def strong(pixels: Pixels) -> Pixels:
    """Each image after two random changes of random strength, and with a grey square in it.

    RandAugment (Cubuk et al. 2020, arXiv:1909.13719) and Cutout (DeVries & Taylor 2017,
    arXiv:1708.04552) as FixMatch combines them, without the changes of single colours.

    Args:
        pixels: batch x channels x height x width, in [0, 1].
    """
    count = len(pixels)
    chosen = torch.rand(count, len(LIMITS)).argsort(dim=1) < CHANGES
    strength = (2 * torch.rand(count, len(LIMITS)) - 1) * torch.tensor(LIMITS) * chosen
    place = torch.rand(count, 3)
    # Drawn on the CPU, so that the views are the same on every device.
    strength, place = (drawn.to(pixels.device, pixels.dtype) for drawn in (strength, place))
    return _cut(_shaded(_moved(pixels, strength), strength), place)


def _moved(pixels: Pixels, strength: Tensor) -> Pixels:
    """Images rotated, sheared and shifted; pixels outside are 0."""
    angle, across, down, right, below = strength[:, :5].unbind(1)
    cos, sin = angle.cos(), angle.sin()
    first = torch.stack([cos - sin * down, cos * across - sin, right], dim=1)
    second = torch.stack([sin + cos * down, sin * across + cos, below], dim=1)
    grid = F.affine_grid(torch.stack([first, second], dim=1), list(pixels.shape), False)
    return F.grid_sample(pixels, grid, align_corners=False)


def _shaded(pixels: Pixels, strength: Tensor) -> Pixels:
    """Images with another brightness and contrast, in [0, 1]."""
    brightness, contrast = (strength[:, place, None, None, None] for place in (5, 6))
    bright = pixels * (1 + brightness)
    middle = bright.mean(dim=(1, 2, 3), keepdim=True)
    return (middle + (bright - middle) * (1 + contrast)).clamp(0, 1)


def _cut(pixels: Pixels, place: Tensor) -> Pixels:
    """Images with a grey square of random size somewhere, which may be cut by an edge."""
    height, width = pixels.shape[-2:]
    y, x, half = place[:, :, None, None].unbind(1)
    half = half * CUTOUT
    rows = (torch.arange(height, device=pixels.device, dtype=pixels.dtype) + 0.5) / height
    columns = (torch.arange(width, device=pixels.device, dtype=pixels.dtype) + 0.5) / width
    inside = ((rows[:, None] - y).abs() < half) & ((columns[None, :] - x).abs() < half)
    return torch.where(inside[:, None], 0.5, pixels)
