"""A server whose keys or clocks fail: it goes on, and charges what it answers."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from denature.serve.keys import open_keys
from denature.serve.keys.process import StoreProcess
from denature.serve.keys.queue import ChargeQueue
from denature.serve.keys.sqlite import SqliteKeys
from denature.serve.refusal import Refused
from denature.train import Run
from tests.guarded import Guarded
from tests.served import serve, spend, stop

HOUR_S, YEAR_S = 3600.0, 365 * 86_400.0


# The store of the keys


def test_a_locked_store_refuses_all_callers_side_by_side(guarded: Guarded) -> None:
    assert guarded.ask()[0] == 200
    with contextlib.closing(sqlite3.connect(guarded.keys, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        # One after another they would take 12 s, and with the former time-out 12 minutes.
        assert guarded.ask_at_once(24) == {503}
        assert time.monotonic() - started < 10
        other.execute("ROLLBACK")
    guarded.until_answered()
    guarded.check()
    assert any("is locked" in entry.get("error", "") for entry in guarded.served.entries())


@pytest.mark.parametrize("fault", ["damaged", "emptied", "deleted", "replaced"])
def test_a_store_that_is_no_longer_there_is_not_believed(guarded: Guarded, fault: str) -> None:
    guarded.until_answered()
    parts = [guarded.keys.with_name(guarded.keys.name + end) for end in ("", "-wal", "-shm")]
    kept = guarded.keys.parent / "kept"
    with contextlib.closing(sqlite3.connect(guarded.keys)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(guarded.keys, kept)
    if fault == "damaged":
        guarded.keys.write_bytes(os.urandom(guarded.keys.stat().st_size))
    elif fault == "emptied":
        os.truncate(guarded.keys, 0)
    else:
        for part in parts:
            part.unlink(missing_ok=True)
        if fault == "replaced":  # by the keys of others
            SqliteKeys(guarded.keys).close()
    assert guarded.ask_at_once(4) == {401 if fault == "replaced" else 503}
    for part in parts:
        part.unlink(missing_ok=True)
    kept.rename(guarded.keys)
    guarded.until_answered()
    guarded.check()


def test_a_full_disk_charges_nothing(guarded: Guarded) -> None:
    guarded.until_answered()
    store = guarded.store()
    free = resource.prlimit(store, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        assert guarded.ask_at_once(4) == {503}
    finally:
        resource.prlimit(store, resource.RLIMIT_FSIZE, free)
    guarded.until_answered()
    guarded.check()


def test_a_truncated_index_ends_no_server(guarded: Guarded) -> None:
    """SQLite maps it, so the process that reads it ends with SIGBUS."""
    guarded.until_answered()
    before = guarded.store()
    os.truncate(f"{guarded.keys}-shm", 0)
    assert guarded.ask_at_once(4) <= {200, 503}
    guarded.until_answered()
    assert guarded.store() != before
    guarded.check()


def test_a_store_that_hangs_is_started_again(guarded: Guarded) -> None:
    guarded.until_answered()
    before = guarded.store()
    os.kill(before, signal.SIGSTOP)
    assert 503 in guarded.ask_at_once(4) <= {200, 503}
    guarded.until_answered()
    assert guarded.store() != before
    guarded.check()


def test_what_is_refused_after_its_charge_is_given_back(victim: Run, tmp_path: Path) -> None:
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("alice", budget=1000, rate=None)
    served = serve(tmp_path, f"m={victim.folder}", "--keys", str(tmp_path / "keys"),
                   "--max-images", "16", "--max-waiting", "16", "--window-ms", "400")  # fmt: skip
    guarded = Guarded(served, tmp_path / "keys", key)
    try:
        with ThreadPoolExecutor(12) as threads:
            statuses = [status for status, _ in threads.map(guarded.ask, [16] * 12)]
        assert set(statuses) == {200, 503}
    finally:
        stop(served)
    with contextlib.closing(open_keys(str(tmp_path / "keys"))) as keys:
        assert keys.accounts()[0].used == guarded.answered == 16 * statuses.count(200)


def test_a_caller_that_leaves_is_not_charged(tmp_path: Path) -> None:
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("alice", budget=10, rate=None)

    async def leave() -> None:
        queue = ChargeQueue(StoreProcess(str(tmp_path / "keys")))
        await queue.start()
        for wait in range(8):  # before, while and after the booking is made
            asking = asyncio.create_task(queue.book(key, 5))
            for _ in range(wait):
                await asyncio.sleep(0.0005)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                queue.give_back(await asking)
        await queue.close()

    asyncio.run(leave())
    with contextlib.closing(open_keys(str(tmp_path / "keys"))) as store:
        assert store.accounts()[0].used == 0


@pytest.mark.parametrize("reply", [b'{"bookings": [[{"na', b"", b"nonsense\n"])
def test_a_reply_that_is_cut_off_refuses_its_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    """A killed process may have written a part of a line; the next request starts another one."""
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("alice", budget=10, rate=None)
    asked = StoreProcess._asked

    async def cut(self: StoreProcess, line: bytes) -> bytes:
        await asked(self, line)
        return reply

    async def both() -> str:
        queue = ChargeQueue(StoreProcess(str(tmp_path / "keys")))
        await queue.start()
        with monkeypatch.context() as patch:
            patch.setattr(StoreProcess, "_asked", cut)
            with pytest.raises(Refused) as refused:
                async with asyncio.timeout(10):
                    await queue.book(key, 1)
        assert refused.value.status == 503
        name = (await queue.book(key, 1)).check()
        await queue.close()
        return name

    assert asyncio.run(both()) == "alice"


def test_the_process_of_the_keys_ends_with_its_server(victim: Run, tmp_path: Path) -> None:
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("alice", budget=None, rate=None)
    served = serve(tmp_path, f"m={victim.folder}", "--keys", str(tmp_path / "keys"))
    guarded = Guarded(served, tmp_path / "keys", key)
    assert guarded.ask()[0] == 200
    store = guarded.store()
    served.process.kill()
    served.process.communicate()
    for _ in range(500):
        if not Path(f"/proc/{store}").exists():
            return
        time.sleep(0.02)
    raise AssertionError("it goes on")


def test_an_account_may_change_while_it_is_charged(tmp_path: Path) -> None:
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("alice", budget=3, rate=None)
        done = threading.Event()

        def change() -> None:
            with contextlib.closing(SqliteKeys(tmp_path / "keys", patience_s=30)) as others:
                while not done.is_set():
                    others.change("alice", budget=3, rate=None)
                    others.change("alice", budget=None, rate=1000.0)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            booked, refusals = 0, set()
            for _ in range(1500):
                try:
                    spend(keys, key, 2)
                    booked += 1
                except Refused as refused:
                    refusals.add(refused.status)
            assert booked
            assert refusals <= {413, 429}, "refused by its bounds, and never for want of the store"
        finally:
            done.set()
            thread.join()


# Clocks


@pytest.mark.parametrize("step", [-HOUR_S, HOUR_S, YEAR_S])
def test_a_clock_that_jumps_locks_no_key_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    now = [10 * HOUR_S]
    monkeypatch.setattr("denature.serve.keys.sqlite.monotonic", lambda: now[0])
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("slow", budget=None, rate=10)
        spend(keys, key, 10)
        with pytest.raises(Refused):
            spend(keys, key, 1)
        now[0] += step
        spend(keys, key, 10)  # one request by another clock
        now[0] -= step
        now[0] += 1.0
        spend(keys, key, 10)
        with pytest.raises(Refused) as refused:
            spend(keys, key, 10)
        assert refused.value.retry_after is not None
        assert refused.value.retry_after <= 1.0
