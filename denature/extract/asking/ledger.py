"""The ledger: queries, their possible cost and their answers, in one SQLite file.

The intent to send a request is on the disk before the request leaves. After a kill at any moment
all stored answers are there; the requests in flight are marked as unknown and count as spent. One
thread writes all waiting entries in one transaction, so many entries share a commit.
"""

import asyncio
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, final

import numpy as np
from filelock import FileLock, Timeout

from denature.answers.kinds import ANSWER_KINDS, AnswerKind
from denature.core.errors import DenatureError, RunError
from denature.core.untrusted import parse_json
from denature.extract.victims.base import VictimInfo

T = TypeVar("T")

SCHEMA = 1

TABLES = """
CREATE TABLE targets (
  id INTEGER PRIMARY KEY, target TEXT NOT NULL, options TEXT NOT NULL, kind TEXT, width INTEGER,
  UNIQUE (target, options)
) STRICT;
CREATE TABLE requests (
  id INTEGER PRIMARY KEY, target INTEGER NOT NULL REFERENCES targets, purpose TEXT NOT NULL,
  attempt INTEGER NOT NULL, images INTEGER NOT NULL, price REAL, sent REAL NOT NULL,
  status TEXT NOT NULL, billed INTEGER NOT NULL, latency REAL, error TEXT
) STRICT;
CREATE TABLE queries (
  id INTEGER PRIMARY KEY, target INTEGER NOT NULL REFERENCES targets, content BLOB NOT NULL,
  repeat INTEGER NOT NULL, reference TEXT NOT NULL, image BLOB, request INTEGER NOT NULL,
  billed INTEGER NOT NULL DEFAULT 1, answer BLOB, UNIQUE (target, content, repeat)
) STRICT;
"""

MOST_WRITES = 256
"""Waiting entries that share a transaction, at most."""


MOST_NAMED = 512
"""Images that a query selects by digest, at most; for more, all answers are read."""


class BudgetSpent(DenatureError):
    """The query budget is exhausted; the queries beyond it were not sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One query of one image."""

    content: bytes
    """Digest of the image."""
    repeat: int
    reference: str
    """Source of the image."""
    image: bytes | None = None
    """Bytes of a generated image, which no source holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Queries and cost of a target for one purpose."""

    target: str
    options: dict[str, str]
    kind: AnswerKind | None
    purpose: str
    queries: int
    """Images in requests that were or may have been billed; budgets bound this number."""
    answered: int
    """Images among them that have an answer."""
    unknown: int
    """Images in requests of unknown outcome, because their process died."""
    requests: int
    money: float
    """Cost in US dollars, as far as prices were known."""


