"""What a reader of images is, and its result: a data set that has not been decoded yet."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from denature.core.errors import DataError
from denature.data.config import DataConfig
from denature.data.decode import DecodedBlock, Encoded

Opener: TypeAlias = Callable[[], Iterable[Encoded] | Iterable[DecodedBlock]]

MOST_CLASSES = 100_000
"""Most classes; a larger label is an identifier or a time in the wrong column."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """A data set that has not been decoded yet."""

    splits: Mapping[str, Opener]
    """Openers of those of train, test and validation that exist."""
    classes: tuple[str, ...] | None
    """Class names in label order, or names of landmarks; None where the source has none."""
    fingerprint: tuple[Any, ...]
    """Changes with every file that a reader opens; cheap to compute."""
    total: int | None = None
    """Number of images in all splits, where known beforehand."""
    landmarks: bool = False
    """Whether labels are coordinates, not classes."""
    labelled: bool = True
    """Whether there are labels; images without labels serve as queries only."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many files, folders or images are not read, by reason."""
    notes: tuple[str, ...] = ()
    """Further lines for the user."""

    def __post_init__(self) -> None:
        if bad := [name for name in self.classes or () if "\0" in name]:
            raise DataError(
                f"The class {bad[0]!r} has a NUL character in its name, which no record can hold; "
                "rename it."
            )


Reader: TypeAlias = Callable[[Path, DataConfig], DataSource | None]
"""From a path and options to a source; None where the path has another layout.

Raises a DataError if the path has the reader's layout, and is damaged or can be read in several
ways. A reader decodes nothing.
"""


def stats_of(files: Iterable[Path]) -> list[tuple[str, int, int, int, int]]:
    """Name, size, times and inode of each file, links resolved: a changed link is another file.

    Only the inode distinguishes files of equal size and time that change places, and only the time
    of change one that is overwritten.
    """
    folders: dict[Path, str] = {}
    stats = []
    for file in files:
        if file.parent not in folders:
            folders[file.parent] = os.path.realpath(file.parent)
        name = os.path.join(folders[file.parent], file.name)
        status = file.stat()
        name = os.path.realpath(name) if file.is_symlink() else name
        times = (status.st_mtime_ns, status.st_ctime_ns)
        stats.append((name, status.st_size, *times, status.st_ino))
    return stats


def legible(name: str) -> str:
    r"""A file's name as Unicode: bytes that are not UTF-8 are escaped, as in `caf\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def format_left_out(left_out: Mapping[str, int]) -> str:
    """Text of the counts by reason: `3 hidden, 1 .txt`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())


def no_label(label: object, where: str) -> DataError:
    return DataError(
        f"{where}: the label is {label!r}; wanted is a whole number from 0 to classes - 1 "
        f"(-1 where a test image has none), and at most {MOST_CLASSES:,} classes."
    )
