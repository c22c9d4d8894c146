"""NumPy's .npz files: arrays of images and of labels for each split."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from denature.core.errors import DataError, brief
from denature.data.config import DataConfig
from denature.data.decode import Block
from denature.data.readers.arrays import StoredArray, names_in, open_npz
from denature.data.readers.splits import SPELT, is_keyword, split_of
from denature.data.source import MOST_CLASSES, DataSource, Opener, no_label, stats_of


def npz(path: Path, config: DataConfig) -> DataSource | None:
    """Read x_train, y_train and, unless a share is held out, x_test, y_test.

    Images are uint8, or floats in [0, 1]; n x h x w, n x h x w x c or n x c x h x w with c of 1, 3.

    Raises:
        DataError: the file cannot be read, or holds other arrays.
    """
    if path.suffix.lower() != ".npz":
        return None
    openers = {split: _opener(path, name) for split, name in _splits(path).items()}
    return DataSource(openers, None, ("npz", *stats_of([path])))


def _splits(path: Path) -> dict[str, str]:
    """The splits, each with the last part of its arrays' names."""
    names = names_in(path)
    images = {name[2:] for name in names if name.startswith("x_")}
    strange = {name for name in images if f"y_{name}" in names and not is_keyword(name)}
    images = {name for name in images if is_keyword(name)}
    splits = {split: name for name in sorted(images) if (split := split_of(name))}
    if strange or len(splits) < len(images):
        raise DataError(
            f"{path} holds {brief(f'x_{name}' for name in sorted(images | strange))}; wanted is "
            f"one array for each split, of the words {SPELT}."
        )
    if "train" not in splits or not {f"y_{name}" for name in images} <= names:
        raise DataError(
            f"{path} holds {', '.join(sorted(names)) or 'nothing'}; "
            "wanted are x_train and y_train, and x_test with y_test where there is a test split."
        )
    return splits


def _opener(path: Path, split: str) -> Opener:
    def blocks() -> Iterator[Block]:
        names = (f"x_{split}", f"y_{split}")
        with open_npz(path, *names) as arrays:
            where = f"{path}, x_{split}"
            images, numbers = (arrays[name] for name in names)
            if len(images.shape) not in (3, 4):
                raise _no_images(images, where)
            labels = _labels(numbers, f"{path}, y_{split}")
            if images.shape[0] != len(labels):
                raise DataError(f"{where} has {images.shape[0]} images for {len(labels)} labels.")
            if len(labels) and not -1 <= labels.min() <= labels.max() <= MOST_CLASSES:
                raise no_label(labels[(labels < -1) | (labels > MOST_CLASSES)][0], where)
            start = 0
            for piece in images.pieces():
                pixels = _as_uint8(piece, where, images)
                yield Block(pixels, labels[start : start + len(pixels)].astype(np.int64))
                start += len(pixels)

    return blocks


def _labels(numbers: StoredArray, where: str) -> np.ndarray:
    """One integer an image.

    Raises:
        DataError: the array holds anything else.
    """
    shape = numbers.shape
    one_each = len(shape) > 0 and all(size == 1 for size in shape[1:])
    if not one_each or not np.issubdtype(numbers.dtype, np.integer):
        raise DataError(f"{where} must be one integer per image.")
    return numbers.whole().reshape(-1)


def _no_images(images: StoredArray, where: str) -> DataError:
    return DataError(
        f"{where} has the shape {str(images.shape)[:80]}; wanted is n x size x size, "
        "n x size x size x channels or n x channels x size x size, with 1 or 3 channels."
    )


def _as_uint8(images: np.ndarray, where: str, stored: StoredArray) -> np.ndarray:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[-1] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise _no_images(stored, where)
    if not images.size:
        images = images.astype(np.uint8)
    if images.dtype != np.uint8:
        low, high = float(np.min(images)), float(np.max(images))
        if not np.issubdtype(images.dtype, np.floating) or not 0 <= low <= high <= 1:
            raise DataError(
                f"{where} is {images.dtype} from {low:g} to {high:g}; "
                "wanted is uint8 in 0..255 or floats in [0, 1]."
            )
        images = np.rint(images * 255).astype(np.uint8)
    return np.ascontiguousarray(images)