@final
class Ledger:
    """An open ledger; a lock keeps other processes from opening the same file.

    Args:
        path: the file, which is created if it is missing.

    Raises:
        RunError: the file is no ledger, is damaged, or is locked by another process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
            self._lock.acquire()
        except Timeout:
            raise RunError(f"Another process is at work with the ledger {path}.") from None
        except OSError as error:
            raise RunError(f"The ledger {path} cannot be created: {error}.") from None
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            self._lock.release()
            raise RunError(f"{path} cannot be used as a ledger: {error}.") from None
        try:
            self._begin()
            self._remember()
        except (sqlite3.Error, RunError) as error:
            self._db.close()
            self._lock.release()
            if isinstance(error, RunError):
                raise
            raise RunError(f"{path} cannot be used as a ledger: {error}.") from None
        self._closed = False
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._waiting = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._writer.start()

    def _begin(self) -> None:
        db = self._db
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # even a power cut must lose no paid answer
        [[version]] = db.execute("PRAGMA user_version")
        [[tables]] = db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
        if not version and not tables:
            db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        elif version != SCHEMA:
            raise RunError(
                f"{self.path} is no ledger of this denature's format (version {version}, wanted "
                f"{SCHEMA}). Name another file."
            )
        db.execute("UPDATE requests SET status = 'unknown' WHERE status = 'sent'")

    def _remember(self) -> None:
        """Load spent queries and answer kinds into memory, since every request reads them."""
        self._spent: dict[tuple[int, str], int] = {
            (target, purpose): images
            for target, purpose, images in self._db.execute(
                "SELECT target, purpose, sum(images) FROM requests WHERE billed GROUP BY 1, 2"
            )
        }
        self._kinds: dict[int, AnswerKind | None] = {
            target: kind if kind in ANSWER_KINDS else None
            for target, kind in self._db.execute("SELECT id, kind FROM targets")
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the waiting entries, and release the lock."""
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        self._writer.join()
        self._db.close()
        self._lock.release()

    # The writer thread, the only one that uses the file

    def _write(self) -> None:
        while (first := self._waiting.get()) is not None:
            work, last = [first], False
            while len(work) < MOST_WRITES:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                work.append(more)
            self._together(work)
            if last:
                return

    def _together(self, work: Sequence[tuple[Callable[[], Any], "Future[Any]"]]) -> None:
        """Run all writes in one transaction; the futures resolve after its commit."""
        done: list[tuple[Future[Any], Any, Exception | None]] = []
        # Cancelled writes are left out; the others cannot be cancelled from here on.
        work = [(act, future) for act, future in work if future.set_running_or_notify_cancel()]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for act, future in work:
                try:
                    done.append((future, act(), None))
                except BudgetSpent as refused:  # raised before anything was written
                    done.append((future, None, refused))
            self._db.execute("COMMIT")
        except Exception as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._remember()
            lost = RunError(f"The ledger {self.path} cannot be written: {error}.")
            done = [(future, None, lost) for _, future in work]
        for future, result, failure in done:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _do(self, act: Callable[[], T]) -> "Future[T]":
        if self._closed:
            raise RunError(f"The ledger {self.path} is closed.")
        future: Future[T] = Future()
        self._waiting.put((act, future))
        return future

    # Writing

    def target(self, about: VictimInfo) -> int:
        """The number of a target, which is assigned at the first call."""
        options = json.dumps(about.options, sort_keys=True)

        def act() -> int:
            self._db.execute(
                "INSERT OR IGNORE INTO targets (target, options) VALUES (?, ?)",
                (about.target, options),
            )
            row = self._db.execute(
                "SELECT id FROM targets WHERE target = ? AND options = ?", (about.target, options)
            ).fetchone()
            number: int = row[0]
            return number

        return self._do(act).result()

    def kind(self, target: int) -> AnswerKind | None:
        """Kind of a target's answers; None before the first answer."""
        return self._kinds.get(target)

    def settle(self, target: int, kind: AnswerKind) -> None:
        """Set another kind for a target's answers."""

        def act() -> None:
            self._db.execute("UPDATE targets SET kind = ? WHERE id = ?", (kind, target))
            self._kinds[target] = kind

        self._do(act).result()

    def spent(self, target: int, purpose: str) -> int:
        """Queries that count against a budget."""
        return self._spent.get((target, purpose), 0)

    async def send(
        self,
        target: int,
        questions: Sequence[Query],
        *,
        purpose: str,
        budget: int,
        attempt: int,
        price: float | None,
    ) -> tuple[int, int]:
        """Record a request before it leaves, cut to the size that the budget allows.

        Returns:
            The request's number, and how many of the questions, from the first on, it may carry.

        Raises:
            BudgetSpent: no query remains.
        """

        def act() -> tuple[int, int]:
            spent = self._spent.get((target, purpose), 0)
            count = min(len(questions), budget - spent)
            if count < 1:
                raise BudgetSpent(
                    f"The budget of {budget:,} queries is spent; {len(questions):,} more were not "
                    "sent."
                )
            number = self._db.execute(
                "INSERT INTO requests (target, purpose, attempt, images, price, sent, status, "
                "billed) VALUES (?, ?, ?, ?, ?, ?, 'sent', 1)",
                (target, purpose, attempt, count, price, time.time()),
            ).lastrowid
            assert number is not None
            self._db.executemany(
                "INSERT INTO queries (target, content, repeat, reference, image, request) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET request = excluded.request, "
                "billed = billed + 1",
                [
                    (target, q.content, q.repeat, q.reference, q.image, number)
                    for q in questions[:count]
                ],
            )
            self._spent[target, purpose] = spent + count
            return number, count

        return await asyncio.wrap_future(self._do(act))

    async def answered(
        self,
        target: int,
        request: int,
        questions: Sequence[Query],
        values: np.ndarray,
        *,
        kind: AnswerKind,
        latency: float,
    ) -> None:
        """Store the answers to a request; returns once they are on the disk."""
        width = 0 if values.ndim == 1 else values.shape[1]
        rows = values.astype("<i8" if values.ndim == 1 else "<f4").reshape(len(values), -1)
        size, data = rows.itemsize * rows.shape[1], rows.tobytes()

        def act() -> None:
            self._db.executemany(
                "UPDATE queries SET answer = ? WHERE target = ? AND content = ? AND repeat = ?",
                [
                    (data[size * n : size * n + size], target, q.content, q.repeat)
                    for n, q in enumerate(questions)
                ],
            )
            self._db.execute(
                "UPDATE requests SET status = 'answered', latency = ? WHERE id = ?",
                (latency, request),
            )
            self._db.execute(
                "UPDATE targets SET kind = ?, width = max(coalesce(width, 0), ?) WHERE id = ?",
                (kind, width, target),
            )
            self._kinds[target] = kind

        await asyncio.wrap_future(self._do(act))

    async def failed(
        self, target: int, request: int, *, purpose: str, billed: bool, latency: float, error: str
    ) -> None:
        """Record a request without an answer, and refund its queries if it was not billed."""

        def act() -> None:
            [[images]] = self._db.execute("SELECT images FROM requests WHERE id = ?", (request,))
            self._db.execute(
                "UPDATE requests SET status = 'failed', billed = ?, latency = ?, error = ? "
                "WHERE id = ?",
                (billed, latency, error[:500], request),
            )
            if not billed:
                self._db.execute(
                    "UPDATE queries SET billed = billed - 1 WHERE request = ?", (request,)
                )
                self._spent[target, purpose] -= images

        await asyncio.wrap_future(self._do(act))

    # Reading

    def answers(
        self, target: int, contents: Collection[bytes] | None = None
    ) -> dict[bytes, dict[int, np.ndarray]]:
        """Stored answers of a target, by the image's digest and the repeat.

        Args:
            target: number of the target.
            contents: digests of the images; all images by default.

        Raises:
            RunError: an answer does not have the target's size.
        """
        if contents is not None and not contents:
            return {}
        digests = [] if contents is None or len(contents) > MOST_NAMED else list(contents)
        selection = f" AND content IN ({', '.join('?' * len(digests))})" if digests else ""

        def act() -> tuple[int, list[tuple[bytes, int, bytes]]]:
            [[width]] = self._db.execute(
                "SELECT coalesce(width, 0) FROM targets WHERE id = ?", (target,)
            )
            return int(width), self._db.execute(
                "SELECT content, repeat, answer FROM queries WHERE target = ? AND answer NOT NULL"
                + selection,
                (target, *digests),
            ).fetchall()

        width, rows = self._do(act).result()
        dtype, size = ("<f4", 4) if width else ("<i8", 8)
        found: dict[bytes, dict[int, np.ndarray]] = {}
        for content, repeat, answer in rows:
            if not 0 < len(answer) <= size * max(width, 1) or len(answer) % size:
                raise RunError(f"{self.path} is damaged: an answer has {len(answer)} bytes.")
            found.setdefault(bytes(content), {})[repeat] = np.frombuffer(answer, dtype)
        return found

    def cost(self, target: int, contents: Iterable[bytes], *, repeats: int) -> int:
        """Queries that were or may have been billed for these images, lost ones included."""
        wanted = set(contents)

        def act() -> int:
            rows = self._db.execute(
                "SELECT content, billed FROM queries WHERE target = ? AND repeat < ?",
                (target, repeats),
            )
            return sum(billed for content, billed in rows if bytes(content) in wanted)

        return self._do(act).result()

    def tallies(self, target: int) -> dict[str, Tally]:
        """Queries and cost of a target for each purpose."""
        found = self._do(lambda: list(_tallies(self._db, target))).result()
        return {tally.purpose: tally for tally in found}


