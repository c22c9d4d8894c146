"""A server whose keys, clocks or log fail: it goes on, and charges what it answers."""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.serve.keys import open_keys
from denature.serve.keys.base import Charge, KeysUnavailable, digest_of
from denature.serve.keys.process import StoreProcess
from denature.serve.keys.queue import ChargeQueue
from denature.serve.keys.sqlite import SqliteKeys
from denature.serve.log import LineWriter
from denature.serve.refusal import Refused
from denature.train import Normal, Run, Training, train
from tests.processes import Command
from tests.served import OwnRedis, Served, redis_in, serve, stop

INFER = "/v2/models/m/infer"
HOUR_S, YEAR_S = 3600.0, 365 * 86_400.0


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    learning = Training(epochs=1, batch_size=64, device="cpu", precision="fp32")
    return train("mlp", "digits", Normal(), learning, out=tmp_path_factory.mktemp("runs") / "m")


def body(images: int = 1) -> bytes:
    tensor = {"name": "images", "shape": [images, 1, 8, 8], "datatype": "UINT8",
              "data": [7] * 64 * images}  # fmt: skip
    return json.dumps({"inputs": [tensor]}).encode()


@dataclass
class Guarded:
    """A server with keys."""

    served: Served
    keys: Path
    key: str
    answered: int = 0

    def ask(self, images: int = 1) -> tuple[int, dict[str, str]]:
        headers = {"Authorization": f"Bearer {self.key}"}
        status, told, _ = self.served.send("POST", INFER, body(images), headers)
        self.answered += images * (status == 200)
        assert status != 503 or told["retry-after"] == "1"
        return status, told

    def ask_at_once(self, count: int) -> set[int]:
        with ThreadPoolExecutor(count) as threads:
            return {status for status, _ in threads.map(lambda _: self.ask(), range(count))}

    def until_answered(self) -> None:
        for _ in range(200):
            if self.ask()[0] == 200:
                return
            time.sleep(0.05)
        raise AssertionError("the keys do not come back")

    def store(self) -> int:
        """The process that has the keys open."""
        for children in Path(f"/proc/{self.served.process.pid}/task").glob("*/children"):
            for child in children.read_text().split():
                if b"denature.serve.keys.process" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        raise AssertionError("no process of the keys")

    def check(self) -> None:
        """Nothing was charged that was not answered, and the other way round."""
        with contextlib.closing(open_keys(str(self.keys))) as keys:
            assert [account.used for account in keys.accounts()] == [self.answered]
        assert self.served.process.poll() is None
        assert self.served.send("GET", "/v2/health/live")[0] == 200


