"""Accounts in a SQLite file, for any number of processes of one machine."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from denature.core.errors import ConfigError
from denature.serve.keys.base import BURST_S, Key, check_account, digest_of, new_key, refusal
from denature.serve.refusal import Refused


@final
class SqliteKeys:
    """See `denature.serve.keys.base.Keys`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.DatabaseError) as error:
            raise ConfigError(f"{path} cannot be created: {error}.") from None
        try:
            with self._database() as db:
                db.execute("PRAGMA journal_mode = WAL")
                # A power cut may lose the last moments, a killed process loses nothing.
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, digest TEXT UNIQUE, "
                    "used INTEGER NOT NULL DEFAULT 0, budget INTEGER, rate REAL, "
                    "due REAL NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID"
                )
        except ConfigError:
            self.close()
            raise

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; each statement is a transaction of its own."""
        try:
            with self._lock:
                yield self._db
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self._path} cannot be used for keys: {error}.") from None

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def add(self, name: str, *, budget: int | None, rate: float | None) -> str:
        check_account(name, budget, rate)
        key = new_key()
        with self._database() as db:
            try:
                db.execute(
                    "INSERT INTO keys (name, digest, budget, rate) VALUES (?, ?, ?, ?)",
                    (name, digest_of(key), budget, rate),
                )
            except sqlite3.IntegrityError:
                raise ConfigError(f"{self._path} has a key called {name!r} already.") from None
        return key

    def change(self, name: str, *, budget: int | None, rate: float | None) -> None:
        check_account(name, budget, rate)
        with self._database() as db:
            done = db.execute(
                "UPDATE keys SET budget = ?, rate = ?, due = 0 WHERE name = ?",
                (budget, rate, name),
            )
        self._expect(name, done.rowcount)

    def remove(self, name: str) -> None:
        with self._database() as db:
            done = db.execute("DELETE FROM keys WHERE name = ?", (name,))
        self._expect(name, done.rowcount)

    def _expect(self, name: str, count: int) -> None:
        if not count:
            raise ConfigError(f"{self._path} has no key called {name!r}.")

    def accounts(self) -> list[Key]:
        with self._database() as db:
            rows = db.execute("SELECT name, used, budget, rate FROM keys ORDER BY name").fetchall()
        return [Key(name=n, used=u, budget=b, rate=r) for n, u, b, r in rows]

    def spend(self, key: str, images: int) -> str:
        digest, now = digest_of(key), time.time()
        with self._database() as db:
            done = db.execute(
                "UPDATE keys SET used = used + :n, "
                "due = CASE WHEN rate IS NULL THEN due ELSE max(due, :now) + :n / rate END "
                "WHERE digest = :digest AND (budget IS NULL OR used + :n <= budget) "
                "AND (rate IS NULL OR due <= :now + :burst) RETURNING name",
                {"n": images, "now": now, "burst": BURST_S, "digest": digest},
            ).fetchone()
            if done is not None:
                return str(done[0])
            found = db.execute(
                "SELECT name, used, budget, rate, due FROM keys WHERE digest = ?", (digest,)
            ).fetchone()
        if found is None:
            raise Refused(401, "There is no such key.")
        name, used, budget, rate, due = found
        raise refusal(Key(name=name, used=used, budget=budget, rate=rate), images, due - now)
