"""A digest of all rows of a database, and a file beside it that names the last one.

The digest is the sum of the hashes of all rows, so each change costs the hashes of the changed rows
only. It finds damage, lost transactions and mixed-up files; an author of both files can forge it.
"""

import hashlib
import os
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, final

import msgspec

from denature.core.errors import RunError

BYTES = 32

_ENCODE = msgspec.msgpack.Encoder().encode


def row_hash(table: str, row: Sequence[object]) -> int:
    """Hash of a table's name and the values of a row: None, int, float, str or bytes."""
    encoded = _ENCODE((table, row))
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=BYTES).digest(), "little")


@final
class RunningDigest:
    """The digest of some tables, which triggers of this connection update with each row.

    Args:
        db: the connection.
        tables: names of existing tables of the main database.
    """

    def __init__(self, db: sqlite3.Connection, tables: tuple[str, ...]) -> None:
        self._db, self._tables, self._value = db, tables, 0
        self.changed = False
        """Whether a row was written since this was last set to False."""
        db.create_function("digest_rows", -1, self._count)
        for table in tables:
            columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
            old, new = (", ".join(f"{row}.{name}" for name in columns) for row in ("OLD", "NEW"))
            for event, counted in (
                ("INSERT", f"0, {new}"),
                ("UPDATE", f"{len(columns)}, {old}, {new}"),
                ("DELETE", f"{len(columns)}, {old}"),
            ):
                db.execute(
                    f"CREATE TEMP TRIGGER digest_{table}_{event} AFTER {event} ON main.{table} "
                    f"BEGIN SELECT digest_rows('{table}', {counted}); END"
                )

    def _count(self, table: str, removed: int, *values: object) -> None:
        """Subtract the row of the first `removed` values, and add that of the others."""
        if removed:
            self._value -= row_hash(table, values[:removed])
        if removed < len(values):
            self._value += row_hash(table, values[removed:])
        self.changed = True

    @property
    def value(self) -> bytes:
        return (self._value % (1 << 8 * BYTES)).to_bytes(BYTES, "little")

    def reset(self, value: bytes) -> None:
        """Return to an earlier value, as after a rollback."""
        self._value, self.changed = int.from_bytes(value, "little"), False

    def scan(self) -> bytes:
        """The digest of the rows that are there."""
        total = 0
        for table in self._tables:
            for row in self._db.execute(f"SELECT * FROM {table}"):
                total += row_hash(table, row)
        return (total % (1 << 8 * BYTES)).to_bytes(BYTES, "little")


class Commit(NamedTuple):
    """A transaction by its number, from 1 on, and the digest after it."""

    number: int
    digest: bytes


@final
class Anchor:
    """The last commit of a database, in one line of a file beside it.

    The line has a fixed length and is overwritten in place, so that a kill leaves the old line or
    the new one, and a full disk has room for it. A power cut may leave an older line.

    Args:
        path: the file; see `read` and `write`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def read(self) -> Commit | None:
        """The commit that the file names; None without a file.

        Raises:
            RunError: the file holds something else.
            OSError: the file cannot be read.
        """
        try:
            line = self.path.read_bytes()
        except FileNotFoundError:
            return None
        found = re.fullmatch(rb"denature ledger (\d{20}) ([0-9a-f]{64})\n", line)
        if found is None:
            raise RunError(
                f"{self.path} is damaged: it holds {len(line)} bytes that name no commit of a "
                "ledger. Restore it from a copy; or remove it, if the ledger beside it is whole."
            )
        return Commit(int(found[1]), bytes.fromhex(found[2].decode()))

    def write(self, commit: Commit) -> None:
        """Name a commit that is on the disk.

        Raises:
            OSError: the file cannot be written.
        """
        line = f"denature ledger {commit.number:020} {commit.digest.hex()}\n".encode()
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            os.pwrite(self._file, line, 0)
            os.fsync(self._file)
        else:
            os.pwrite(self._file, line, 0)

    def close(self) -> None:
        """Put the line onto the disk."""
        if self._file is not None:
            with closing(os.fdopen(self._file, "rb")) as file:
                os.fsync(file.fileno())
            self._file = None
