"""Arrow files in the format of streams, as `datasets` writes them.

They are mapped into memory, and nothing in them is executed. Columns may be packed and then unpack
to any size, so packed batches are refused by a look at their headers (Apache Arrow columnar format,
Message.fbs, in the encoding of FlatBuffers).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from denature.core.errors import DataError
from denature.core.text import line_of
from denature.core.untrusted import open_regular
from denature.data.readers.pages import MOST_BATCH, MOST_FOOTER, MOST_ROWS

NAME, SUFFIX = "Arrow", ".arrow"

DICTIONARY, RECORDS = 2, 3
"""Kinds of messages that hold values."""


def schema_of(file: Path) -> Any:
    """The schema of a file, as `pyarrow.Schema`."""
    import pyarrow as pa

    with _sound(file), _mapped(file) as source, pa.ipc.open_stream(source) as stream:
        schema = stream.schema
        _names(schema)  # which need not be texts
        return schema


def _names(fields: Iterable[Any]) -> list[str]:
    """Names of fields and of those in them."""
    from pyarrow import types

    found = []
    for field in fields:
        inner = range(field.type.num_fields) if types.is_struct(field.type) else ()
        found += [field.name, *_names(field.type.field(place) for place in inner)]
    return found


def rows_of(file: Path) -> int:
    """Number of rows of a file, all of whose batches are looked at.

    Raises:
        OSError, pyarrow.ArrowException: the file cannot be read.
        DataError: a batch is packed, or there are too many rows.
    """
    import pyarrow as pa

    rows = 0
    with _mapped(file) as source:
        for message in pa.ipc.MessageReader.open_stream(source):
            if message.metadata.size > MOST_FOOTER:
                raise DataError(f"{file} has a description of {message.metadata.size:,} bytes.")
            rows += _rows_in(message.metadata.to_pybytes(), file)
            if rows > MOST_ROWS:
                raise DataError(
                    f"{file} declares {rows:,} rows; wanted are at most {MOST_ROWS:,}. Write "
                    "several files."
                )
    return rows


def batches(file: Path, columns: Iterable[str]) -> Iterator[Any]:
    """Some columns of a file in batches of bounded length, as `pyarrow.RecordBatch`.

    Args:
        file: the file.
        columns: names of columns, or paths of their parts, such as `image.bytes`; of a part the
            whole column is returned, which takes no memory.

    Raises:
        DataError: the file is damaged, a batch is packed, or there are too many rows.
    """
    import pyarrow as pa

    rows_of(file)  # before the first batch is read
    with _sound(file), _mapped(file) as source, pa.ipc.open_stream(source) as stream:
        known = set(stream.schema.names)
        wanted = [name if name in known else name.partition(".")[0] for name in columns]
        for batch in stream:
            chosen = batch.select(list(dict.fromkeys(wanted)))
            chosen.validate(full=True)  # offsets of a damaged file may lie outside of its buffers
            for start in range(0, len(chosen), MOST_BATCH):
                yield chosen.slice(start, MOST_BATCH)


def lacks_values(file: Path, column: str, part: str) -> bool:
    """Whether some rows of a column of structs have no value in a part."""
    return any(batch[column].field(part).null_count for batch in batches(file, [column]))


@contextmanager
def _sound(file: Path) -> Iterator[None]:
    """Turn what a damaged file causes into one kind of error."""
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{file} is damaged: {line_of(error)}. Copy it again.") from None


@contextmanager
def _mapped(file: Path) -> Iterator[Any]:
    import pyarrow as pa

    with open_regular(file):  # no pipe and no device
        pass
    with pa.memory_map(str(file)) as source:
        yield source


def _rows_in(header: bytes, file: Path) -> int:
    """Rows that a message declares; 0 for a schema and for a dictionary.

    Raises:
        DataError: the message is damaged, or its values are packed.
    """
    try:
        message = _Table(header, int.from_bytes(header[:4], "little"))
        kind = message.number(1, 1)
        if kind not in (DICTIONARY, RECORDS):
            return 0
        batch = message.table(2)
        if kind == DICTIONARY and batch is not None:
            batch = batch.table(1)
        packed = batch is not None and batch.table(3) is not None
        rows = 0 if batch is None or kind == DICTIONARY else batch.number(0, 8)
    except (IndexError, ValueError):
        raise DataError(f"{file} is damaged: a message has no header. Copy it again.") from None
    if packed:
        raise DataError(
            f"{file} is packed; wanted are plain batches, as save_to_disk of Hugging Face writes "
            "them. Write it without compression."
        )
    return rows


class _Table:
    """A table in the encoding of FlatBuffers: fields by number, absent where they have no place."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._read(at, 4, signed=True)

    def _read(self, at: int, size: int, *, signed: bool = False) -> int:
        if not 0 <= at <= len(self._data) - size:
            raise IndexError(at)
        return int.from_bytes(self._data[at : at + size], "little", signed=signed)

    def _place(self, field: int) -> int:
        """Place of a field; 0 where it is absent."""
        entry = 4 + 2 * field
        if entry + 2 > self._read(self._fields, 2):
            return 0
        offset = self._read(self._fields + entry, 2)
        return self._at + offset if offset else 0

    def number(self, field: int, size: int) -> int:
        place = self._place(field)
        if not place:
            return 0
        if (found := self._read(place, size, signed=True)) < 0:
            raise ValueError(found)
        return found

    def table(self, field: int) -> "_Table | None":
        place = self._place(field)
        return _Table(self._data, place + self._read(place, 4)) if place else None
