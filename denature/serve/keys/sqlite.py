"""Keys, budgets and rates of callers, exact over all processes that share the store.

A budget is a total number of images, a rate is a number of images a second. One statement checks a
request and books it, so two requests cannot spend the same image.
"""

import hashlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from denature.core.errors import ConfigError, MissingExtra
from denature.serve.refusal import Refused

REDIS = ("redis://", "rediss://", "unix://")

BURST_S = 1.0
"""Seconds that a key may be ahead of its rate."""

SPENT_RETRY_S = 86_400.0
"""Retry-After for a spent budget: the owner may grant more within a day."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A caller's account."""

    name: str
    used: int
    budget: int | None
    """Images in all; None for no bound."""
    rate: float | None
    """Images a second; None for no bound."""


class Keys(Protocol):
    """Accounts of the callers."""

    def add(self, name: str, *, budget: int | None, rate: float | None) -> str:
        """Open an account; returns its key, which is not stored."""

    def change(self, name: str, *, budget: int | None, rate: float | None) -> None:
        """Set another budget and rate for an account."""

    def remove(self, name: str) -> None:
        """Close an account."""

    def accounts(self) -> list[Key]:
        """All accounts, sorted by name."""

    def spend(self, key: str, images: int) -> str:
        """Book images on a key's account; returns its name.

        Raises:
            Refused: with 401 for an unknown key, 429 where budget or rate do not allow it.
        """

    def close(self) -> None:
        """Close the store."""


def open_keys(place: str, *, make: bool = False) -> Keys:
    """The accounts in a file or in a Redis.

    Args:
        place: a file, or a URL: `redis://`, `rediss://` or `unix://`.
        make: whether to create a missing file.

    Raises:
        ConfigError: the store does not exist, or cannot be used.
        MissingExtra: the URL is a Redis, and its client is not installed.
    """
    if place.startswith(REDIS):
        try:
            from denature.serve.redis_keys import RedisKeys
        except ModuleNotFoundError:
            raise MissingExtra("redis", "redis", "Keys in a Redis") from None
        return RedisKeys(place)
    path = Path(place)
    if not make and not path.is_file():
        raise ConfigError(f"There are no keys in {path}. Make one: denature keys {path} --add NAME")
    return SqliteKeys(path)


def digest_of(key: str) -> str:
    """Stored form of a key: with its 256 random bits, a plain hash cannot be inverted."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    return f"dn-{secrets.token_urlsafe(32)}"


def refusal(key: Key, images: int, ahead_s: float) -> Refused:
    """The refusal of a request beyond an account's budget or rate.

    Args:
        key: the account.
        images: number of images in the request.
        ahead_s: seconds that the account is ahead of its rate.
    """
    if key.budget is not None and key.used + images > key.budget:
        left = max(0, key.budget - key.used)
        return Refused(
            429,
            f"The budget of {key.budget} images allows {left} more; {images} were requested.",
            retry_after=SPENT_RETRY_S,
        )
    wait = max(ahead_s - BURST_S, 0.001)
    return Refused(
        429, f"The rate of {key.rate:g} images/s is used up for {wait:.3g} s.", retry_after=wait
    )


@final
class SqliteKeys:
    """Accounts in a SQLite file, for any number of processes of one machine."""

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


def check_account(name: str, budget: int | None, rate: float | None) -> None:
    if not name or len(name) > 64 or not name.isprintable():
        raise ConfigError(f"The key's name is {name!r}; wanted are 1 to 64 printable characters.")
    if budget is not None and budget < 0:
        raise ConfigError(f"budget is {budget}; it must be at least 0.")
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigError(f"rate is {rate}; it must be above 0.")
