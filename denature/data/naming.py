"""What the classes of a table are called, and which cells name none."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from denature.core.classes import composed
from denature.core.errors import DataError
from denature.data.columns import Columns
from denature.data.source import MOST_CLASSES
from denature.data.splits import few

CLASS_LIST = "classes.txt"


def named_classes(
    found: set[str],
    images: int,
    listed: tuple[str, ...] | None,
    where: object,
    columns: Columns,
) -> tuple[str, ...]:
    """Names as classes: in the order of a list of them, else sorted."""
    # A text that nearly every image has for itself is a caption or a file's name.
    if len(found) > MOST_CLASSES or (columns.guessed and 2 * len(found) > images):
        raise DataError(
            f"The column {columns.label} of {where} holds {len(found):,} different texts for "
            f"{images:,} images, which look like no classes. Say which column holds the label "
            "with --label-column."
        )
    if listed is None:
        return tuple(sorted(found))
    if strange := sorted(found - numbers_of(listed).keys()):
        raise DataError(
            f"The column {columns.label} of {where} holds {few(strange)}, which the list of "
            f"classes ({few(listed)}) lacks. Correct the list, or remove it."
        )
    return listed


def no_counts(found: set[int], images: int, where: object, columns: Columns) -> None:
    """Raise where the numbers in a column that was guessed count something else than classes.

    Nearly every image has its own, or most of the numbers up to the highest are of no image.
    """
    if found and not max(found) < 2 * len(found) <= images:
        raise DataError(
            f"The column {columns.label} of {where} holds {len(found):,} different numbers, up to "
            f"{max(found)}, for {images:,} images, which look like no classes. Say which column "
            "holds the label with --label-column."
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
        DataError: there are several and they differ, or one cannot be read for certain.
    """
    top = root if root.is_dir() else root.parent
    folders: dict[Path, None] = {}
    for shard in shards:
        depth = len(shard.parent.relative_to(top).parts)
        folders |= dict.fromkeys([shard.parent, *shard.parent.parents][: depth + 1])
    lists = [one for folder in sorted(folders) if (one := folder / CLASS_LIST).is_file()]
    named = {listed: _lines_of(listed) for listed in lists}
    if len(set(named.values())) > 1:
        raise DataError(
            f"{few(str(listed) for listed in named)} differ; one number would stand for two "
            "classes. Keep one of them."
        )
    return next(iter(named.values()), None)


def _lines_of(listed: Path) -> tuple[str, ...]:
    """The names in a list: one a line in label order, or each behind its number."""
    lines = listed.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = tuple(composed(line.strip()) for line in lines if line.strip())
    found = [re.fullmatch(r"([0-9]+)(?:\s*[:,)]|\.?\s)\s*(.*)", name) for name in names]
    numbered = {int(match[1]): match[2] for match in found if match and match[2]}
    if len(numbered) == len(names) and [*sorted(numbered)] == [*range(1, len(names) + 1)]:
        raise DataError(
            f"{listed} numbers its classes from 1, and labels count from 0. Number them from 0, or "
            "leave the numbers out and write one name a line in the order of the labels."
        )
    if len(numbered) == len(names) and [*sorted(numbered)] == [*range(len(names))]:
        names = tuple(numbered[number] for number in range(len(names)))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{listed} names {few(twice)} more than once; a class has one name. Correct the list."
        )
    return names