@pytest.fixture(scope="module")
def server(victim: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    place = tmp_path_factory.mktemp("guarded")
    with contextlib.closing(SqliteKeys(place / "keys")) as keys:
        key = keys.add("alice", budget=100_000, rate=None)
    served = serve(place, f"m={victim.folder}", "--keys", str(place / "keys"))
    yield Guarded(served, place / "keys", key)
    stop(served)


# The store of the keys


def test_a_locked_store_refuses_all_callers_side_by_side(server: Guarded) -> None:
    assert server.ask()[0] == 200
    with contextlib.closing(sqlite3.connect(server.keys, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        # One after another they would take 12 s, and with the former time-out 12 minutes.
        assert server.ask_at_once(24) == {503}
        assert time.monotonic() - started < 10
        other.execute("ROLLBACK")
    server.until_answered()
    server.check()
    assert any("is locked" in entry.get("error", "") for entry in server.served.entries())


@pytest.mark.parametrize("fault", ["damaged", "emptied", "deleted", "replaced"])
def test_a_store_that_is_no_longer_there_is_not_believed(server: Guarded, fault: str) -> None:
    server.until_answered()
    parts = [server.keys.with_name(server.keys.name + end) for end in ("", "-wal", "-shm")]
    kept = server.keys.parent / "kept"
    with contextlib.closing(sqlite3.connect(server.keys)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(server.keys, kept)
    if fault == "damaged":
        server.keys.write_bytes(os.urandom(server.keys.stat().st_size))
    elif fault == "emptied":
        os.truncate(server.keys, 0)
    else:
        for part in parts:
            part.unlink(missing_ok=True)
        if fault == "replaced":  # by the keys of others
            SqliteKeys(server.keys).close()
    assert server.ask_at_once(4) == {401 if fault == "replaced" else 503}
    for part in parts:
        part.unlink(missing_ok=True)
    kept.rename(server.keys)
    server.until_answered()
    server.check()


def test_a_full_disk_charges_nothing(server: Guarded) -> None:
    server.until_answered()
    store = server.store()
    free = resource.prlimit(store, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        assert server.ask_at_once(4) == {503}
    finally:
        resource.prlimit(store, resource.RLIMIT_FSIZE, free)
    server.until_answered()
    server.check()


def test_a_truncated_index_ends_no_server(server: Guarded) -> None:
    """SQLite maps it, so the process that reads it ends with SIGBUS."""
    server.until_answered()
    before = server.store()
    os.truncate(f"{server.keys}-shm", 0)
    assert server.ask_at_once(4) <= {200, 503}
    server.until_answered()
    assert server.store() != before
    server.check()


def test_a_store_that_hangs_is_started_again(server: Guarded) -> None:
    server.until_answered()
    before = server.store()
    os.kill(before, signal.SIGSTOP)
    assert 503 in server.ask_at_once(4) <= {200, 503}
    server.until_answered()
    assert server.store() != before
    server.check()


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
            for _ in range(1500):
                with contextlib.suppress(Refused):
                    keys.spend(key, 2)
        finally:
            done.set()
            thread.join()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    with redis_in(tmp_path) as started:
        yield started


def test_a_stopped_redis_refuses_all_and_books_nothing_later(
    own_redis: OwnRedis,
) -> None:
    process, url = own_redis
    with contextlib.closing(open_keys(url)) as keys:
        key = keys.add("alice", budget=100, rate=None)

        async def ask() -> list[int]:
            queue = ChargeQueue(StoreProcess(url))
            await queue.start()
            process.send_signal(signal.SIGSTOP)
            found = await asyncio.gather(
                *(queue.book(key, 1) for _ in range(8)), return_exceptions=True
            )
            process.send_signal(signal.SIGCONT)
            assert (await queue.book(key, 7)).check() == "alice"
            await queue.close()
            return [getattr(error, "status", 200) for error in found]

        assert asyncio.run(ask()) == [503] * 8
        assert keys.accounts()[0].used == 7


def test_a_redis_password_comes_from_the_environment(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = own_redis
    redis.Redis.from_url(url).config_set("requirepass", "hidden-word")
    with pytest.raises(ConfigError, match="authenticated"):
        open_keys(url)
    for wrong in (f"{url}?password=hidden-word", url.replace("//", "//:hidden-word@")):
        with pytest.raises(ConfigError, match="set DENATURE_REDIS_PASSWORD") as error:
            open_keys(wrong)
        assert "hidden-word" not in str(error.value)
    monkeypatch.setenv("DENATURE_REDIS_PASSWORD", "hidden-word")
    with contextlib.closing(open_keys(url)) as keys:
        assert keys.accounts() == []


# Clocks


@pytest.mark.parametrize("step", [-HOUR_S, HOUR_S, YEAR_S])
def test_a_clock_that_jumps_locks_no_key_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    now = [10 * HOUR_S]
    monkeypatch.setattr("denature.serve.keys.sqlite.monotonic", lambda: now[0])
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("slow", budget=None, rate=10)
        keys.spend(key, 10)
        with pytest.raises(Refused):
            keys.spend(key, 1)
        now[0] += step
        keys.spend(key, 10)  # one request by another clock
        now[0] -= step
        now[0] += 1.0
        keys.spend(key, 10)
        with pytest.raises(Refused) as refused:
            keys.spend(key, 10)
        assert refused.value.retry_after is not None
        assert refused.value.retry_after <= 1.0


def test_the_clock_of_a_redis_may_jump(
    own_redis: OwnRedis,
) -> None:
    """The lead that is noted stands for its former clock."""
    _, url = own_redis
    raw = redis.Redis.from_url(url, decode_responses=True)
    with contextlib.closing(open_keys(url)) as keys:
        key = keys.add("slow", budget=None, rate=10)
        for step in (-YEAR_S, YEAR_S, HOUR_S):
            raw.hset(f"denature:key:{digest_of(key)}", "due", str(time.time() + step))
            keys.spend(key, 10)
            with pytest.raises(Refused, match="is used up") as refused:
                keys.spend(key, 10)
            assert refused.value.retry_after is not None
            assert refused.value.retry_after <= 1.0
        keys._ahead_s -= YEAR_S  # type: ignore[attr-defined]  # as if it was set a year ahead
        assert keys.book([Charge(digest_of(key), 0)])[0].check() == "slow"


# The log


def test_lines_that_cannot_be_written_are_counted_and_fail_no_request(
    victim: Run, tmp_path: Path
) -> None:
    """A full disk, as /dev/full is one."""
    with running(victim, "--log", "/dev/full") as served:
        for _ in range(5):
            assert served.send("POST", INFER, body())[0] == 200
        assert lost_lines(served, least=5) == 5


def test_a_reader_of_the_log_that_leaves_or_stalls_stops_nothing(victim: Run) -> None:
    for leaves in (True, False):
        ours, theirs = os.pipe()
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
        with running(victim, stderr=theirs) as served:
            os.close(theirs)
            if leaves:
                os.close(ours)
            for _ in range(60):  # of more than 100 bytes each
                assert served.send("POST", INFER, body())[0] == 200
            assert served.send("GET", "/v2/health/live")[0] == 200
            if leaves:
                assert lost_lines(served, least=60) >= 60
        if not leaves:
            os.close(ours)


def test_lines_beyond_those_that_may_wait_are_lost_and_the_others_whole(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    lost: list[int] = []
    writer = LineWriter(theirs, lost.append)
    for number in range(20_000):
        writer.put(f"{number:09d}")
    assert 0 < sum(lost) < 20_000
    kept = 20_000 - sum(lost)
    with open(ours, "rb") as reader:
        lines = [reader.readline() for _ in range(kept)]
        assert lines == sorted(lines)
        assert set(map(len, lines)) == {10}
        writer.close()
    os.close(theirs)


def test_a_line_that_a_disk_took_in_part_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = (
        "import os, resource, signal, sys\n"
        "from denature.serve.log import LineWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "lost = []\n"
        "place = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (14, resource.RLIM_INFINITY))\n"
        "for line in ('{\"a\": 1}', '{\"b\": 2}'):\n"
        "    writer = LineWriter(place, lost.append) if line[2] == 'a' else writer\n"
        "    writer.put(line)\n"
        "while not lost: pass\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "writer.put('{\"c\": 3}')\n"
        "writer.close()\n"
        "print(sum(lost))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert whole == ['{"a": 1}', '{"c": 3}']


def test_a_log_that_cannot_be_opened_is_told_at_the_start(
    victim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(victim.folder), "--port", "0", "--log", str(tmp_path)]) == 1
    assert "cannot be written: Is a directory" in capsys.readouterr().err


@contextlib.contextmanager
def running(
    victim: Run, *words: str, stderr: int | None = None, env: dict[str, str] | None = None
) -> Iterator[Served]:
    with Command(
        *("serve", f"m={victim.folder}", "--port", "0", "--device", "cpu", *words),
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **(env or {})},
    ) as process:
        assert process.stdout is not None
        found = re.match(r"http://([\d.:]+)/", process.stdout.readline())
        assert found is not None
        try:
            yield Served(process, found[1], Path("none"))
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def lost_lines(served: Served, least: int) -> float:
    for _ in range(500):
        figures = served.send("GET", "/metrics")[2].decode()
        found = re.search(r"^denature_log_lines_lost_total (.*)$", figures, re.M)
        assert found is not None
        if (lost := float(found[1])) >= least:
            return lost
        time.sleep(0.02)
    raise AssertionError(f"{lost:g} lines are lost, of {least}")


# What is shown


SHOWN = [("GET", "/v2"), ("GET", "/v2/models/m"), ("GET", "/v2/models/none"),
         ("GET", "/v2/models/m/ready"), ("GET", "/v2/models/m/versions/1"),
         ("POST", "/v2/repository/index")]  # fmt: skip


def test_without_a_key_nothing_is_shown_but_health(server: Guarded) -> None:
    ask, before = server.served.send, len(server.served.entries())
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert ask("GET", path)[0] == 200
    for method, path in SHOWN:
        for headers in ({}, {"X-API-Key": "dn-secret-of-another-server"}):
            assert ask(method, path, None, headers)[0] == 401, path
        known = {"X-API-Key": server.key}
        assert ask(method, path, None, known)[0] == (404 if "none" in path else 200)
    assert ask("POST", INFER, body(), {"X-API-Key": "dn-secret-of-another-server"})[0] == 401
    refused = [entry for entry in server.served.entries()[before:] if entry["status"] == 401]
    assert len(refused) == 2 * len(SHOWN) + 1
    assert {entry["peer"] for entry in refused} == {"127.0.0.1"}
    assert {entry["error"] for entry in refused} >= {"There is no such key."}
    assert "dn-" not in server.served.log.read_text()
    server.check()


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/admin", 404), ("DELETE", "/v2", 405)]
)
def test_what_the_server_does_not_have_is_logged_too(
    server: Guarded, method: str, path: str, status: int
) -> None:
    before = len(server.served.entries())
    assert server.served.send(method, path)[0] == status
    [entry] = server.served.entries()[before:]
    assert (entry["status"], entry["peer"], entry["model"]) == (status, "127.0.0.1", None)
    assert entry["error"] in ("Not Found", "Method Not Allowed")


def test_a_refused_request_is_logged_with_its_key(server: Guarded) -> None:
    server.until_answered()
    with contextlib.closing(open_keys(str(server.keys), patience_s=10)) as keys:
        keys.change("alice", budget=server.answered, rate=None)
        assert server.ask()[0] == 429
        keys.change("alice", budget=100_000, rate=None)
    entry = server.served.entries()[-1]
    assert (entry["key"], entry["status"], entry["peer"]) == ("alice", 429, "127.0.0.1")
    assert entry["error"].startswith("The budget of")


def test_tritons_client_shows_its_key_for_metadata_too(server: Guarded) -> None:
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(server.served.address)
    headers = {"Authorization": f"Bearer {server.key}"}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m", headers=headers)
    assert client.get_server_metadata(headers=headers)["name"] == "denature"
    assert client.get_model_metadata("m", headers=headers)["name"] == "m"
    assert client.get_model_repository_index(headers=headers)[0]["name"] == "m"
    assert not client.is_model_ready("m")
    client.close()


def test_metrics_are_for_this_machine_or_a_token(victim: Run, server: Guarded) -> None:
    ask = server.served.send
    assert ask("GET", "/metrics")[0] == 200
    for proxied in ("X-Forwarded-For", "Forwarded", "Via"):
        assert ask("GET", "/metrics", None, {proxied: "203.0.113.9"})[0] == 403
    with running(victim, "--log", "off", env={"DENATURE_METRICS_TOKEN": "word"}) as served:
        assert served.send("GET", "/metrics")[0] == 401
        for word, status in (("other", 401), ("wörd", 401), ("word", 200)):
            headers = {"Authorization": f"Bearer {word}"}
            assert served.send("GET", "/metrics", None, headers)[0] == status


def test_the_file_of_the_keys_is_its_owners(tmp_path: Path, victim: Run) -> None:
    former = os.umask(0)
    try:
        assert main(["keys", str(tmp_path / "keys"), "--add", "alice"]) == 0
    finally:
        os.umask(former)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        keys.accounts()
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    (tmp_path / "keys").chmod(0o644)
    assert "chmod 600" in warnings_of(victim, "--keys", str(tmp_path / "keys"))


def test_no_keys_are_warned_of_in_every_form(victim: Run) -> None:
    assert "Without --keys every client" in warnings_of(victim)


def warnings_of(victim: Run, *words: str) -> str:
    """The warnings of a server, which must be the same on standard error and in its JSON."""
    with Command(
        *("serve", f"m={victim.folder}", "--port", "0", "--json", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        told: dict[str, Any] = json.loads(process.stdout.readline())
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert told["warnings"] == errors.splitlines()
    return errors


def test_a_store_of_a_former_version_is_taken_over(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "keys")) as db:
        db.execute("CREATE TABLE keys (name TEXT PRIMARY KEY, digest TEXT UNIQUE, used INTEGER NOT "
                   "NULL DEFAULT 0, budget INTEGER, rate REAL, due REAL NOT NULL DEFAULT 0) "
                   "STRICT, WITHOUT ROWID")  # fmt: skip
        db.execute("INSERT INTO keys VALUES ('old', ?, 5, 10, 4.0, ?)",
                   (digest_of("dn-old"), time.time() + 3))  # fmt: skip
        db.commit()
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        assert keys.spend("dn-old", 2) == "old"
        [account] = keys.accounts()
        assert (account.used, account.budget, account.rate, account.burst) == (7, 10, 4.0, None)
    (tmp_path / "other").write_bytes(b"")
    empty = SqliteKeys(tmp_path / "other", make=False)
    with contextlib.closing(empty), pytest.raises(KeysUnavailable, match="no such table"):
        empty.accounts()


def test_rates_are_charged_in_images_and_alike_in_both_stores(
    own_redis: OwnRedis, tmp_path: Path
) -> None:
    """A rate of 10 lets 10 images through at once, in one request or in many."""
    draw = np.random.default_rng(0)
    with (
        contextlib.closing(SqliteKeys(tmp_path / "keys")) as file,
        contextlib.closing(open_keys(own_redis[1])) as other,
    ):
        pairs = [(keys, keys.add("a", budget=None, rate=0.01, burst=50)) for keys in (file, other)]
        for images in draw.integers(-30, 60, 60).tolist():
            found = [keys.book([Charge(digest_of(key), images)])[0] for keys, key in pairs]
            assert found[0].key == found[1].key
            assert found[0].booked == found[1].booked, images
            assert found[0].lead_s == pytest.approx(found[1].lead_s, abs=60)
