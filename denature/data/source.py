"""What a reader makes of files: a data set that has not been decoded yet."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from denature.core.errors import DataError
from denature.data.decode import Block, Encoded

Opener: TypeAlias = Callable[[], Iterable[Encoded] | Iterable[Block]]

MOST_CLASSES = 100_000
"""A larger label is an identifier or a time in the wrong column."""


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that has not been read yet."""

    splits: Mapping[str, Opener]
    """Of train, test and validation those that exist."""
    classes: tuple[str, ...] | None
    """Class names in label order, or names of landmarks; None where the source has none."""
    fingerprint: tuple[Any, ...]
    """Changes when anything does that a reader opens; cheap."""
    total: int | None = None
    """Images in all splits, where that is known beforehand."""
    landmarks: bool = False
    """Whether labels are coordinates, not classes."""
    labelled: bool = True
    """Whether there are labels; without, images can be asked about and nothing more."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many files, folders or images are not read, by reason."""
    told: tuple[str, ...] = ()
    """What else is worth telling, in lines."""


def stats_of(files: Iterable[Path]) -> list[tuple[str, int, int, int, int]]:
    """Name, size, times and inode of each file, behind links: a link that changes is another file.

    Files of equal size and time may change places, where only the inode tells them apart, or be
    written over, where only the time of change does.
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
    r"""A file's name as Unicode: bytes that are not UTF-8 are spelt out, as in `caf\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def spell(left_out: Mapping[str, int]) -> str:
    """What was left out, by reason: `3 hidden, 1 .txt`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())


def no_label(label: object, where: str) -> DataError:
    return DataError(
        f"{where}: the label is {label!r}; wanted is a whole number from 0 to classes - 1 "
        f"(-1 where a test image has none), and at most {MOST_CLASSES:,} classes."
    )


def line_of(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
