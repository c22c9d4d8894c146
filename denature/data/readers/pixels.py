"""Arrays of images as uint8, channels first: those of .npz files, and those that a caller has."""

import numpy as np

from denature.core.errors import DataError

CHANNELS = (1, 3)

BYTES_FROM = 65
"""Largest value from which numbers above 1 are taken for bytes in messages; black images aside."""


def as_uint8(images: np.ndarray, where: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """uint8 images, n x channels x size x size.

    Args:
        images: uint8, or floats in [0, 1]; n x size x size, n x channels x size x size, or n x size
            x size x channels, with 1 or 3 channels. The place of the channels follows from the
            sides, which are equal.
        where: name of the array, for errors.
        shape: shape of the whole array, of which `images` is a part, for errors.

    Raises:
        DataError: another type, range or shape, or RGB images of 3 x 3 pixels, whose channels could
            be first or last.
    """
    whole = shape or images.shape
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and not _square(images.shape[2:]):
        images = images.transpose(0, 3, 1, 2)
    elif images.shape[1:] == (3, 3, 3):
        raise DataError(
            f"{where} has the shape {whole}, whose channels could be first or last. Wanted are "
            "images of another size than 3 x 3, or of one channel."
        )
    if images.ndim != 4 or images.shape[1] not in CHANNELS or not _square(images.shape[2:]):
        raise no_images(whole, where)
    if not images.size:
        images = images.astype(np.uint8)
    if images.dtype != np.uint8:
        images = np.rint(_shares(images, where) * 255).astype(np.uint8)
    return np.ascontiguousarray(images)


def no_images(shape: tuple[int, ...], where: str) -> DataError:
    return DataError(
        f"{where} has the shape {str(shape)[:80]}; wanted is n x size x size, "
        "n x size x size x channels or n x channels x size x size, with 1 or 3 channels."
    )


def _square(sides: tuple[int, ...]) -> bool:
    return sides[0] == sides[1]


def _shares(images: np.ndarray, where: str) -> np.ndarray:
    """Floats in [0, 1], unchanged.

    Raises:
        DataError: another type, or numbers below 0, above 1 or NaN.
    """
    number = np.issubdtype(images.dtype, np.number) and images.dtype.kind != "c"
    low, high = (float(np.min(images)), float(np.max(images))) if number else (np.nan, np.nan)
    if np.issubdtype(images.dtype, np.floating) and 0 <= low <= high <= 1:
        return images
    hint = ""
    if low < 0:
        hint = " Leave out their normalisation: a network does its own."
    elif BYTES_FROM <= high <= 255:
        hint = " Convert them with .astype('uint8'), or divide by 255."
    elif high > 1:  # such as the digits of scikit-learn, from 0 to 16
        hint = f" Divide them by the number that stands for white; the largest one is {high:g}."
    raise DataError(
        f"{where} is {images.dtype} from {low:g} to {high:g}; "
        f"wanted is uint8 in 0..255 or floats in [0, 1].{hint}"
    )
