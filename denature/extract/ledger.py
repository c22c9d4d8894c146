"""What was asked, what it may have cost, and what was answered: one SQLite file.

Before a request leaves, the intent to send it is on the disk; so after a kill at any moment each
answer that was kept is there, and what was in flight is known to be unknown, and counts as spent.
One thread writes, all that waits in one transaction, so that a commit is shared by many.
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
from typing import Any, Self, TypeVar, final, get_args

import numpy as np
from filelock import FileLock, Timeout

from denature.answers.sources import Kind
from denature.core.errors import DenatureError, RunError
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
"""Of those that wait, how many share a transaction."""


MOST_NAMED = 512
"""Images that are looked for by name; of more, all answers are read."""


class BudgetSpent(DenatureError):
    """The query after the last that was allowed; it was not sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One image to be asked once."""

    content: bytes
    """Digest of the image."""
    repeat: int
    reference: str
    """Where the image comes from."""
    image: bytes | None = None
    """The image itself, where it comes from nowhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What a target has been asked for one purpose."""

    target: str
    options: dict[str, str]
    kind: Kind | None
    purpose: str
    queries: int
    """Images in requests that were answered, or may have been billed: what budgets bound."""
    answered: int
    """Of those, images with an answer."""
    unknown: int
    """Images of requests of which nothing is known: their process died."""
    requests: int
    money: float
    """In US dollars, as far as prices were known."""


@final
class Ledger:
    """An open ledger, which no other process can open meanwhile.

    Args:
        path: the file; made if there is none.

    Raises:
        RunError: it is no ledger, damaged, or another process is at work with it.
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
            raise RunError(f"The ledger {path} cannot be made: {error}.") from None
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
        db.execute("PRAGMA synchronous = FULL")  # answers were paid for: not even a power cut
        [[version]] = db.execute("PRAGMA user_version")
        [[tables]] = db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
        if not version and not tables:
            db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        elif version != SCHEMA:
            raise RunError(
                f"{self.path} is no ledger that this denature reads (version {version}, wanted "
                f"{SCHEMA}). Name another file."
            )
        db.execute("UPDATE requests SET status = 'unknown' WHERE status = 'sent'")

    def _remember(self) -> None:
        """What is asked of the ledger so often that it is kept in memory."""
        self._spent: dict[tuple[int, str], int] = {
            (target, purpose): images
            for target, purpose, images in self._db.execute(
                "SELECT target, purpose, sum(images) FROM requests WHERE billed GROUP BY 1, 2"
            )
        }
        self._kinds: dict[int, Kind | None] = {
            target: kind if kind in get_args(Kind) else None
            for target, kind in self._db.execute("SELECT id, kind FROM targets")
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, and let others in."""
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        self._writer.join()
        self._db.close()
        self._lock.release()

    # The one thread that speaks to the file

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
        """Do all in one transaction; nobody hears of anything before it is on the disk."""
        done: list[tuple[Future[Any], Any, Exception | None]] = []
        # Who was cancelled meanwhile is left out, and cannot be cancelled from here on.
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
            told = RunError(f"The ledger {self.path} cannot be written: {error}.")
            done = [(future, None, told) for _, future in work]
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

    # What is written

    def target(self, about: VictimInfo) -> int:
        """The number of a target, which is made the first time."""
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

    def kind(self, target: int) -> Kind | None:
        """Of which kind a target's answers are; None until there is one."""
        return self._kinds.get(target)

    def settle(self, target: int, kind: Kind) -> None:
        """Take a target's answers for another kind."""

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
        """Note that a request is about to leave, as large as the budget allows.

        Returns:
            Its number, and how many of the questions, from the first on, it may bring.

        Raises:
            BudgetSpent: nothing is left.
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
        kind: Kind,
        latency: float,
    ) -> None:
        """Keep the answers to a request; returns when they are on the disk."""
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
        """Note that a request was not answered, and give back what it surely did not cost."""

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

    # What is read

    def answers(
        self, target: int, contents: Collection[bytes] | None = None
    ) -> dict[bytes, dict[int, np.ndarray]]:
        """Answers of a target: by the image's digest and the repeat.

        Args:
            target: its number.
            contents: of which images; of all by default.

        Raises:
            RunError: an answer that has not the target's size.
        """
        if contents is not None and not contents:
            return {}
        few = [] if contents is None or len(contents) > MOST_NAMED else list(contents)
        only = f" AND content IN ({', '.join('?' * len(few))})" if few else ""

        def act() -> tuple[int, list[tuple[bytes, int, bytes]]]:
            [[width]] = self._db.execute(
                "SELECT coalesce(width, 0) FROM targets WHERE id = ?", (target,)
            )
            return int(width), self._db.execute(
                "SELECT content, repeat, answer FROM queries WHERE target = ? AND answer NOT NULL"
                + only,
                (target, *few),
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
        """Queries that were or may have been billed for these images, lost ones among them."""
        wanted = set(contents)

        def act() -> int:
            rows = self._db.execute(
                "SELECT content, billed FROM queries WHERE target = ? AND repeat < ?",
                (target, repeats),
            )
            return sum(billed for content, billed in rows if bytes(content) in wanted)

        return self._do(act).result()

    def tallies(self, target: int) -> dict[str, Tally]:
        """What a target has been asked for each purpose."""
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
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunError(f"The ledger is damaged: its options are {text[:40]!r}.")
    return found
