"""Class names and label numbers of tables: from cells, metadata and lists of classes."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from denature.core.classes import composed
from denature.core.errors import DataError, brief
from denature.core.untrusted import MIB, read_bytes
from denature.data.readers.columns import Columns
from denature.data.source import MOST_CLASSES

CLASS_LIST = "classes.txt"

MOST_LIST = 4 * MIB
"""Bytes of a list of classes at most."""


def named_classes(
    found: set[str],
    images: int,
    listed: tuple[str, ...] | None,
    where: object,
    columns: Columns,
) -> tuple[str, ...]:
    """Class names in the order of `listed`, where there is a list, else sorted.

    Raises:
        DataError: too many names for classes, or names that the list lacks.
    """
    # A text that is unique to nearly every image is a caption or the name of a file.
    if len(found) > MOST_CLASSES or (columns.guessed and 2 * len(found) > images):
        raise DataError(
            f"The column {columns.label} of {where} holds {len(found):,} different texts for "
            f"{images:,} images, which look like no classes. Name the column of the labels "
            "with --label-column."
        )
    if listed is None:
        return tuple(sorted(found))
    if strange := sorted(found - numbers_of(listed).keys()):
        raise DataError(
            f"The column {columns.label} of {where} holds {brief(strange)}, which the list of "
            f"classes ({brief(listed)}) lacks. Correct the list, or remove it."
        )
    return listed


def check_numbers(found: set[int], images: int, where: object, columns: Columns) -> None:
    """Check that the numbers in a guessed column can be class numbers.

    Raises:
        DataError: nearly every image has a number of its own, or most numbers up to the highest
            do not occur.
    """
    if found and not max(found) < 2 * len(found) <= images:
        raise DataError(
            f"The column {columns.label} of {where} holds {len(found):,} different numbers, up to "
            f"{max(found)}, for {images:,} images, which look like no classes. Name the column "
            "of the labels with --label-column."
        )


def numbers_of(classes: Iterable[str]) -> dict[str, int]:
    """Labels by name; of a line in a list such as `n01443537<tab>goldfish` the first word too."""
    numbers: dict[str, int] = {}
    for label, name in enumerate(classes):
        numbers.setdefault(name.split("\t")[0], label)
        numbers[name] = label
    return numbers


def listed_classes(root: Path, shards: Iterable[Path]) -> tuple[str, ...] | None:
    """Class names from a `classes.txt` beside the shards or in a folder between them and the root.

    Raises:
        DataError: several lists differ, or a list is ambiguous.
    """
    top = root if root.is_dir() else root.parent
    folders: dict[Path, None] = {}
    for shard in shards:
        depth = len(shard.parent.relative_to(top).parts)
        folders |= dict.fromkeys([shard.parent, *shard.parent.parents][: depth + 1])
    paths = [folder / CLASS_LIST for folder in sorted(folders)]
    named = {path: _lines_of(path) for path in paths if path.is_file()}
    if len(set(named.values())) > 1:
        raise DataError(
            f"{brief(str(path) for path in named)} differ; one number would stand for two "
            "classes. Keep one of them."
        )
    return next(iter(named.values()), None)


def _lines_of(listed: Path) -> tuple[str, ...]:
    """The names in a list: one a line in label order, or each after its number, from 0."""
    try:
        lines = read_bytes(listed, MOST_LIST).decode("utf-8-sig", "replace").splitlines()
    except OSError as error:
        raise DataError(f"{listed} cannot be read: {error}.") from None
    names = tuple(composed(line.strip()) for line in lines if line.strip())
    found = [re.fullmatch(r"([0-9]+)(?:\s*[:,)]|\.?\s)\s*(.*)", name) for name in names]
    numbered = {int(match[1]): match[2] for match in found if match and match[2]}
    if len(numbered) == len(names) and [*sorted(numbered)] == [*range(1, len(names) + 1)]:
        raise DataError(
            f"{listed} numbers its classes from 1, and labels count from 0. Number them from 0, or "
            "omit the numbers and write one name a line in the order of the labels."
        )
    if len(numbered) == len(names) and [*sorted(numbered)] == [*range(len(names))]:
        names = tuple(numbered[number] for number in range(len(names)))
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{listed} names {brief(repeated)} more than once; a class has one name. Correct the "
            "list."
        )
    return names
