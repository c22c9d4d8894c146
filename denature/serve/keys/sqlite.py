"""Accounts in a SQLite file, for any number of processes of one machine.

The journal is a write-ahead log, the only one of SQLite's that needs no wait for the disk at each
booking and still is whole after a power cut: 46,000 transactions a second where the journals
without shared memory do 100 to 1,500. Its index is memory that all processes map, and a process
ends with SIGBUS if the file behind it is cut off. Servers therefore open the file in a process of
its own: see `denature.serve.keys.process`.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TypeAlias, final

from denature.core.errors import ConfigError
from denature.serve.keys.base import (
    PATIENCE_S,
    Booking,
    Charge,
    Key,
    Keys,
    KeysUnavailable,
    after,
    check_account,
    digest_of,
    new_key,
)

TABLE = """
CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, digest TEXT UNIQUE,
used INTEGER NOT NULL DEFAULT 0, budget INTEGER, rate REAL, due REAL NOT NULL DEFAULT 0,
burst INTEGER) STRICT, WITHOUT ROWID
"""

Account: TypeAlias = tuple[Key, float]
"""An account, and the seconds by which it is ahead of its rate."""


@final
class SqliteKeys(Keys):
    """See `denature.serve.keys.base.Keys`.

    Args:
        path: the file.
        make: whether to create a missing file, readable by its owner alone.
        patience_s: seconds for which a locked file is waited for.

    Raises:
        ConfigError: the file cannot be created, or holds no keys.
    """

    def __init__(self, path: Path, *, make: bool = True, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        if make:
            _create(path)
        with self._transaction(write=make) as db:
            if make:
                db.execute(TABLE)
            db.execute("SELECT 1 FROM keys LIMIT 1")

    @contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time, in a transaction.

        A connection that failed is closed and the next transaction opens the file again, as it does
        if another file took its place: what was repaired is used, what was deleted is not.
        """
        with self._lock:
            try:
                db = self._connected()
                db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield db
                except BaseException:
                    if db.in_transaction:  # some faults have rolled it back already
                        db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")
            except (OSError, sqlite3.Error) as error:
                self._disconnect()
                reason = error.strerror if isinstance(error, OSError) else error
                raise KeysUnavailable(f"{self._path} cannot be used for keys: {reason}.") from None

    def _connected(self) -> sqlite3.Connection:
        found = os.stat(self._path)
        file = found.st_dev, found.st_ino
        if self._db is None or file != self._file:
            self._disconnect()
            self._db = sqlite3.connect(
                f"{self._path.resolve().as_uri()}?mode=rw",
                uri=True,
                timeout=self._patience_s,
                isolation_level=None,
                check_same_thread=False,
            )
            self._file = file
            _set_up(self._db)
        return self._db

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def add(
        self, name: str, *, budget: int | None, rate: float | None, burst: int | None = None
    ) -> str:
        check_account(name, budget, rate, burst)
        key = new_key()
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM keys WHERE name = ?", (name,)).fetchone():
                raise ConfigError(
                    f"{self._path} has a key called {name!r} already; pass --change {name}, or "
                    "another name."
                )
            db.execute(
                "INSERT INTO keys (name, digest, budget, rate, burst) VALUES (?, ?, ?, ?, ?)",
                (name, digest_of(key), budget, rate, burst),
            )
        return key

    def change(
        self, name: str, *, budget: int | None, rate: float | None, burst: int | None = None
    ) -> None:
        check_account(name, budget, rate, burst)
        with self._transaction() as db:
            done = db.execute(
                "UPDATE keys SET budget = ?, rate = ?, burst = ?, due = 0 WHERE name = ?",
                (budget, rate, burst, name),
            )
            self._expect(name, done.rowcount)

    def remove(self, name: str) -> None:
        with self._transaction() as db:
            done = db.execute("DELETE FROM keys WHERE name = ?", (name,))
            self._expect(name, done.rowcount)

    def _expect(self, name: str, count: int) -> None:
        if not count:
            raise ConfigError(
                f"{self._path} has no key called {name!r}; `denature keys {self._path}` lists them."
            )

    def accounts(self) -> list[Key]:
        with self._transaction(write=False) as db:
            rows = db.execute(
                "SELECT name, used, budget, rate, burst FROM keys ORDER BY name"
            ).fetchall()
        return [Key(name=n, used=u, budget=b, rate=r, burst=o) for n, u, b, r, o in rows]

    def book(self, charges: Sequence[Charge]) -> list[Booking]:
        with self._transaction(write=any(charge.images for charge in charges)) as db:
            # All processes of a machine share this clock, and nothing sets it.
            now = monotonic()
            digests = {charge.digest for charge in charges}
            accounts = {digest: _read(db, digest, now) for digest in digests}
            before = accounts.copy()
            bookings = []
            for charge in charges:
                booking, accounts[charge.digest] = _booked(charge, accounts[charge.digest])
                bookings.append(booking)
            changed = [digest for digest in digests if accounts[digest] != before[digest]]
            for key, lead_s in filter(None, map(accounts.get, changed)):
                db.execute(
                    "UPDATE keys SET used = ?, due = ? WHERE name = ?",
                    (key.used, now + lead_s, key.name),
                )
        return bookings


def _read(db: sqlite3.Connection, digest: str, now: float) -> Account | None:
    row = db.execute(
        "SELECT name, used, budget, rate, burst, due FROM keys WHERE digest = ?", (digest,)
    ).fetchone()
    if row is None:
        return None
    name, used, budget, rate, burst, due = row
    key = Key(name=name, used=used, budget=budget, rate=rate, burst=burst)
    return key, key.lead_s(due - now)


def _booked(charge: Charge, account: Account | None) -> tuple[Booking, Account | None]:
    """What becomes of a charge, and the account after it."""
    if account is None:
        return Booking(charge, None), None
    key, lead_s = account
    allowed, then_s = after(key, lead_s, charge.images)
    booking = Booking(charge, key, allowed, lead_s)
    if not allowed or not charge.images:
        return booking, account
    return booking, (replace(key, used=max(0, key.used + charge.images)), then_s)


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigError(f"{path} cannot be created: {error.strerror}.") from None


def _set_up(db: sqlite3.Connection) -> None:
    """Take the file into use, also one of an earlier version."""
    db.execute("PRAGMA mmap_size = 0")
    columns = {row[1] for row in db.execute("PRAGMA table_info(keys)")}
    if not columns and db.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise sqlite3.DatabaseError("it holds other tables and no keys")
    db.execute("PRAGMA journal_mode = WAL")
    # A power cut may lose the last moments, a killed process loses nothing.
    db.execute("PRAGMA synchronous = NORMAL")
    if columns and "burst" not in columns:
        db.execute("ALTER TABLE keys ADD COLUMN burst INTEGER")
