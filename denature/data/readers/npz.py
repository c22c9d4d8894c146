"""NumPy's .npz files: arrays of images and of labels for each split."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from denature.core.errors import DataError, brief
from denature.data.config import DataConfig
from denature.data.decode import DecodedBlock
from denature.data.readers.arrays import StoredArray, names_in, open_npz
from denature.data.readers.pixels import as_uint8, no_images
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
    def blocks() -> Iterator[DecodedBlock]:
        names = (f"x_{split}", f"y_{split}")
        with open_npz(path, *names) as arrays:
            where = f"{path}, x_{split}"
            images, numbers = (arrays[name] for name in names)
            if len(images.shape) not in (3, 4):
                raise no_images(images.shape, where)
            labels = _labels(numbers, f"{path}, y_{split}")
            if images.shape[0] != len(labels):
                raise DataError(f"{where} has {images.shape[0]} images for {len(labels)} labels.")
            if len(labels) and not -1 <= labels.min() <= labels.max() <= MOST_CLASSES:
                raise no_label(labels[(labels < -1) | (labels > MOST_CLASSES)][0], where)
            start = 0
            for piece in images.pieces():
                pixels = as_uint8(piece, where, images.shape)
                yield DecodedBlock(pixels, labels[start : start + len(pixels)].astype(np.int64))
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
