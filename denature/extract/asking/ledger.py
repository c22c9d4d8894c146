"""The ledger: queries, their possible cost and their answers, in one SQLite file.

The intent to send a request is on the disk before the request leaves. After a kill at any moment
all stored answers are there; the requests in flight are marked as unknown and count as spent.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from denature.answers.kinds import ANSWER_KINDS, AnswerKind
from denature.core.errors import DenatureError, RunError
from denature.core.untrusted import parse_json
from denature.extract.asking.database import Database
from denature.extract.asking.limits import QueryLimits, Spending
from denature.extract.victims.base import VictimInfo

RESTORE = "Restore all files ledger.sqlite* from a copy, or name another --out."

NAMES = ("targets", "requests", "queries")

TABLES = (
    """CREATE TABLE targets (
      id INTEGER PRIMARY KEY, target TEXT NOT NULL, options TEXT NOT NULL, kind TEXT,
      width INTEGER, UNIQUE (target, options)
    ) STRICT""",
    """CREATE TABLE requests (
      id INTEGER PRIMARY KEY, target INTEGER NOT NULL REFERENCES targets, purpose TEXT NOT NULL,
      attempt INTEGER NOT NULL, images INTEGER NOT NULL, price REAL, sent REAL NOT NULL,
      status TEXT NOT NULL, billed INTEGER NOT NULL, latency REAL, error TEXT
    ) STRICT""",
    """CREATE TABLE queries (
      id INTEGER PRIMARY KEY, target INTEGER NOT NULL REFERENCES targets, content BLOB NOT NULL,
      repeat INTEGER NOT NULL, reference TEXT NOT NULL, image BLOB, request INTEGER NOT NULL,
      billed INTEGER NOT NULL DEFAULT 1, answer BLOB, UNIQUE (target, content, repeat)
    ) STRICT""",
)

MOST_NAMED = 512
"""Images that a query selects by digest, at most; for more, all answers are read."""


class BudgetSpent(DenatureError):
    """A budget of queries or dollars is exhausted; the queries beyond it were not sent."""


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
    money: float | None
    """US dollars of the requests whose price is known; None where no price is."""


@final
class Ledger:
    """An open ledger; a lock keeps other processes from opening the same file.

    Args:
        path: the file, which is created if it is missing; an anchor stands beside it, see
            `denature.extract.asking.database`.
        answered: whether results of its answers are known to exist, so that a missing or
            empty file is refused.

    Raises:
        RunError: the file is no ledger, is damaged or empty, lacks what was written to it, or is
            locked by another process.
    """

    def __init__(self, path: Path, *, answered: bool = False) -> None:
        self.path = path
        self._db = Database(
            path, tables=TABLES, names=NAMES, expected=answered, rolled_back=self._remember
        )
        try:
            self._db.do(self._mark_unknown).result()
            self._remember()
        except BaseException:
            self._db.close()
            raise

    def _mark_unknown(self) -> None:
        self._db.execute("UPDATE requests SET status = 'unknown' WHERE status = 'sent'")

    def _remember(self) -> None:
        """Load spent queries, prices and kinds into memory, since every request reads them."""
        self.spending = Spending(
            self._db.execute(
                "SELECT target, purpose, price, sum(images) FROM requests WHERE billed "
                "GROUP BY 1, 2, 3"
            )
        )
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
        self._db.close()

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

        return self._db.do(act).result()

    def kind(self, target: int) -> AnswerKind | None:
        """Kind of a target's answers; None before the first answer."""
        return self._kinds.get(target)

    def set_kind(self, target: int, kind: AnswerKind) -> None:
        """Set another kind for a target's answers."""

        def act() -> None:
            self._db.execute("UPDATE targets SET kind = ? WHERE id = ?", (kind, target))
            self._kinds[target] = kind

        self._db.do(act).result()

    def spent(self, target: int, purpose: str) -> int:
        """Queries that count against a budget."""
        return self.spending.queries(target, purpose)

    def lost(self, target: int, purpose: str) -> int:
        """Queries among the spent ones without an answer."""
        tally = self.tallies(target).get(purpose)
        return 0 if tally is None else tally.queries - tally.answered

    async def send(
        self,
        target: int,
        questions: Sequence[Query],
        *,
        purpose: str,
        limits: QueryLimits,
        attempt: int,
        price: float | None,
    ) -> tuple[int, int]:
        """Record a request before it leaves, cut to the size that the limits allow.

        Returns:
            The request's number, and how many of the questions, from the first on, it may carry.

        Raises:
            BudgetSpent: no query remains.
        """

        def act() -> tuple[int, int]:
            left, why = self.spending.left(target, purpose, limits, price)
            if not left:
                raise BudgetSpent(f"{why}; {len(questions):,} more were not sent.")
            count = min(len(questions), left)
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
            self.spending.book(target, purpose, price, count)
            return number, count

        return await asyncio.wrap_future(self._db.do(act))

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

        await asyncio.wrap_future(self._db.do(act))

    async def failed(
        self, target: int, request: int, *, purpose: str, billed: bool, latency: float, error: str
    ) -> None:
        """Record a request without an answer, and refund its queries if it was not billed."""

        def act() -> None:
            [[images, price]] = self._db.execute(
                "SELECT images, price FROM requests WHERE id = ?", (request,)
            )
            self._db.execute(
                "UPDATE requests SET status = 'failed', billed = ?, latency = ?, error = ? "
                "WHERE id = ?",
                (billed, latency, error[:500], request),
            )
            if not billed:
                self._db.execute(
                    "UPDATE queries SET billed = billed - 1 WHERE request = ?", (request,)
                )
                self.spending.book(target, purpose, price, -images)

        await asyncio.wrap_future(self._db.do(act))

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

        width, rows = self._db.do(act).result()
        dtype, size = ("<f4", 4) if width else ("<i8", 8)
        found: dict[bytes, dict[int, np.ndarray]] = {}
        for content, repeat, answer in rows:
            if not 0 < len(answer) <= size * max(width, 1) or len(answer) % size:
                raise RunError(
                    f"{self.path} is damaged: an answer has {len(answer)} bytes. {RESTORE}"
                )
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

        return self._db.do(act).result()

    def latency(self, target: int) -> tuple[int, float]:
        """Number of answered requests of a target, and their mean latency in seconds."""
        [[count, mean]] = self._db.do(
            lambda: self._db.execute(
                "SELECT count(*), coalesce(avg(latency), 0) FROM requests "
                "WHERE target = ? AND status = 'answered'",
                (target,),
            ).fetchall()
        ).result()
        return count, mean

    def tallies(self, target: int) -> dict[str, Tally]:
        """Queries and cost of a target for each purpose."""
        found = self._db.do(lambda: list(_tallies(self._db.execute, target))).result()
        return {tally.purpose: tally for tally in found}


