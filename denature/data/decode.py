"""Decode images into uint8 arrays, in parallel; errors name the damaged image."""

import io
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from denature.core.errors import DataError
from denature.core.sniffing import head_of, instead_of

if TYPE_CHECKING:  # Pillow is imported where it decodes: training on arrays does without
    from PIL.Image import Image

CHUNK = 256
"""Images decoded per work item: large enough to hide the hand-over, small enough for memory."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""Formats to decode, whatever the suffix. Pillow would start Ghostscript for PostScript."""

MOST_PIXELS = 89_478_485
"""Limit of an image, 256 MiB of RGB: a small file can unpack to any number of pixels."""

SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I;16N"}
GREY_MODES = {"1", "L", "LA", *SIXTEEN_BIT}

DEEP = "denature: 16 bits"
"""Key in an opened image's `info` that marks a file of 16 bits a channel."""


class Encoded(NamedTuple):
    """One image as its file holds it."""

    image: bytes | Path
    label: int | np.ndarray
    """A class, or coordinates of landmarks, float32."""
    where: str
    path: str = ""
    """Path of the image in the data set."""


class Block(NamedTuple):
    """Decoded images (uint8, n x channels x size x size) and their labels."""

    images: np.ndarray
    labels: np.ndarray
    paths: tuple[str, ...] = ()
    """Paths in the data set, where images have them."""


class BadImage(Exception):
    """Bytes of no known format, or a damaged or too large image; the text gives the reason."""


class TooManyPixels(BadImage):
    """An image that would fill the memory."""


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

    def blocks(self, samples: Iterable[Encoded]) -> Iterator[Block]:
        """Decode `samples` in order; at most a few chunks are in memory at a time.

        Raises:
            DataError: an image is damaged, or has another size than the first.
            ColourFound: a colour image came after `channels` was set to 1; `channels` is 3 now.
        """
        chunks = _chunks(samples)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            waiting: deque[Future[Block]] = deque()
            for chunk in chunks:
                if self.size is None or self.channels is None:
                    self._settle_shape(chunk)
                # The shape goes with the chunk: threads at work must not see it change.
                waiting.append(pool.submit(self._decode_chunk, chunk, self.channels, self.size))
                if len(waiting) > 2 * (os.cpu_count() or 1):
                    yield self._finished(waiting.popleft())
            while waiting:
                yield self._finished(waiting.popleft())

    def _finished(self, work: "Future[Block]") -> Block:
        try:
            return work.result()
        except ColourFound:
            self.channels = 3
            raise

    def _settle_shape(self, chunk: list[Encoded]) -> None:
        """Take size and channels from the first chunk; one colour image makes all three-channel."""
        for sample in chunk:
            try:
                image = open_image(sample.image)
            except BadImage:
                continue  # reported, or skipped, when it is decoded
            width, height = image.size
            grey = image.mode in GREY_MODES
            if self.size is None:
                if width != height:
                    raise DataError(
                        f"{sample.where} is {width}x{height}; networks here take square images. "
                        f"Pass --image-size {min(width, height)} to crop and resize."
                    )
                self.size = width
            self.channels = max(self.channels or 1, 1 if grey else 3)

    def _decode_chunk(self, chunk: list[Encoded], channels: int | None, size: int | None) -> Block:
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
            return Block(stacked, np.array(labels, kind), tuple(paths))
        except ValueError:
            raise DataError(
                f"Images near {chunk[0].where} have different numbers of landmarks."
            ) from None

    def _decode(self, sample: Encoded, channels: int, size: int) -> np.ndarray:
        image = open_image(sample.image)
        if channels == 1 and image.mode not in GREY_MODES:
            raise ColourFound
        if DEEP in image.info:
            self.deep.append(_upper_byte(image))
        array = to_array(image, channels=channels, size=size, fit=self.resize, stretch=self.stretch)
        if array is None:
            raise DataError(
                f"{sample.where} is {image.size[0]}x{image.size[1]}, the images before it "
                f"{size}x{size}. Pass --image-size {size} to crop and resize all of them."
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
    pixels = image.convert("L" if channels == 1 else "RGB")
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


def open_image(
    image: bytes | Path, *, formats: tuple[str, ...] = FORMATS, most_pixels: int = MOST_PIXELS
) -> "Image":
    """The first frame of an image, decoded and upright: turned as its Exif orientation says.

    All code of this package reads image files through this function.

    Args:
        image: path of a file, or its bytes.
        formats: the formats of Pillow to try.
        most_pixels: limit that is checked before decoding.

    Raises:
        BadImage: the image cannot be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    source = image if isinstance(image, Path) else io.BytesIO(image)
    try:
        with Image.open(source, formats=formats) as picture:
            if picture.width * picture.height > most_pixels:
                raise TooManyPixels(
                    f"it is {picture.width}x{picture.height}; wanted are at most {most_pixels:,} "
                    "pixels"
                )
            deep = _is_deep(picture)
            picture.load()
            if deep:
                picture.info[DEEP] = True
            _turn_upright(picture)
            if deep and picture.format == "PPM" and picture.mode == "I":
                return picture.convert("I;16")  # Pillow has scaled the values to 0..65535
            return picture.copy()
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage("there is no such file") from None
    except UnidentifiedImageError:
        found = instead_of(head_of(image) if isinstance(image, Path) else image)
        why = f"; it {found}" if found else ""
        raise BadImage(f"it is none of {', '.join(formats)}{why}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixels(str(error).rstrip(".")) from None
    except Exception as error:  # Pillow raises a dozen kinds for images that are damaged
        raise BadImage(str(error).rstrip(".") or type(error).__name__) from None


def _is_deep(picture: "Image") -> bool:
    """Whether an opened file, not decoded yet, holds 16 bits a channel."""
    for tile in getattr(picture, "tile", ()):
        settings = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if settings and re.search(r"(?<!BGR);1[26][BLNR]?$", str(settings[0])):
            return True
        if picture.format == "PPM" and isinstance(settings[-1], int) and settings[-1] > 255:
            return True
    return False


def _turn_upright(picture: "Image") -> None:
    from PIL import ImageOps

    # Damaged Exif is ignored: viewers show such an image as it is stored.
    with suppress(Exception):
        ImageOps.exif_transpose(picture, in_place=True)


def _chunks(samples: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    chunk: list[Encoded] = []
    for sample in samples:
        chunk.append(sample)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
