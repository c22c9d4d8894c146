"""Images as uint8 arrays with their labels, cut into splits by row number."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from denature.core.errors import ConfigError
from denature.core.seeds import generator
from denature.core.types import Images, Indices, Labels
from denature.data.config import DataConfig


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Some rows of an array of images.

    A row number is a sample's identity: views and stored answers are keyed by it, so it does not
    change when a fraction of the split is taken.
    """

    images: Images
    labels: Labels
    """Labels of all images, not of the rows alone; for landmarks float32, n x 2 points."""
    rows: Indices
    groups: Indices | None = None
    """Group numbers of all images; a group, such as frames of one person, is never divided."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def landmarks(self) -> bool:
        """Whether labels are coordinates, not classes."""
        return self.labels.is_floating_point()

    def _strata(self) -> np.ndarray:
        """Stratum of each row, of which shares are taken: its class, or one for all landmarks."""
        return np.zeros(len(self), np.int64) if self.landmarks else self.labels[self.rows].numpy()

    def take(self, positions: np.ndarray) -> "Split":
        return replace(self, rows=self.rows[torch.from_numpy(np.sort(positions))])

    def divide(self, share: float, name: str) -> tuple["Split", "Split"]:
        """Cut off `share` of each class, the same samples every time; returns (rest, cut off).

        Where there are groups, `share` of the groups is cut off.
        """
        if self.groups is not None:
            groups, places = np.unique(self.groups[self.rows].numpy(), return_inverse=True)
            order = generator(0, name).permutation(len(groups))
            cut = np.isin(places, order[: round(share * len(groups))])
            if not 0 < cut.sum() < len(cut):
                raise ConfigError(
                    f"A share of {share} of {len(groups)} groups leaves one side empty; take a "
                    "share further from 0 and 1, or more groups."
                )
            return self.take(np.flatnonzero(~cut)), self.take(np.flatnonzero(cut))
        labels = self._strata()
        order = generator(0, name).permutation(len(labels))
        order = order[np.argsort(labels[order], kind="stable")]
        # A running total of the share cuts off round(share * n) samples in all, and of each class
        # its own share within one sample.
        steps = np.floor((np.arange(len(order)) + 1) * share + 0.5)
        cut = np.diff(steps, prepend=0.0) > 0
        if not 0 < cut.sum() < len(order):
            raise ConfigError(
                f"A share of {share} of {len(order)} samples leaves one side empty; "
                "take a share further from 0 and 1, or more data."
            )
        return self.take(order[~cut]), self.take(order[cut])

    def fraction(self, share: float) -> "Split":
        """The first `share` of a fixed stratified shuffle; smaller fractions lie in larger ones."""
        if not 0 < share <= 1:
            raise ConfigError(f"fraction is {share}; it is a share of the samples in (0, 1].")
        if share == 1:
            return self
        labels = self._strata()
        order = generator(0, "fraction").permutation(len(labels))
        # The k-th sample of a class of m gets the quantile (k + u) / m, u drawn for the class:
        # sorting by it interleaves the classes in proportion, and rare ones are not always last.
        quantile = np.empty(len(labels))
        for label in np.unique(labels):
            of_class = order[labels[order] == label]
            offset = generator(0, "fraction", int(label)).random()
            quantile[of_class] = (np.arange(len(of_class)) + offset) / len(of_class)
        kept = np.argsort(quantile, kind="stable")[: max(1, round(share * len(labels)))]
        return self.take(kept)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel over these pixels, in [0, 1].

        At most 10,000 images are read: for natural images they fix three decimals.
        """
        step = -(-len(self) // 10_000)
        counts = np.zeros((self.images.shape[1], 256), np.int64)
        # A histogram of 256 bins instead of a float copy, part by part: NumPy counts in a copy that
        # is eight times as large, which for 64x64 pixels would be another third of a gigabyte.
        for rows in self.rows[::step].split(500):
            images = self.images[rows].numpy()
            for channel, count in enumerate(counts):
                count += np.bincount(images[:, channel].ravel(), minlength=256)
        levels = np.arange(256) / 255
        means, deviations = [], []
        for count in counts:
            mean = float(count @ levels / count.sum())
            variance = float(count @ (levels - mean) ** 2 / count.sum())
            means.append(mean)
            deviations.append(max(variance**0.5, 1e-3))
        return tuple(means), tuple(deviations)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A data set in memory or mapped from the cache; `load` makes it."""

    config: DataConfig
    train: Split
    test: Split
    validation: Split | None
    classes: tuple[str, ...]
    """Names of a network's outputs: classes, or coordinates such as `nose.x`."""
    digest: str
    """sha256 of all pixels and labels, first 16 hex digits."""
    test_origin: str
    """Origin of the test split: a split's name in the source, or `holdout`."""
    holdout: float = 0.0
    """Share of the samples that was held out as test split."""
    skipped: int = 0
    """Images that could not be decoded and were left out, with `skip_bad`."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Files, folders and images that were not read, by reason, such as `hidden`."""

    @property
    def landmarks(self) -> bool:
        """Whether labels are coordinates, not classes."""
        return self.train.landmarks

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> int:
        return int(self.train.images.shape[-1])

    def describe(self) -> dict[str, Any]:
        """Summary of the data set, as plain values."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        arrays = {s.images.data_ptr(): s.images.nbytes for s in splits.values() if s}
        return {
            "source": self.config.source,
            **{name: len(split) if split else 0 for name, split in splits.items()},
            "test_origin": self.test_origin,
            "skipped": self.skipped,
            "left_out": dict(self.left_out),
            "image": f"{self.channels}x{self.image_size}x{self.image_size}, uint8",
            "classes": list(self.classes),
            "digest": self.digest,
            "megabytes": round(sum(arrays.values()) / 1e6, 1),
        }
