"""The catalogue of readers: names and paths resolved to splits of encoded or decoded images.

A reader determines splits, classes and files without decoding a pixel; the cache requests the
images once.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from denature.core.errors import DataError, unknown
from denature.core.progress import SILENT, Progress
from denature.core.sniffing import head_of, instead_of
from denature.data.config import DataConfig
from denature.data.download import PUBLISHED, fetched
from denature.data.readers.archives import archived
from denature.data.readers.digits import digits
from denature.data.readers.drawn import drawn_faces
from denature.data.readers.folders import image_folder
from denature.data.readers.hub import hub
from denature.data.readers.npz import npz
from denature.data.readers.parquet import parquet
from denature.data.readers.saved import saved
from denature.data.readers.trees import TAR_SUFFIXES
from denature.data.source import DataSource, Reader

NAMED: Mapping[str, Callable[[], DataSource]] = {"digits": digits, "drawn-faces": drawn_faces}
"""Sources without a path, by name."""

READERS: tuple[Reader, ...] = (npz, archived, saved, parquet, image_folder)
"""Readers of files and folders, in the order in which they are tried."""


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
    path = _path_of(name, progress)
    for reader in READERS:
        if (found := reader(path, config)) is not None:
            return found
    packed = path.suffix.lower() in (*TAR_SUFFIXES, ".zip")
    if packed and (instead := instead_of(head_of(path))) is not None:
        raise DataError(f"{path} {instead}.")
    raise DataError(
        f"{path} is no folder, .npz, .parquet, .arrow or published archive. Data can be: "
        f"{', '.join((*NAMED, *PUBLISHED))}; a folder of Parquet shards or of images, or one of "
        "save_to_disk; an .npz; an archive of CIFAR or Tiny-ImageNet; hf:owner/name."
    )


def _path_of(name: str, progress: Progress) -> Path:
    """The path that a source names, or that of a published archive."""
    if "\0" in name:
        raise DataError(f"{name!r} has a NUL character, which no path can hold.")
    path = Path(name).expanduser()
    if not path.exists() and name in PUBLISHED:
        path = fetched(name, progress)
    if not path.exists():
        if re.fullmatch(r"[\w-]+", name):
            error = unknown("data set", name, {*NAMED, *PUBLISHED})
            raise DataError(f"{error} There is no file or folder {path.absolute()} either.")
        named = ", ".join((*NAMED, *PUBLISHED))
        raise DataError(
            f"There is no file or folder {path.absolute()}. Wanted is the path of a data set, "
            f"hf:owner/name, or one of {named}."
        )
    if not path.is_file() and not path.is_dir():
        raise DataError(f"{path} is a pipe, a device or a socket; wanted is a file or a folder.")
    return path