def read_tallies(path: Path) -> list[Tally]:
    """The tallies of a ledger that another process may be writing.

    Raises:
        RunError: there is no ledger.
    """
    if not path.is_file():
        raise RunError(f"There is no ledger {path}.")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            return list(_tallies(db))
    except sqlite3.DatabaseError as error:
        raise RunError(f"{path} cannot be read as a ledger: {error}.") from None


def _tallies(db: sqlite3.Connection, target: int | None = None) -> Iterator[Tally]:
    rows: Iterable[tuple[Any, ...]] = db.execute(
        "SELECT t.target, t.options, t.kind, r.purpose, sum(r.images * r.billed), "
        "sum(r.images * (r.status = 'answered')), "
        "sum(r.images * (r.status IN ('unknown', 'sent'))), count(*), "
        "coalesce(sum(r.price * r.images * r.billed), 0) "
        "FROM requests r JOIN targets t ON t.id = r.target WHERE t.id = coalesce(?, t.id) "
        "GROUP BY r.target, r.purpose ORDER BY r.target, r.purpose DESC",
        (target,),
    )
    for name, options, kind, purpose, queries, answered, unknown, count, money in rows:
        yield Tally(
            target=name,
            options=_options(options),
            kind=kind,
            purpose=purpose,
            queries=queries,
            answered=answered,
            unknown=unknown,
            requests=count,
            money=money,
        )


def _options(text: str) -> dict[str, str]:
    try:
        found = parse_json(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunError(f"The ledger is damaged: its options are {text[:40]!r}.")
    return found
