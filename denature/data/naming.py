"""What the classes of a table are called, and which cells name none."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

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


def listed_classes(path: Path) -> tuple[str, ...] | None:
    """Class names from a `classes.txt` beside the shards, one a line in label order."""
    listed = path / CLASS_LIST if path.is_dir() else path.with_name(CLASS_LIST)
    if not listed.is_file():
        return None
    lines = listed.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{listed} names {few(twice)} more than once; a class has one name. Correct the list."
        )
    return names
