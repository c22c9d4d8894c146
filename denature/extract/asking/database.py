"""A SQLite file of one process: grouped transactions, and a digest that tells damage and loss.

One thread writes all waiting entries in one transaction, so many entries share a commit. Each
commit stores the digest of all rows, and then the anchor beside the file names it. So a file is
refused whose rows do not give their digest, or whose history lacks the anchored commit; a file may
be ahead of its anchor, which a kill between both writes leaves behind.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, final

from filelock import FileLock, Timeout

from denature.core.errors import DenatureError, RunError
from denature.extract.asking.anchor import Anchor, Commit, RunningDigest

T = TypeVar("T")

COMMITS = "CREATE TABLE commits (id INTEGER PRIMARY KEY, digest BLOB NOT NULL) STRICT"

FORMER, VERSION = 1, 2
"""Formats: without digests, and with them."""

MOST_WRITES = 256
"""Waiting entries that share a transaction, at most."""


@final
class Database:
    """An open file; a lock keeps other processes from opening the same one.

    Args:
        path: the file, which is created if it is missing.
        tables: statements that create its tables.
        names: names of these tables.
        expected: whether the file must exist, since results of its content do.
        rolled_back: called after a transaction failed, before its callers hear of it.

    Raises:
        RunError: the file has another format, is damaged, lacks what was written to it, or is
            locked by another process.
    """

    def __init__(
        self,
        path: Path,
        *,
        tables: Sequence[str],
        names: tuple[str, ...],
        expected: bool,
        rolled_back: Callable[[], None],
    ) -> None:
        self.path, self._rolled_back = path, rolled_back
        self._anchor = Anchor(path.with_name(f"{path.name}.anchor"))
        self._lock = _locked(path)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            self._lock.release()
            raise self._unusable(error) from None
        try:
            self._open(tables, names, expected=expected)
        except BaseException as error:
            self._db.close()
            self._lock.release()
            # A damaged schema gives messages that are no UTF-8.
            if isinstance(error, sqlite3.Error | ValueError | OSError):
                raise self._unusable(error) from None
            raise
        self._closed = False
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._waiting = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._writer.start()

    # Opening

    def _open(self, tables: Sequence[str], names: tuple[str, ...], *, expected: bool) -> None:
        """Create, migrate or verify the file."""
        db = self._db
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # even a power cut must lose no paid answer
        anchored = self._anchor.read()
        [[version]] = db.execute("PRAGMA user_version")
        [[count]] = db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
        created = not version and not count
        if anchored is not None and (created or version == FORMER):
            raise self._behind(0, anchored)
        if created and expected:
            raise RunError(
                f"{self.path} is missing or empty, beside results of its answers. {self._remedy}."
            )
        if not created and version not in (FORMER, VERSION):
            raise RunError(
                f"{self.path} is no ledger of this denature's format (version {version}, wanted "
                f"{VERSION}). Name another file."
            )
        self._check_pages()
        db.execute("BEGIN")
        if created:
            for statement in tables:
                db.execute(statement)
        self._digest = RunningDigest(db, names)
        found = self._digest.scan()
        if version == VERSION:
            self._check_history(found, anchored)
        else:
            db.execute(COMMITS)
            db.execute("INSERT INTO commits VALUES (1, ?)", (found,))
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
        self._digest.reset(found)
        self._last = self._last_commit()
        self._anchor.write(self._last)

    def _check_pages(self) -> None:
        """Check the structure of the file, whose indices no digest covers."""
        [[fault], *_] = self._db.execute("PRAGMA integrity_check(1)")
        if fault != "ok":
            raise self._unusable(fault)

    def _last_commit(self) -> Commit:
        query = "SELECT id, digest FROM commits ORDER BY id DESC LIMIT 1"
        return Commit(*(self._db.execute(query).fetchone() or (0, b"")))

    def _check_history(self, found: bytes, anchored: Commit | None) -> None:
        """Check the rows against the last commit, and the commits against the anchor."""
        last = self._last_commit()
        if last.digest != found:
            raise RunError(
                f"{self.path} was altered or damaged: its rows do not give the digest of their "
                f"last commit. {self._remedy}."
            )
        if anchored is None:
            return
        query = "SELECT digest FROM commits WHERE id = ?"
        [stored] = self._db.execute(query, (anchored.number,)).fetchone() or (None,)
        if stored != anchored.digest:
            raise self._behind(last.number, anchored)

    def _behind(self, number: int, anchored: Commit) -> RunError:
        return RunError(
            f"{self.path} lacks what was written to it: it holds {number:,} commits, or others, "
            f"and {self._anchor.path.name} names commit {anchored.number:,}. {self._remedy}; "
            f"remove {self._anchor.path.name} alone to go on with what the ledger holds."
        )

    def _unusable(self, fault: object) -> RunError:
        said = " ".join(str(fault).split()).rstrip(".")
        return RunError(f"{self.path} cannot be used as a ledger: {said}. {self._remedy}.")

    @property
    def _remedy(self) -> str:
        return (
            f"Restore all files {self.path.name}* from a copy, or name another folder to query and "
            "pay again"
        )

    def close(self) -> None:
        """Write the waiting entries, and release the lock."""
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        self._writer.join()
        self._db.close()
        with suppress(OSError):  # an anchor that is older on the disk fits too
            self._anchor.close()
        self._lock.release()

    # The writer thread, the only one that uses the file once it is open

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """For acts, and for reading before the first act."""
        return self._db.execute(statement, values)

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._db.executemany(statement, rows)

    def do(self, act: Callable[[], T]) -> "Future[T]":
        """Let the writer thread call `act` in a transaction, after which the future resolves.

        An act that raises a `DenatureError` has written nothing before; any other error fails the
        whole transaction.

        Raises:
            RunError: the file is closed.
        """
        if self._closed:
            raise RunError(f"The ledger {self.path} is closed.")
        future: Future[T] = Future()
        self._waiting.put((act, future))
        return future

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
        """Run all acts in one transaction; the futures resolve after its commit."""
        done: list[tuple[Future[Any], Any, Exception | None]] = []
        # Cancelled acts are left out; the others cannot be cancelled from here on.
        work = [(act, future) for act, future in work if future.set_running_or_notify_cancel()]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for act, future in work:
                try:
                    done.append((future, act(), None))
                except DenatureError as refused:
                    done.append((future, None, refused))
            self._commit()
        except Exception as error:
            self._roll_back()
            lost = RunError(
                f"The ledger {self.path} cannot be written: {error}. Mend that, and run the same "
                "command again."
            )
            done = [(future, None, lost) for _, future in work]
        for future, result, failure in done:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # the callers hear of the first error
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._digest.reset(self._last.digest)
            self._rolled_back()

    def _commit(self) -> None:
        """Commit with the digest of all rows, and then name this commit in the anchor."""
        if not self._digest.changed:
            self._db.execute("COMMIT")
            return
        commit = Commit(self._last.number + 1, self._digest.value)
        self._db.execute("INSERT INTO commits VALUES (?, ?)", commit)
        self._db.execute("COMMIT")
        self._last = commit
        self._digest.changed = False
        self._anchor.write(commit)


def _locked(path: Path) -> FileLock:
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RunError(
            f"Another process is at work with the ledger {path}; wait for it, or name another "
            "--out."
        ) from None
    except OSError as error:
        raise RunError(f"The ledger {path} cannot be created: {error}.") from None
    return lock