def read_tallies(path: Path) -> list[Tally]:
    """The tallies of a ledger that another process may be writing.

    Raises:
        RunError: there is no ledger.
    """
    if not path.is_file():
        raise RunError(
            f"There is no ledger {path}; name the folder of a theft, an audit or an evaluation, "
            "or its ledger.sqlite."
        )
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            _check_tables(db)
            return list(_tallies(db.execute))
    except (sqlite3.DatabaseError, ValueError) as error:  # damaged texts are no UTF-8
        raise RunError(f"{path} cannot be read as a ledger: {error}.") from None


def _check_tables(db: sqlite3.Connection) -> None:
    """Check that a ledger of others holds tables alone: a view can compute without an end.

    Raises:
        ValueError: it holds something else under the name of a table.
    """
    db.execute("PRAGMA trusted_schema = OFF")
    for name, kind in db.execute("SELECT name, type FROM sqlite_master WHERE type <> 'index'"):
        if kind != "table":
            raise ValueError(f"it holds the {kind} {name!r}, and a ledger has none")


def _tallies(
    execute: Callable[[str, Sequence[Any]], sqlite3.Cursor], target: int | None = None
) -> Iterator[Tally]:
    rows = execute(
        "SELECT t.target, t.options, t.kind, r.purpose, sum(r.images * r.billed), "
        "sum(r.images * (r.status = 'answered')), "
        "sum(r.images * (r.status IN ('unknown', 'sent'))), count(*), "
        "sum(r.price * r.images * r.billed) "
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
        raise RunError(f"The ledger is damaged: its options are {text[:40]!r}. {RESTORE}")
    return found
