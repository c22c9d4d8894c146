"""Query pools: the images that a thief can send."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import numpy as np

from denature.core.errors import ConfigError
from denature.core.progress import SILENT, Progress
from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split
from denature.data.loading import load_images
from denature.data.source import legible

NOISE = "noise"

BLOCK = 1024
"""Images of a pool that are in memory at once."""


class Pool(Protocol):
    """Images by number; a number always stands for the same image."""

    name: str

    @property
    def size(self) -> int | None:
        """Number of images; None if it is unlimited."""

    @property
    def digest(self) -> str:
        """Digest of all images."""

    def images(self, rows: Sequence[int]) -> np.ndarray:
        """uint8, batch x channels x height x width."""

    def contents(self, rows: Sequence[int]) -> list[bytes]:
        """Digest of each of these images."""

    def references(self, rows: Sequence[int]) -> list[str]:
        """Source of each of these images."""

    @property
    def generated(self) -> bool:
        """Whether images are generated, so that the ledger stores them with their answers."""


def digest_of(image: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


class StoredPool:
    """The images of a split, with as many channels as the victim takes."""

    def __init__(self, name: str, split: Split, digest: str, *, channels: int) -> None:
        self.name = legible(name)  # the ledger keeps Unicode only
        # NumPy arrays, because torch's threads would take the cores from a server on this machine:
        # 2.7 ms for 64 images, where NumPy takes 0.2.
        self._images: np.ndarray = split.images.numpy()
        self._rows: np.ndarray = split.rows.numpy()
        self._channels = channels
        self._digest = digest
        self._contents: dict[int, bytes] = {}
        own = int(split.images.shape[1])
        if own != channels and {own, channels} != {1, 3}:
            raise ConfigError(
                f"{name} has images of {own} channels, the victim takes {channels}; only 1 and 3 "
                "channels can be converted."
            )

    @property
    def size(self) -> int:
        return len(self._rows)

    @property
    def digest(self) -> str:
        return f"{self._digest}-{self._channels}"

    def images(self, rows: Sequence[int]) -> np.ndarray:
        images: np.ndarray = self._images[self._rows[np.asarray(rows, np.int64)]]
        if images.shape[1] == self._channels:
            return images
        if self._channels == 3:
            return np.repeat(images, 3, axis=1)
        # Rec. 601, as Pillow converts.
        grey = np.tensordot(np.array([0.299, 0.587, 0.114]), images, axes=(0, 1))
        return np.rint(grey).astype(np.uint8)[:, None]

    def contents(self, rows: Sequence[int]) -> list[bytes]:
        new = [row for row in rows if row not in self._contents]
        for start in range(0, len(new), BLOCK):
            block = new[start : start + BLOCK]
            for row, image in zip(block, self.images(block), strict=True):
                self._contents[row] = digest_of(image)
        return [self._contents[row] for row in rows]

    def references(self, rows: Sequence[int]) -> list[str]:
        return [f"{self.name}#{row}" for row in self._rows[np.asarray(rows, np.int64)]]

    @property
    def generated(self) -> bool:
        return False


class NoisePool:
    """Images of independent uniform bytes, the weakest query pool of a thief."""

    name = NOISE

    def __init__(self, *, channels: int, image_size: int, seed: int) -> None:
        self._shape = (channels, image_size, image_size)
        self._seed = seed

    @property
    def size(self) -> None:
        return None

    @cached_property
    def digest(self) -> str:
        return f"{NOISE}-{'x'.join(map(str, self._shape))}-{self._seed}"

    def images(self, rows: Sequence[int]) -> np.ndarray:
        images = np.empty((len(rows), *self._shape), np.uint8)
        for image, row in zip(images, rows, strict=True):
            # A generator for each image: a number stands for the same image in every order.
            generator = np.random.Generator(np.random.Philox(key=[self._seed, row]))
            image[...] = generator.integers(0, 256, self._shape, dtype=np.uint8)
        return images

    def contents(self, rows: Sequence[int]) -> list[bytes]:
        return [digest_of(self.images([row])[0]) for row in rows]

    def references(self, rows: Sequence[int]) -> list[str]:
        return [f"{self.digest}#{row}" for row in rows]

    @property
    def generated(self) -> bool:
        return True


class PoolBatch:
    """A batch of images that is not stored, such as the candidates of an attack.

    Args:
        name: purpose of the images, which the ledger records as their source.
        images: uint8, batch x channels x height x width.
    """

    def __init__(self, name: str, images: np.ndarray) -> None:
        self.name, self._images = name, images

    @property
    def size(self) -> int:
        return len(self._images)

    @cached_property
    def digest(self) -> str:
        return digest_of(self._images).hex()

    def images(self, rows: Sequence[int]) -> np.ndarray:
        images: np.ndarray = self._images[np.asarray(rows, np.int64)]
        return images

    def contents(self, rows: Sequence[int]) -> list[bytes]:
        return [digest_of(image) for image in self.images(rows)]

    def references(self, rows: Sequence[int]) -> list[str]:
        return [self.name] * len(rows)

    @property
    def generated(self) -> bool:
        return False


def open_pool(
    config: DataConfig,
    *,
    channels: int,
    image_size: int,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Pool:
    """The images of a source's training split, or noise, in the input shape of a victim.

    Args:
        config: the source; `noise` for generated images.
        channels: channels of the victim's input.
        image_size: pixels a side of the victim's input.
        seed: seed of the noise.
        progress: receives the progress of decoding.

    Raises:
        ConfigError: the images cannot be converted to that shape.
        DataError: the images cannot be read.
    """
    if config.source == NOISE:
        return NoisePool(channels=channels, image_size=image_size, seed=seed)
    config = replace(config, image_size=config.image_size or image_size)
    split, digest = load_images(config, progress=progress)
    size = int(split.images.shape[-1])
    if size != image_size:
        raise ConfigError(
            f"{config.source} has images of {size} pixels a side, the victim takes {image_size}; "
            f"leave out --image-size."
        )
    return StoredPool(config.source, split, digest, channels=channels)


def pool_of_tests(dataset: Dataset) -> StoredPool:
    """The test images of a data set; a row is a position in its test split."""
    return StoredPool(
        dataset.config.source, dataset.test, dataset.digest, channels=dataset.channels
    )
