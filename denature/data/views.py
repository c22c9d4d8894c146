"""Views, the augmented samples of an epoch: a pure function of (view seed, epoch, sample).

Crop and flip come from a counter-based generator, never from worker state, so a resumed run sees
the same views, several students can share one pass, and answers stored under (sample, view) stay
exact. A view has a number: with padding p there are 2 (2p + 1)^2 of them, 162 at the usual p = 4.
Rotations are by whole degrees, where other code draws any angle: 82 views up to 20 to either side.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from denature.core.errors import ConfigError
from denature.core.seeds import derive, generator
from denature.core.types import Images, Indices


@dataclass(frozen=True, slots=True)
class Views:
    """A family of views: an image rotated, then shifted, then mirrored; pixels outside are 0."""

    padding: int = 0
    """Pixels of the largest shift."""
    flip: bool = False
    degrees: int = 0
    """Largest rotation to either side, in whole degrees."""

    @property
    def count(self) -> int:
        shifts, angles = (2 * self.padding + 1) ** 2, 2 * self.degrees + 1
        return angles * shifts * (2 if self.flip else 1)

    def numbers(self, *, view_seed: int, epoch: int, samples: int) -> Indices:
        """The number of the view of each of `samples` samples in `epoch`; int64, on the CPU."""
        if self.count == 1:
            return torch.zeros(samples, dtype=torch.int64)
        # One raw 64-bit word per sample: sample i has the i-th, however many there are. The modulo
        # favours some views by less than one part in 10^16.
        words = np.random.Philox(key=derive(view_seed, "view", epoch)).random_raw(samples)
        return torch.from_numpy((words % np.uint64(self.count)).astype(np.int64))

    def moves(self, numbers: Indices, *, size: int) -> torch.Tensor:
        """Shift of the image in each of these views, to the right and down, in sides.

        Float32, batch x 2. Valid for views that neither rotate nor mirror.
        """
        side = 2 * self.padding + 1
        found = torch.stack([numbers % side, numbers // side], dim=1)
        return (self.padding - found) / size

    def apply(self, images: Images, numbers: Indices) -> Images:
        """The views with these numbers of a batch of images; on the images' device."""
        if self.count == 1:
            return images
        mirrored = numbers % 2 == 1 if self.flip else torch.zeros_like(numbers, dtype=torch.bool)
        number, side = numbers // 2 if self.flip else numbers, 2 * self.padding + 1
        if self.degrees:
            images = _rotated(images, number // side**2, self.degrees)
            number = number % side**2
        down, right = number // side, number % side
        cut = _windows if images.device.type == "cpu" else _gather
        return cut(images, down, right, mirrored, self.padding)


def _rotated(images: Images, angles: Indices, degrees: int) -> Images:
    """Each image turned counter-clockwise by its angle, counted from -degrees; nearest pixels."""
    batch, channels, size, _ = images.shape
    sources = _sources(size, degrees, images.device)[angles]
    # Pixel 0 is what lies outside.
    flat = F.pad(images.reshape(batch, channels, -1), (1, 0))
    picked = flat.gather(2, sources.view(batch, 1, -1).expand(-1, channels, -1))
    return picked.view(batch, channels, size, size)


@lru_cache(maxsize=4)
def _sources(size: int, degrees: int, device: torch.device) -> Indices:
    """For each angle and pixel the number, from 1, of the pixel to show there; 0 for none.

    Shape (angles, size, size). Computed on the CPU for every device: a pixel between two neighbours
    must fall to the same one everywhere.
    """
    angles = torch.arange(-degrees, degrees + 1, dtype=torch.float64) * (math.pi / 180)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # Where a pixel comes from is where it goes to, turned back; y points down.
    rows = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    count = len(angles)
    grid = F.affine_grid(rows, [count, 1, size, size], align_corners=False)
    numbered = torch.arange(1.0, size**2 + 1, dtype=torch.float64).view(1, 1, size, size)
    shown = F.grid_sample(
        numbered.expand(count, -1, -1, -1), grid, mode="nearest", align_corners=False
    )
    return shown.round().long().view(count, size, size).to(device)


def _windows(
    images: Images, down: Indices, right: Indices, mirrored: torch.Tensor, padding: int
) -> Images:
    """One window of each image: on a CPU two thirds of the time of slicing one after the other."""
    batch, channels, size, _ = images.shape
    wide = size + 2 * padding
    flipped = mirrored.numpy()
    # Mirrored images go last, so that one flip serves all of them.
    order = np.argsort(flipped, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(batch)
    plain = batch - int(flipped.sum())
    images = images.index_select(0, torch.from_numpy(order))
    padded = images.new_zeros((batch, channels, wide, wide))
    inner = padded[:, :, padding : padding + size, padding : padding + size]
    inner[:plain], inner[plain:] = images[:plain], images[plain:].flip(-1)
    # NumPy copies a whole window for an index, torch would go pixel by pixel. In a mirror image,
    # right is left.
    windows = padded.unfold(2, size, 1).unfold(3, size, 1).numpy()
    columns = np.where(flipped, 2 * padding - right.numpy(), right.numpy())
    return torch.from_numpy(windows[place, :, down.numpy(), columns])


def _gather(
    images: Images, down: Indices, right: Indices, mirrored: torch.Tensor, padding: int
) -> Images:
    """All pixels of all images at once, without a loop for the device to wait for."""
    batch, channels, size, _ = images.shape
    wide = size + 2 * padding
    padded = images.new_zeros((batch, channels, wide, wide))
    padded[:, :, padding : padding + size, padding : padding + size] = images
    span = torch.arange(size, device=images.device)
    rows = span + down[:, None]
    columns = torch.where(mirrored[:, None], size - 1 - span, span) + right[:, None]
    # One gather along flat positions took a quarter of the time of indexing by batch, row and
    # column, and two thirds of that of sliding windows and a flip.
    flat = (rows[:, :, None] * wide + columns[:, None, :]).view(batch, 1, -1)
    picked = padded.view(batch, channels, -1).gather(2, flat.expand(-1, channels, -1))
    return picked.view(batch, channels, size, size)


NONE = Views()


def views(name: str, *, channels: int, image_size: int) -> Views:
    """The family called `name`: `none`, `flip`, `crop`, `crop-flip`, `rotate-flip`, or `auto`.

    `auto` is crop-flip for colour images of 16 pixels a side and more, and none for others: a
    mirrored digit is another sign. The padding is an eighth of the side, 4 at 32 pixels; rotations
    go to 20 degrees, as the Nasty Teacher code has them for Tiny-ImageNet.
    """
    padding = image_size // 8
    families = {
        "none": NONE,
        "flip": Views(flip=True),
        "crop": Views(padding=padding),
        "crop-flip": Views(padding=padding, flip=True),
        "rotate-flip": Views(flip=True, degrees=20),
    }
    if name == "auto":
        name = auto_views(channels=channels, image_size=image_size)
    if name not in families:
        raise ConfigError(f"There is no augmentation {name!r}. Known: auto, {', '.join(families)}.")
    return families[name]


def auto_views(*, channels: int, image_size: int, landmarks: bool = False) -> str:
    """The family that `auto` stands for; landmarks can follow shifts only."""
    if landmarks:
        return "crop" if image_size >= 16 else "none"
    return "crop-flip" if channels == 3 and image_size >= 16 else "none"


def epoch_order(rows: Indices, *, view_seed: int, epoch: int) -> Indices:
    """The order in which an epoch meets `rows`."""
    permutation = generator(view_seed, "order", epoch).permutation(len(rows))
    return rows[torch.from_numpy(permutation)]
