"""Picture files of strangers, decoded within limits: the only place that opens one with Pillow.

Formats are a closed list, because Pillow starts Ghostscript for PostScript, whatever the suffix.
"""

import io
import math
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from denature.core.sniffing import head_of, instead_of
from denature.core.untrusted import open_regular

if TYPE_CHECKING:  # Pillow is imported where it decodes: training on arrays does without
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""Formats to decode, whatever the suffix."""

MOST_PIXELS = 40_000_000
"""Limit of an image: a small file can unpack to any number of pixels, of 4 bytes in memory."""

MOST_OF_FORMAT = {"WEBP": 16_000_000}
"""Lower limits of formats whose decoders take more: 28 bytes a pixel, where others take 12."""

LARGE = 4_000_000
"""Pixels of an image above which the threads of a process decode one after the other."""

MOST_SCANS = 100
"""Scans of a JPEG at most; progressive files have some ten."""

TILE_WIDTH, TILE_HEIGHT = 322, 323
"""Tags of TIFF."""

DEEP = "denature: 16 bits"
"""Key in an opened image's `info` that marks a file of 16 bits a channel."""

_TURN = threading.Lock()


class BadImage(Exception):
    """Bytes of no known format, or a damaged or too large image; the text gives the reason."""


class TooManyPixels(BadImage):
    """An image that would fill the memory."""


def open_image(
    image: bytes | Path, *, formats: tuple[str, ...] = FORMATS, most_pixels: int = MOST_PIXELS
) -> "Image":
    """The first frame of an image, decoded and upright: turned as its Exif orientation says.

    Args:
        image: path of a file, or its bytes.
        formats: the formats of Pillow to try.
        most_pixels: limit that is checked before decoding.

    Raises:
        BadImage: the image cannot be decoded.
    """
    with opened_image(image, formats=formats, most_pixels=most_pixels) as picture:
        return picture


@contextmanager
def opened_image(
    image: bytes | Path, *, formats: tuple[str, ...] = FORMATS, most_pixels: int = MOST_PIXELS
) -> "Iterator[Image]":
    """The same for work with the pixels: during it, no other thread decodes a large image."""
    with ExitStack() as stack:
        yield _opened(image, formats, most_pixels, stack)


def _opened(
    image: bytes | Path, formats: tuple[str, ...], most_pixels: int, stack: ExitStack
) -> "Image":
    from PIL import Image, UnidentifiedImageError

    try:
        source = open_regular(image) if isinstance(image, Path) else io.BytesIO(image)
        with source:
            _check_scans(source)
            picture = stack.enter_context(Image.open(source, formats=formats))
            pixels = max(picture.width * picture.height, _tile(picture))
            most = min(most_pixels, MOST_OF_FORMAT.get(str(picture.format), most_pixels))
            if pixels > most:
                raise TooManyPixels(
                    f"it is {picture.width}x{picture.height}; wanted are at most {most:,} pixels"
                )
            if pixels > LARGE:
                stack.enter_context(_TURN)
            return _loaded(picture)
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


def _check_scans(source: "IO[bytes]") -> None:
    """Check the scans of a JPEG, each of which goes over all of its pixels once.

    Raises:
        BadImage: it has more than `MOST_SCANS`.
    """
    if source.read(2) == b"\xff\xd8":
        scans, last = 0, b""
        while piece := source.read(1 << 20):
            # Within the data of a scan this pair does not occur.
            scans += (last + piece).count(b"\xff\xda")
            last = piece[-1:]
            if scans > MOST_SCANS:
                raise BadImage(f"it has more than {MOST_SCANS} scans")
    source.seek(0)


def _tile(picture: "Image") -> int:
    """Pixels of a TIFF's tile, which may be larger than its image; 0 for other files."""
    tags = getattr(picture, "tag_v2", None)
    if tags is None:
        return 0
    sides = [tags.get(tag) for tag in (TILE_WIDTH, TILE_HEIGHT)]
    return math.prod(side for side in sides if isinstance(side, int)) if all(sides) else 0


def _loaded(picture: "Image") -> "Image":
    """The pixels of an opened file, without a copy of them."""
    deep = _is_deep(picture)
    picture.load()
    if deep:
        picture.info[DEEP] = True
    _turn_upright(picture)
    if deep and picture.format == "PPM" and picture.mode == "I":
        return picture.convert("I;16")  # Pillow has scaled the values to 0..65535
    return picture


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
