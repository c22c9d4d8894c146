"""Sources of images: names and paths resolved to splits of encoded or decoded images.

A reader determines splits, classes and files without decoding a pixel; the cache requests the
images once.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from denature.core.errors import DataError, brief, unknown
from denature.core.progress import SILENT, Progress
from denature.core.sniffing import head_of, instead_of
from denature.data.config import DataConfig
from denature.data.decode import Block
from denature.data.download import PUBLISHED, fetched
from denature.data.landmarks import PLACES
from denature.data.readers.archives import archived
from denature.data.readers.folders import image_folder
from denature.data.readers.parquet import has_parquet, hub, parquet
from denature.data.readers.splits import SPELT, is_keyword, split_of
from denature.data.source import MOST_CLASSES, DataSource, Opener, line_of, no_label, stats_of

ARCHIVES = (".gz", ".tgz", ".tar", ".zip")


def open_source(config: DataConfig, progress: Progress = SILENT) -> DataSource:
    """Resolve `config.source`; a data set that its authors publish is fetched the first time.

    Raises:
        DataError: the path does not exist, or holds no images and labels.
    """
    name = config.source
    if name in NAMED:
        return NAMED[name]()
    if name.startswith("hf:"):
        return hub(config)
    path = Path(name).expanduser()
    if not path.exists() and name in PUBLISHED:
        path = fetched(name, progress)
    if not path.exists():
        if re.fullmatch(r"[\w-]+", name):
            error = unknown("data set", name, {*NAMED, *PUBLISHED})
            raise DataError(f"{error} There is no file or folder {path.absolute()} either.")
        raise DataError(f"There is no file or folder {path.absolute()}.")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return npz(path)
    if (found := archived(path)) is not None:
        return found
    if suffix == ".parquet" or (path.is_dir() and has_parquet(path)):
        return parquet(path, config)
    if path.is_dir():
        return image_folder(path)
    if suffix in ARCHIVES and (instead := instead_of(head_of(path))) is not None:
        raise DataError(f"{path} {instead}.")
    raise DataError(
        f"{path} is no folder, .npz, .parquet or published archive. Data can be: "
        f"{', '.join((*NAMED, *PUBLISHED))}; a folder of Parquet shards or of images; an .npz; an "
        "archive of CIFAR or Tiny-ImageNet; hf:owner/name."
    )


def digits() -> DataSource:
    """scikit-learn's digits: 1,797 handwritten digits, 8x8, grey; inside its wheel."""

    def blocks() -> Iterator[Block]:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        pixels = np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
        yield Block(pixels, labels.astype(np.int64))

    return DataSource({"train": blocks}, tuple("0123456789"), ("digits", 1), 1797)


def drawn_faces() -> DataSource:
    """Cartoons of faces with five landmarks, 64x64, in colour; drawn here."""
    from denature.data.readers import drawn

    openers = {split: partial(drawn.blocks, split) for split in drawn.PEOPLE}
    total = drawn.FRAMES * sum(drawn.PEOPLE.values())
    return DataSource(openers, PLACES, ("drawn-faces", 1), total, landmarks=True)


NAMED: Mapping[str, Callable[[], DataSource]] = {"digits": digits, "drawn-faces": drawn_faces}


def npz(path: Path) -> DataSource:
    """An .npz with x_train, y_train and, unless a share is held out, x_test, y_test.

    Images are uint8, or floats in [0, 1]; n x h x w, n x h x w x c or n x c x h x w with c of 1, 3.
    """

    def read_arrays(*wanted: str) -> list[np.ndarray]:
        try:
            # Opened here, because NumPy leaves a damaged file open.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                return [archive[name] for name in wanted] or [np.array(archive.files)]
        except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            part = f" ({', '.join(wanted)})" if wanted else ""
            found = path.is_file() and instead_of(
                head_of(path), "Wanted is a file that NumPy saved"
            )
            why = f"it {found}" if found else line_of(error)
            raise DataError(f"{path}{part} cannot be read as .npz: {why}.") from None

    names = set(read_arrays()[0].tolist())
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

    def blocks(split: str) -> Opener:
        def read() -> Iterator[Block]:
            images, labels = read_arrays(f"x_{split}", f"y_{split}")
            where = f"{path}, x_{split}"
            one_each = labels.ndim > 0 and labels.size == len(labels)
            if not one_each or not np.issubdtype(labels.dtype, np.integer):
                raise DataError(f"{path}, y_{split} must be one integer per image.")
            labels = labels.reshape(-1)
            pixels = _as_uint8(images, where)
            if len(pixels) != len(labels):
                raise DataError(f"{where} has {len(pixels)} images for {len(labels)} labels.")
            if len(labels) and not -1 <= labels.min() <= labels.max() <= MOST_CLASSES:
                raise no_label(labels[(labels < -1) | (labels > MOST_CLASSES)][0], where)
            yield Block(pixels, labels.astype(np.int64))

        return read

    openers = {split: blocks(name) for split, name in splits.items()}
    return DataSource(openers, None, ("npz", *stats_of([path])))


def _as_uint8(images: np.ndarray, where: str) -> np.ndarray:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[-1] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise DataError(
            f"{where} has the shape {images.shape}; wanted is n x size x size, "
            "n x size x size x channels or n x channels x size x size, with 1 or 3 channels."
        )
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
