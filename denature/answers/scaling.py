"""From pixels to the numbers that a model takes."""

from dataclasses import dataclass
from typing import final

import numpy as np

from denature.core.errors import ConfigError
from denature.core.schema import check_fields


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class PixelScale:
    """Numbers that a model takes in place of pixels in [0, 1]."""

    scale: float = 1.0
    """Largest number; pixels are multiplied by it."""
    mean: tuple[float, ...] = ()
    """Of pixels in [0, 1], one for each channel or one for all: subtracted before the division by
    `std`. With it, `scale` stays 1."""
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "scale": (self.scale > 0 and (self.scale == 1 or not self.mean),
                          "above 0, and 1 where mean and std are given"),
                "mean": (all(value <= 1 for value in self.mean),
                         "of images in [0, 1]; divide values of images in 0..255 by 255"),
                "std": (
                    len(self.std) == len(self.mean) and all(0 < value <= 1 for value in self.std),
                    "as many numbers as mean has, each above 0, of images in [0, 1]",
                ),
            },
        )  # fmt: skip

    @property
    def options(self) -> dict[str, str]:
        """What differs from pixels in [0, 1]: a part of the identity of a model's answers."""
        if self.mean:
            return {name: ",".join(f"{value:g}" for value in getattr(self, name))
                    for name in ("mean", "std")}  # fmt: skip
        return {} if self.scale == 1 else {"scale": f"{self.scale:g}"}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Numbers, float32, batch x channels x height x width, for images of that shape.

        Args:
            images: uint8 in 0..255, or float32 in [0, 1].

        Raises:
            ConfigError: there are neither one nor as many means as channels.
        """
        pixels: np.ndarray = images.astype(np.float32, copy=False)
        if images.dtype == np.uint8:
            pixels = pixels / 255
        if self.mean:
            channels = images.shape[1]
            if len(self.mean) not in (1, channels):
                raise ConfigError(
                    f"mean has {len(self.mean)} numbers, and images have {channels} channels."
                )
            mean, std = (
                np.array(values, np.float32).reshape(-1, 1, 1) for values in (self.mean, self.std)
            )
            return (pixels - mean) / std
        return pixels if self.scale == 1 else pixels * np.float32(self.scale)
