"""Config of an image source and of its reader; imports nothing heavy."""

import re
from dataclasses import dataclass

from denature.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderConfig:
    """Options for reading a source of images."""

    holdout: float = 0.0
    """Share of the samples to hold out as test split, where the source has none."""
    image_size: int | None = None
    """Resize (and centre-crop) every image to this many pixels a side."""
    image_column: str | None = None
    """The column of a Parquet file that holds the images, where several could."""
    label_column: str | None = None
    """The column of a Parquet file that holds the labels, where several could."""
    points: tuple[str, ...] = ()
    """Landmarks to learn: numbers from 0, or eyeLeft, eyeRight, mouthLeft, mouthRight and nose of
    the usual 68; all by default."""
    group: str | None = None
    """A regular expression with one group, such as `(.*)_` for frames that are named by person and
    number: images whose paths match with the same text stay in one split. Splits of the source are
    merged and cut anew, with a share `--holdout` of the groups for the test; 0.2 by default."""
    skip_bad: bool = False
    """Leave out images that cannot be decoded, instead of stopping at the first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(self.points))  # a list is as good
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"holdout is {self.holdout}; it is a share of the samples in [0, 1).")
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"image_size is {self.image_size}; it must be at least 1 pixel.")
        if self.group is not None:
            try:
                groups = re.compile(self.group).groups
            except re.error as error:
                raise ConfigError(f"group is {self.group!r}: {error}.") from None
            if groups != 1:
                raise ConfigError(
                    f"group is {self.group!r} with {groups} groups; wanted is one, as in (.*)_."
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(ReaderConfig):
    """A source of images and the options for reading it."""

    source: str
    """`digits`; a folder of Parquet shards or of images; an .npz file; or hf:owner/name."""
