"""Cells of tables: images as bytes or paths, and labels as numbers, names or landmarks."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from denature.core.classes import composed
from denature.core.errors import DataError
from denature.data.decode import Encoded
from denature.data.landmarks import coordinates
from denature.data.readers.columns import MOST_COORDINATES, LabelKind
from denature.data.source import MOST_CLASSES, no_label


@dataclass(frozen=True, slots=True)
class LabelDecoder:
    """Turns the cells of a label column into labels."""

    kind: LabelKind
    numbers: Mapping[str, int]
    """Label of each name, where cells are names."""

    def of(self, cell: Any, where: str, *, trained: bool) -> int | np.ndarray:
        """A label; -1 where an image that is not trained on has none.

        Raises:
            DataError: the cell holds no label.
        """
        if self.kind == "landmarks":
            found = coordinates(cell, where)
            if len(found) > 2 and np.count_nonzero(found) == 1 and found.max() == 1:
                raise DataError(
                    f"{where}: the label is {str(cell)[:60]}, a class written one-hot; a list of "
                    "floats is read as landmarks. Write the number of the class instead."
                )
            return found
        absent = cell is None or cell != cell  # NaN
        if absent and not trained:
            return -1
        if self.kind == "names" and cell is not None:
            return self.numbers[composed(cell)]
        if isinstance(cell, float) and cell.is_integer():
            cell = int(cell)
        if not isinstance(cell, int) or not -1 <= cell <= MOST_CLASSES:
            raise no_label(cell, where)
        return int(cell)


LONGEST_TEXT = 4096
"""Bytes of a name or a path at most; paths of the system are no longer."""


def plain_label(cell: Any, kind: LabelKind, where: str) -> Any:
    """The value of an Arrow scalar that holds a label or a path, of bounded size.

    Raises:
        DataError: a text or a list is too long.
    """
    size, most = 0, LONGEST_TEXT
    if hasattr(cell, "dictionary"):
        cell = cell.value
    if cell.is_valid and kind == "landmarks":
        size, most = len(cell.values), MOST_COORDINATES
    elif cell.is_valid and hasattr(cell, "as_buffer"):
        size = cell.as_buffer().size
    if size > most:
        raise DataError(
            f"{where} has {size:,} {'numbers' if kind == 'landmarks' else 'bytes'} in the place of "
            f"a label or a path; wanted are at most {most:,}. Name the column with --label-column."
        )
    return cell.as_py()


def given_values(found: Iterable[Any]) -> set[Any]:
    """Names in composed form, or numbers; without None."""
    given = (composed(name) if isinstance(name, str) else name for name in found)
    return {name for name in given if name is not None}


def encoded_image(cell: Any, label: Any, where: str, folders: Sequence[Path] | None) -> Encoded:
    """Read a cell, which is {bytes, path}, bytes, or a path.

    A path must lie inside one of `folders`, such as that of the file that names it: data must not
    be able to read other files. A relative path begins at the first of them. None stands for paths
    of an object that the caller made.
    """
    path = ""
    if isinstance(cell, Mapping):
        path, cell = str(cell.get("path") or ""), cell.get("bytes")
        cell = (path or None) if cell is None else cell
    if isinstance(cell, str):
        if folders is None:
            return Encoded(Path(cell), label, where, cell)
        file = path_in(folders[0], cell, where).resolve()
        if not any(file.is_relative_to(folder.resolve()) for folder in folders):
            raise DataError(f"{where} points to {_short(cell)}, outside of {folders[0]}; refused.")
        return Encoded(file, label, f"{where} ({_short(cell)})", cell)
    if cell is None:
        raise DataError(f"{where} holds neither image bytes nor a path.")
    if not isinstance(cell, bytes):
        raise DataError(f"{where} holds {type(cell).__name__} where the bytes of an image belong.")
    return Encoded(cell, label, where, path.replace("\0", "\ufffd"))  # the cache holds no NUL


def path_in(folder: Path, text: str, where: str) -> Path:
    """The text of a cell as a path; the file need not exist.

    Raises:
        DataError: the text cannot be a path, such as a picture in base64.
    """
    try:
        if re.match(r"(?i)data:|[a-z][a-z0-9+.-]+://", text):
            raise ValueError(text)
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            (folder / text).stat()
    except (OSError, ValueError):
        raise DataError(
            f"{where} holds {_short(text)!r}, which is no path of an image file. Wanted are the "
            "bytes of images, or paths of files in the folder of the Parquet file; texts such as "
            "base64 are not decoded, nor is anything fetched."
        ) from None
    return folder / text


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
