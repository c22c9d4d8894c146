"""Class names and label numbers of tables: from cells, metadata and lists of classes."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from denature.core.classes import composed
from denature.core.errors import DataError, brief
from denature.core.untrusted import MIB, read_bytes
from denature.data.readers.columns import Columns, check_landmarks, is_truth
from denature.data.readers.splits import has_labels
from denature.data.source import MOST_CLASSES

CLASS_LIST = "classes.txt"

MOST_LIST = 4 * MIB
"""Bytes of a list of classes at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelColumn:
    """The labels of a split; they are read only where they say something about the classes."""

    where: object
    """The data set or its first file, for errors."""
    rows: int
    distinct: Callable[[], set[Any]]
    """The names or numbers that occur."""
    batches: Callable[[], Iterable[Any]]
    """Arrow arrays of all labels."""


def classes_of(
    labels: Mapping[str, LabelColumn],
    columns: Columns,
    schema: Any,
    listed: tuple[str, ...] | None,
    where: object,
) -> tuple[tuple[str, ...] | None, list[str]]:
    """The class names of tables, and the splits whose images have no labels.

    Args:
        labels: the column of labels by split.
        columns: its name and kind.
        schema: of the first table of the training split.
        listed: class names in label order, of its metadata or of a list beside it.
        where: the data set, for errors.

    Returns:
        The names in label order, None where labels are numbers without names or landmarks; and
        splits other than the training split.

    Raises:
        DataError: texts, numbers or lists that are no labels, or a class that training lacks.
    """
    train = labels.get("train")
    rows = 0 if train is None else train.rows
    if columns.kind == "names":
        found = {split: column.distinct() for split, column in labels.items()}
        names = _named(found.get("train", set()), rows, listed, where, columns)
        others, known = [split for split in found if split != "train"], numbers_of(names).keys()
        return names, [s for s in others if not has_labels(found[s], known, f"The {s} split")]
    if is_truth(schema, columns.label):
        return listed or ("False", "True"), []
    if train is not None and columns.kind == "landmarks":
        check_landmarks(train.batches(), columns, train.where)
    elif columns.guessed and listed is None:
        _check_numbers(set() if train is None else train.distinct(), rows, where, columns)
    return listed, []


def _named(
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


def _check_numbers(found: set[int], images: int, where: object, columns: Columns) -> None:
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
