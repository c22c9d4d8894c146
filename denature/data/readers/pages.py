"""Parquet files, opened after a look at the sizes that their pages declare.

A column may unpack to any size: a page of zeros is packed a thousand times, and a dictionary stores
once what each row repeats. Arrow allocates what pages declare, so their headers are read first
(Apache Parquet format, PageHeader in the compact protocol of Thrift).
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from denature.core.errors import DataError
from denature.core.untrusted import MIB, open_regular

MOST_FOOTER = 16 * MIB
"""Bytes of the description at a file's end at most."""

MOST_CONTAINER = 100_000
"""Columns or groups of rows in the description at most."""

MOST_ROWS = 2**24
"""Rows of a file at most: 16 million."""

MOST_PAGE = 8 * MIB
"""Bytes of an unpacked page at most, unless it is packed to half of them or more."""

MOST_LISTED = 2**23
"""Numbers in the lists of a column at most."""

MOST_HEADER = 64 * 1024
"""Bytes of a page's header at most; statistics may be in it."""

BATCH_BYTES = 16 * MIB
"""Bytes of a batch at most, unless one cell has more."""

MOST_BATCH = 4096
"""Rows of a batch at most."""

TEXT = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")


NAME = "Parquet"


def schema_of(file: Path) -> Any:
    """The Arrow schema of a file."""
    return open_parquet(file).schema_arrow


def rows_of(file: Path) -> int:
    """Number of rows that a file declares."""
    return int(open_parquet(file).metadata.num_rows)


def lacks_values(file: Path, column: str, part: str) -> bool:
    """Whether some rows of a column of structs have no value in a part, by the file's statistics.

    A struct without another part than that is not looked at.
    """
    metadata = open_parquet(file).metadata
    leaves = metadata.schema
    names = [leaves.column(place).path for place in range(len(leaves))]
    if f"{column}.path" not in names:
        return False
    place = names.index(f"{column}.{part}")
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(place).statistics
        if statistics is None or not statistics.has_null_count or statistics.null_count:
            return True
    return False


def open_parquet(file: Path) -> Any:
    """A file as `pyarrow.parquet.ParquetFile`, whose description is of bounded size.

    Raises:
        OSError, pyarrow.ArrowException: the file cannot be read.
        DataError: its description is too long, or declares too many rows.
    """
    import pyarrow.parquet as pq

    with open_regular(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        opened.seek(max(0, size - 8))
        footer = int.from_bytes(opened.read(4), "little")
    if MOST_FOOTER < footer < size:
        raise DataError(
            f"{file} has a description of {footer:,} bytes; wanted are at most {MOST_FOOTER:,}. "
            "Write it with fewer columns and groups of rows."
        )
    found = pq.ParquetFile(
        file, thrift_container_size_limit=MOST_CONTAINER, thrift_string_size_limit=MOST_FOOTER
    )
    if (rows := found.metadata.num_rows) > MOST_ROWS:
        raise DataError(
            f"{file} declares {rows:,} rows; wanted are at most {MOST_ROWS:,}. Write several files."
        )
    return found


def batches(file: Path, columns: Iterable[str]) -> Iterator[Any]:
    """Some columns of a file in batches of bounded size, as `pyarrow.RecordBatch`.

    Args:
        file: the file.
        columns: names of columns, or paths of their parts, such as `image.bytes`.

    Raises:
        OSError, pyarrow.ArrowException: the file is damaged.
        DataError: a page unpacks too far, or a column has too many numbers.
    """
    names = list(columns)
    found = open_parquet(file)
    yield from found.iter_batches(_rows(file, found.metadata, names), columns=names)


def _rows(file: Path, metadata: Any, names: list[str]) -> int:
    """Rows of a batch: a cell of text may be as large as the largest page."""
    largest = listed = 0
    with open_regular(file) as opened:
        for chunk in _chunks(metadata, names):
            for page in _pages(opened, chunk, file):
                if page.unpacked > max(MOST_PAGE, 2 * page.packed):
                    raise DataError(
                        f"{file}, column {chunk.path}: a page unpacks {page.packed:,} bytes to "
                        f"{page.unpacked:,}; wanted are at most {MOST_PAGE:,}. Write smaller "
                        "pages, such as by data_page_size of pyarrow."
                    )
                largest = max(largest, page.unpacked) if chunk.texts else largest
                listed += page.values if chunk.repeats else 0
    if listed > MOST_LISTED:
        raise DataError(
            f"{file} declares {listed:,} numbers in lists; wanted are at most {MOST_LISTED:,}. "
            "Write several files."
        )
    return min(MOST_BATCH, max(1, BATCH_BYTES // max(1, largest)))


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A column in a group of rows."""

    path: str
    start: int
    end: int
    texts: bool
    repeats: bool


def _chunks(metadata: Any, names: list[str]) -> Iterator[_Chunk]:
    schema = metadata.schema
    leaves = [schema.column(place) for place in range(metadata.num_columns)]
    wanted = [
        (place, leaf)
        for place, leaf in enumerate(leaves)
        if any(leaf.path == name or leaf.path.startswith(f"{name}.") for name in names)
    ]
    for group in range(metadata.num_row_groups):
        for place, leaf in wanted:
            column = metadata.row_group(group).column(place)
            if not metadata.row_group(group).num_rows and not column.num_values:
                continue  # an empty split, whose pages are never read
            start = column.data_page_offset
            if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
                start = column.dictionary_page_offset
            texts, repeats = leaf.physical_type in TEXT, leaf.max_repetition_level > 0
            yield _Chunk(leaf.path, start, start + column.total_compressed_size, texts, repeats)


class _Page(NamedTuple):
    unpacked: int
    packed: int
    values: int


def _pages(file: IO[bytes], chunk: _Chunk, path: Path) -> Iterator[_Page]:
    """The pages of a chunk, by their headers."""
    place = chunk.start
    while place < chunk.end:
        file.seek(place)
        reader = _Compact(file.read(min(MOST_HEADER, chunk.end - place)))
        try:
            header = reader.struct()
            counts = [header[n].get(1, 0) for n in (5, 7, 8) if isinstance(header.get(n), dict)]
            page = _Page(int(header[2]), int(header[3]), max(map(int, counts), default=0))
        except (IndexError, KeyError, ValueError, TypeError):
            raise DataError(
                f"{path}, column {chunk.path} is damaged: a page has no header. Copy it again."
            ) from None
        if page.unpacked < 0 or page.packed < 0 or page.values < 0:
            raise DataError(f"{path}, column {chunk.path} is damaged: a page has a negative size.")
        yield page
        place += reader.at + page.packed


DEEPEST = 8
"""Structs in each other at most; a page's header has three."""


class _Compact:
    """The values of a struct in Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _whole(self) -> int:
        found = self._varint()
        return (found >> 1) ^ -(found & 1)

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The fields by number; lists and texts are skipped."""
        if depth > DEEPEST:
            raise ValueError("nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._whole()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._whole()
        if kind in (7, 8):
            size = 8 if kind == 7 else self._varint()
            self.at += size
            if self.at > len(self._data):
                raise IndexError
            return None
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"a value of the kind {kind}, which no page has")
