"""Tables of images and labels, in Parquet files or in what `datasets` saves on a disk."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from denature.core.errors import DataError, brief
from denature.core.sniffing import head_of, instead_of
from denature.core.text import line_of
from denature.data.config import DataConfig
from denature.data.decode import Encoded
from denature.data.readers import arrow, pages
from denature.data.readers.cells import (
    LabelDecoder,
    encoded_image,
    given_values,
    path_in,
    plain_label,
)
from denature.data.readers.columns import (
    Columns,
    check_same_labels,
    class_names,
    columns_of,
    is_unlabelled,
)
from denature.data.readers.naming import LabelColumn, classes_of, listed_classes, numbers_of
from denature.data.source import MOST_CLASSES, DataSource, Opener, stats_of


class TableFormat(Protocol):
    """A format of files with tables: the modules `pages` and `arrow`."""

    NAME: str

    def schema_of(self, file: Path) -> Any: ...

    def rows_of(self, file: Path) -> int: ...

    def batches(self, file: Path, columns: Iterable[str]) -> Iterator[Any]: ...

    def lacks_values(self, file: Path, column: str, part: str) -> bool: ...


FORMATS: Mapping[str, TableFormat] = {".parquet": pages, arrow.SUFFIX: arrow}
"""Formats by the suffix of their files."""


def table_source(
    path: Path, shards: dict[str, list[Path]], config: DataConfig, left_out: Counter[str]
) -> DataSource:
    """The source of tables that were found.

    Args:
        path: the data set, for errors and for lists of classes.
        shards: files by split; none may be an empty list.
        config: names the columns, where several could hold images or labels.
        left_out: what was not read so far, by reason.

    Raises:
        DataError: damaged files, or columns that could be read in several ways.
    """
    files = list(chain.from_iterable(shards.values()))
    rows = {file: _rows_of(file) for file in files}
    first = shards.get("train", files)[0]
    columns = columns_of(_schema(first), config, path)
    for split, parts in list(shards.items()):
        if not _compatible(parts, columns, first, trained=split == "train"):
            left_out[f"unlabelled {split} image"] += sum(rows[file] for file in parts)
            del shards[split]
    held = {
        split: LabelColumn(
            where=first,
            rows=sum(rows[file] for file in parts),
            distinct=partial(_distinct, parts, columns.label),
            batches=partial(_batches, parts, columns.label),
        )
        for split, parts in shards.items()
    }
    schema = _schema(first)
    listed = class_names(schema, columns.label) or listed_classes(path, files)
    names, unlabelled = classes_of(held, columns, schema, listed, path)
    for split in unlabelled:
        left_out[f"unlabelled {split} image"] += sum(rows[file] for file in shards.pop(split))
    labels = LabelDecoder(columns.kind, numbers_of(names or ()))
    files = list(chain.from_iterable(shards.values()))
    pictures = [picture for file in files for picture in _pictures(file, columns.image)]
    stats = [(s, *stat) for s, parts in shards.items() for stat in stats_of(parts)]
    return DataSource(
        {split: _opener(parts, columns, labels, split) for split, parts in shards.items()},
        names,
        (
            _format(first).NAME.lower(),
            columns.image,
            columns.label,
            names,
            *stats,
            *stats_of(pictures),
        ),
        sum(rows[file] for file in files),
        columns.kind == "landmarks",
        left_out=left_out,
        notes=columns.notes,
    )


def _opener(parts: Sequence[Path], columns: Columns, labels: LabelDecoder, split: str) -> Opener:
    from pyarrow import ArrowException

    def rows() -> Iterator[Encoded]:
        for file in parts:
            number = 0
            try:
                wanted = [*_image_parts(_schema(file), columns.image), columns.label]
                for batch in _format(file).batches(file, wanted):
                    cells = zip(batch[columns.image], batch[columns.label], strict=True)
                    for cell, value in cells:
                        where = f"{file}, row {number}"
                        given = plain_label(value, columns.kind, where)
                        label = labels.of(given, where, trained=split == "train")
                        yield encoded_image(cell.as_py(), label, where, [file.parent])
                        number += 1
            except (OSError, ArrowException) as error:
                raise DataError(
                    f"{file} is damaged after row {number}: {line_of(error)}. Copy it again."
                ) from None

    return rows


def _image_parts(schema: Any, image: str) -> list[str]:
    """The column of images, or the bytes and paths in it: other parts are not read."""
    from pyarrow import types

    kind = schema.field(image).type
    if not types.is_struct(kind):
        return [image]
    held = {kind.field(place).name for place in range(kind.num_fields)}
    return [f"{image}.{part}" for part in ("bytes", "path") if part in held]


def _format(file: Path) -> TableFormat:
    return FORMATS[file.suffix.lower()]


def _rows_of(file: Path) -> int:
    from pyarrow import ArrowException

    form = _format(file)
    try:
        return form.rows_of(file)
    except (OSError, ArrowException) as error:
        found = file.is_file() and instead_of(head_of(file), f"Wanted is a file of {form.NAME}")
        why = f"it {found}" if found else f"{line_of(error)}. Copy it again: it may be cut off"
        raise DataError(f"{file} cannot be read as {form.NAME}: {why}.") from None


def _schema(file: Path) -> Any:
    return _format(file).schema_of(file)


def _compatible(parts: Sequence[Path], columns: Columns, first: Path, *, trained: bool) -> bool:
    """Whether a split's shards have the same columns as the first; False where it has no labels.

    Raises:
        DataError: a shard has other columns.
    """
    labelled = []
    for file in parts:
        schema = _schema(file)
        missing = {columns.image, columns.label} - set(schema.names)
        absent = is_unlabelled(schema, columns.label)
        labelled.append(not absent)
        if missing - (set() if trained else {columns.label}):
            raise DataError(
                f"{file} lacks the column {', '.join(sorted(missing))}, which {first} has. "
                "Shards of one data set must have the same columns."
            )
        if not absent:
            check_same_labels(schema, _schema(first), columns.label, file, first)
    if trained or all(labelled):
        return True
    if any(labelled):
        raise DataError(
            f"{brief(str(f) for f, good in zip(parts, labelled, strict=True) if not good)} has no "
            f"labels in the column {columns.label}, and other shards of that split do."
        )
    return False


def _batches(parts: Iterable[Path], column: str) -> Iterator[Any]:
    for file in parts:
        for batch in _format(file).batches(file, [column]):
            yield batch[column]


def _distinct(parts: Iterable[Path], column: str) -> set[Any]:
    """The names or numbers in a column, without those that are absent.

    Of more than classes can be, the first are returned.
    """
    found: set[Any] = set()
    for batch in _batches(parts, column):
        for value in batch.unique():
            found.add(plain_label(value, "names", f"The column {column}"))
        if len(found) > MOST_CLASSES + 2:
            break
    return given_values(found)


def _pictures(file: Path, image: str) -> Iterator[Path]:
    """Image files that rows name; the cache must change with them."""
    from pyarrow import types

    kind = _schema(file).field(image).type
    column = image
    if types.is_struct(kind) and _format(file).lacks_values(file, image, "bytes"):
        column = f"{image}.path"
    elif not types.is_string(kind) and not types.is_large_string(kind):
        return
    row = 0
    for batch in _format(file).batches(file, [column]):
        for cell in batch[image]:
            held = cell["path"] if column != image and cell.is_valid else cell
            path = held.as_py()
            if path and (picture := path_in(file.parent, path, f"{file}, row {row}")).is_file():
                yield picture
            row += 1
