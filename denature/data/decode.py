"""Decode images into uint8 arrays, in parallel; errors name the damaged image."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from denature.core.errors import DataError
from denature.core.threads import usable_cores
from denature.core.untrusted import MIB
from denature.data.pictures import DEEP, BadImage, opened_image

if TYPE_CHECKING:  # Pillow is imported where it decodes: training on arrays does without
    from PIL.Image import Image

CHUNK = 256
"""Images decoded per work item: large enough to hide the hand-over, small enough for memory."""

CHUNK_BYTES = 16 * MIB
"""Encoded bytes of a work item at most, unless one image has more."""

BLOCK_BYTES = 8 * MIB
"""Bytes of a block of decoded images at most, unless one image has more."""

IN_FLIGHT = 32 * MIB
"""Bytes of images, encoded and decoded, that wait for or in threads at most."""

SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I;16N"}
GREY_MODES = {"1", "L", "LA", *SIXTEEN_BIT}


class Encoded(NamedTuple):
    """One image as its file holds it."""

    image: bytes | Path
    label: int | np.ndarray
    """A class, or coordinates of landmarks, float32."""
    where: str
    path: str = ""
    """Path of the image in the data set."""


class DecodedBlock(NamedTuple):
    """Decoded images (uint8, n x channels x size x size) and their labels."""

    images: np.ndarray
    labels: np.ndarray
    paths: tuple[str, ...] = ()
    """Paths in the data set, where images have them."""


class ColourFound(Exception):
    """A colour image came after grey ones: decoding starts again with three channels."""


class Decoder:
    """Turns encoded images of one data set into blocks of one shape.

    Pillow decodes with the interpreter's lock released, so threads are enough.

    Args:
        image_size: pixels a side; None takes the first image's, which must be square.
        skip_bad: count images that cannot be decoded instead of raising.
        stretch: make images square by stretching, which keeps landmarks in place, instead of by
            cutting off their sides.
    """

    def __init__(self, *, image_size: int | None, skip_bad: bool, stretch: bool = False) -> None:
        self.size = image_size
        self.stretch = stretch
        self.resize = image_size is not None
        self.skip_bad = skip_bad
        self.channels: int | None = None
        self.skipped: list[str] = []
        self.deep: list[int] = []
        """The highest upper byte of each image of 16 bits a channel; lower bytes are dropped."""

    def blocks(self, samples: Iterable[Encoded]) -> Iterator[DecodedBlock]:
        """Decode `samples` in order; at most a few chunks are in memory at a time.

        Raises:
            DataError: an image is damaged, or has another size than the first.
            ColourFound: a colour image came after `channels` was set to 1; `channels` is 3 now.
        """
        cpus = usable_cores()
        with ThreadPoolExecutor(max_workers=cpus) as pool:
            waiting: deque[Future[DecodedBlock]] = deque()
            for chunk in _chunks(samples):
                if self.size is None or self.channels is None:
                    self._settle_shape(chunk)
                for part in self._parts(chunk):
                    # The shape goes with the part: threads at work must not see it change.
                    waiting.append(pool.submit(self._decode_chunk, part, self.channels, self.size))
                    room = IN_FLIGHT // max(1, self._nbytes * len(part) + _nbytes(part))
                    while len(waiting) > min(2 * cpus, room):
                        yield self._finished(waiting.popleft())
            while waiting:
                yield self._finished(waiting.popleft())

    @property
    def _nbytes(self) -> int:
        """Bytes of a decoded image."""
        return (self.channels or 3) * (self.size or 1) ** 2

    def pieces(self, images: np.ndarray) -> Iterator[slice]:
        """Slices of an array of images that are small enough when they are resized."""
        side = self.size if self.resize and self.size else images.shape[-1]
        each = max(1, BLOCK_BYTES // (images.shape[1] * side**2 or 1))
        yield from (slice(start, start + each) for start in range(0, len(images), each))

    def _parts(self, chunk: list[Encoded]) -> Iterator[list[Encoded]]:
        each = max(1, BLOCK_BYTES // self._nbytes)
        yield from (chunk[start : start + each] for start in range(0, len(chunk), each))

    def _finished(self, work: "Future[DecodedBlock]") -> DecodedBlock:
        try:
            return work.result()
        except ColourFound:
            self.channels = 3
            raise

    def _settle_shape(self, chunk: list[Encoded]) -> None:
        """Take size and channels from the first chunk; one colour image makes all three-channel."""
        for sample in chunk:
            try:
                with opened_image(sample.image) as image:
                    (width, height), grey = image.size, image.mode in GREY_MODES
            except BadImage:
                continue  # reported, or skipped, when it is decoded
            if self.size is None:
                if width != height:
                    raise DataError(
                        f"{sample.where} is {width}x{height}; networks here take square images. "
                        f"Pass --image-size {min(width, height)} to crop and resize."
                    )
                self.size = width
            self.channels = max(self.channels or 1, 1 if grey else 3)

    def _decode_chunk(
        self, chunk: list[Encoded], channels: int | None, size: int | None
    ) -> DecodedBlock:
        images, labels, paths = [], [], []
        for sample in chunk:
            try:
                images.append(self._decode(sample, channels or 3, size or 1))
            except BadImage as error:
                if not self.skip_bad:
                    raise DataError(
                        f"{sample.where} cannot be decoded: {error}. "
                        "Repair or remove it, or leave such images out with --skip-bad."
                    ) from None
                self.skipped.append(sample.where)
                continue
            labels.append(sample.label)
            paths.append(sample.path)
        kind = np.float32 if self.stretch else np.int64
        shape = (0, channels or 3, size or 1, size or 1)
        stacked = np.stack(images) if images else np.empty(shape, np.uint8)
        try:
            return DecodedBlock(stacked, np.array(labels, kind), tuple(paths))
        except ValueError:
            raise DataError(
                f"Images near {chunk[0].where} have different numbers of landmarks."
            ) from None

    def _decode(self, sample: Encoded, channels: int, size: int) -> np.ndarray:
        with opened_image(sample.image) as image:
            if channels == 1 and image.mode not in GREY_MODES:
                raise ColourFound
            if DEEP in image.info:
                self.deep.append(_upper_byte(image))
            array = to_array(
                image, channels=channels, size=size, fit=self.resize, stretch=self.stretch
            )
            width, height = image.size
        if array is None:
            raise DataError(
                f"{sample.where} is {width}x{height}, the images before it {size}x{size}. Pass "
                f"--image-size {size} to crop and resize all of them."
            )
        return array

    def resized(self, images: np.ndarray) -> np.ndarray:
        """Resize images that came decoded to the configured size."""
        if not self.resize or images.shape[-1] == self.size or not len(images):
            return images
        from PIL import Image

        channels, size = images.shape[1], self.size
        pictures = (
            Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
            for pixels in images
        )
        arrays = [to_array(p, channels=channels, size=size or 0, fit=True) for p in pictures]
        return np.stack([array for array in arrays if array is not None])


def to_array(
    image: "Image", *, channels: int, size: int, fit: bool = False, stretch: bool = False
) -> np.ndarray | None:
    """One image as uint8, channels x size x size; None where the size differs and `fit` is off.

    Args:
        image: of any size and mode.
        channels: 1 or 3.
        size: pixels a side.
        fit: bring an image of another size into shape.
        stretch: do that without cropping, so that fractions of the sides stay valid.

    Raises:
        BadImage: 32 bits a pixel, whose level of white is unknown.
    """
    from PIL import Image, ImageOps

    if image.mode in ("I", "F"):
        raise BadImage("it has 32 bits a pixel; wanted are 8 or 16")
    if image.mode in SIXTEEN_BIT:  # keep the upper byte, where Pillow would clip
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    mode = "L" if channels == 1 else "RGB"
    pixels = image if image.mode == mode else image.convert(mode)
    if pixels.size != (size, size):
        if not fit:
            return None
        bilinear = Image.Resampling.BILINEAR
        if stretch:
            pixels = pixels.resize((size, size), bilinear)
        else:
            pixels = ImageOps.fit(pixels, (size, size), method=bilinear)
    array = np.asarray(pixels)
    return np.ascontiguousarray(array[None] if channels == 1 else array.transpose(2, 0, 1))


def _upper_byte(image: "Image") -> int:
    """The highest upper byte of an image of 16 bits a channel; Pillow drops the lower ones."""
    pixels = np.asarray(image)
    return int(pixels.max() >> 8 if image.mode in SIXTEEN_BIT else pixels[..., :3].max())


def _nbytes(samples: Iterable[Encoded]) -> int:
    """Bytes of encoded images in memory."""
    return sum(len(sample.image) for sample in samples if isinstance(sample.image, bytes))


def _chunks(samples: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    chunk: list[Encoded] = []
    held = 0
    for sample in samples:
        chunk.append(sample)
        held += _nbytes([sample])
        if len(chunk) == CHUNK or held >= CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
