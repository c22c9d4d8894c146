"""Keys, budgets and rates, wherever they lie, and with real servers that share them."""

import contextlib
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.serve.keys import open_keys
from denature.serve.keys.base import Key, Keys, KeysUnavailable, digest_of
from denature.serve.keys.sqlite import SqliteKeys
from denature.serve.refusal import Refused
from denature.train import Run
from tests.served import body_of, redis_in, serve, spend, stop
from tests.victims import digits


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_in(tmp_path_factory.mktemp("redis")) as started:
        yield started.url


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where keys lie."""
    if request.param == "sqlite":
        return str(tmp_path / "keys")
    url: str = request.getfixturevalue("redis_url")
    redis.Redis.from_url(url).flushall()
    return url


def keys_in(place: str) -> "contextlib.closing[Keys]":
    """The keys there; patient, since sixteen writers on a busy disk wait for each other."""
    return contextlib.closing(open_keys(place, make=True, patience_s=60))


def test_a_budget_is_exact_however_many_spend_it(place: str) -> None:
    """Sixteen threads with connections of their own, as so many servers."""
    with keys_in(place) as keys:
        key = keys.add("thief", budget=1000, rate=None)

    def spend_many(number: int) -> int:
        spent = 0
        with keys_in(place) as keys:
            for images in [1 + number % 3] * 60:
                with contextlib.suppress(Refused):
                    spend(keys, key, images)
                    spent += images
        return spent

    with ThreadPoolExecutor(16) as threads:
        spent = sum(threads.map(spend_many, range(16)))
    with keys_in(place) as keys:
        [account] = keys.accounts()
    assert account.used == spent
    assert 997 < spent <= 1000


def test_a_rate_lets_through_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("denature.serve.keys.sqlite.monotonic", lambda: now[0])
    keys = SqliteKeys(tmp_path / "keys")
    key = keys.add("slow", budget=None, rate=10)
    passed = 0
    for _ in range(600):  # a minute in steps of 0.1 s
        now[0] += 0.1
        with contextlib.suppress(Refused):
            for _ in range(3):
                spend(keys, key, 1)
                passed += 1
    assert 600 <= passed <= 615
    with pytest.raises(Refused, match="The rate of 10 images/s is used up for") as refused:
        [spend(keys, key, 1) for _ in range(20)]
    assert refused.value.status == 429
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after < 2
    keys.close()


def test_accounts_are_the_same_wherever_they_lie(place: str) -> None:
    with keys_in(place) as keys:
        first = keys.add("alice", budget=10, rate=None)
        second = keys.add("bob", budget=None, rate=2.5)
        with pytest.raises(ConfigError, match="a key called 'alice' already"):
            keys.add("alice", budget=None, rate=None)
        for bad in ({"budget": -1, "rate": None}, {"budget": None, "rate": 0.0},
                    {"budget": 1, "rate": None, "burst": 5}):  # fmt: skip
            with pytest.raises(ConfigError, match="must be"):
                keys.add("carol", **bad)
        assert spend(keys, first, 4) == "alice"
        with pytest.raises(
            Refused, match="The budget of 10 images allows 6 more; 7 were requested"
        ):
            spend(keys, first, 7)
        with pytest.raises(Refused, match=r"images/s allows 2 at once; 3 were requested") as large:
            spend(keys, second, 3)  # would never pass, so it is not told to come again
        assert (large.value.status, large.value.retry_after) == (413, None)
        assert spend(keys, second, 2) == "bob"
        with pytest.raises(Refused, match=r"The rate of 2\.5 images/s is used up for") as refused:
            spend(keys, second, 1)
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 1
        keys.change("bob", budget=None, rate=2.5, burst=5)
        assert spend(keys, second, 5) == "bob"
        with pytest.raises(Refused, match="is used up for") as refused:
            spend(keys, second, 5)
        assert refused.value.retry_after is not None
        assert 1.5 < refused.value.retry_after <= 2
        for wrong in ("dn-nobody", ""):
            with pytest.raises(Refused, match="There is no such key"):
                spend(keys, wrong, 1)
        keys.change("bob", budget=8, rate=None)
        assert spend(keys, second, 1) == "bob"
        assert keys.accounts() == [
            Key(name="alice", used=4, budget=10, rate=None),
            Key(name="bob", used=8, budget=8, rate=None),
        ]
        keys.remove("alice")
        with pytest.raises(Refused, match="There is no such key"):
            spend(keys, first, 1)
        for act in (keys.remove, lambda name: keys.change(name, budget=1, rate=None)):
            with pytest.raises(ConfigError, match="no key called 'alice'"):
                act("alice")


def test_keys_are_kept_as_digests_and_can_be_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "keys")
    assert main(["keys", place]) == 1
    assert "There are no keys in" in capsys.readouterr().err
    assert main(["keys", place, "--add", "alice", "--budget", "5"]) == 0
    told = capsys.readouterr()
    key = told.out.strip()
    assert "the key of alice, shown this once" in told.err
    assert re.fullmatch(r"dn-[\w-]{43}", key)
    assert not any(key.encode() in path.read_bytes() for path in tmp_path.iterdir())
    keys = open_keys(place)
    assert spend(keys, key, 5) == "alice"
    with pytest.raises(Refused, match="The budget of 5 images allows 0 more; 1 were requested"):
        spend(keys, key, 1)
    assert main(["keys", place, "--change", "alice", "--budget", "7", "--rate", "2.5",
                 "--burst", "4"]) == 0  # fmt: skip
    assert re.search(r"alice +5 +7 +2.5 +4", capsys.readouterr().out)
    assert spend(keys, key, 1) == "alice"
    assert main(["keys", place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "alice", "used": 6, "budget": 7, "rate": 2.5, "burst": 4,
    }  # fmt: skip
    assert main(["keys", place, "--remove", "alice"]) == 0
    with pytest.raises(Refused, match="There is no such key") as refused:
        spend(keys, key, 1)
    assert refused.value.status == 401
    keys.close()
    for words, said in (
        (["--remove", "bob"], "no key called 'bob'"),
        (["--add", "x", "--budget", "-1"], "budget is -1"),
        (["--add", "x", "--rate", "0"], "rate is 0"),
        (["--add", ""], "1 to 64 printable"),
        (["--budget", "3"], "name it by --add"),
        (["--add", "x", "--remove", "x"], "Take one of"),
    ):
        assert main(["keys", place, *words]) == 1
        assert said in capsys.readouterr().err
    (tmp_path / "other").write_text("no database at all, but long enough to look at")
    assert main(["keys", str(tmp_path / "other")]) == 1
    assert "cannot be used for keys" in capsys.readouterr().err


@pytest.mark.slow
def test_a_budget_holds_against_64_clients_and_two_workers(victim: Run, tmp_path: Path) -> None:
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("thief", budget=1000, rate=None)
    served = serve(tmp_path, f"m={victim.folder}", "--keys", str(tmp_path / "keys"),
                   "--workers", "2")  # fmt: skip
    try:
        assert served.send("POST", "/v2/models/m/infer", body_of(digits(1)))[0] == 401

        def client(number: int) -> int:
            body, answered = body_of(digits(1 + number % 4)), 0
            headers = {"Authorization": f"Bearer {key}"} if number % 2 else {"X-API-Key": key}
            for _ in range(20):
                status, told, _ = served.send("POST", "/v2/models/m/infer", body, headers)
                assert status in (200, 429)
                assert status == 200 or int(told["retry-after"]) >= 1
                answered += (1 + number % 4) * (status == 200)
            return answered

        with ThreadPoolExecutor(64) as threads:
            answered = sum(threads.map(client, range(64)))
    finally:
        stop(served)
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        [account] = keys.accounts()
    assert 996 < account.used <= 1000
    assert answered == account.used
    told = [entry for entry in served.entries() if entry["status"] == 200]
    assert sum(entry["images"] for entry in told) == answered
    assert {entry["key"] for entry in told} == {"thief"}


@pytest.mark.slow
def test_servers_that_share_a_redis_share_its_budgets(
    victim: Run, tmp_path: Path, redis_url: str
) -> None:
    redis.Redis.from_url(redis_url).flushall()
    with keys_in(redis_url) as keys:
        key = keys.add("many", budget=100, rate=None)
    places = [tmp_path / "a", tmp_path / "b"]
    servers = []
    for place in places:
        place.mkdir()
        servers.append(serve(place, f"m={victim.folder}", "--keys", redis_url))
    body, headers = body_of(digits(3)), {"Authorization": f"Bearer {key}"}

    def client(number: int) -> int:
        sent = (servers[number % 2].send("POST", "/v2/models/m/infer", body, headers)
                for _ in range(6))  # fmt: skip
        return sum(status == 200 for status, *_ in sent)

    try:
        with ThreadPoolExecutor(16) as threads:
            answered = sum(threads.map(client, range(16)))
    finally:
        for served in servers:
            stop(served)
    assert answered == 33
    with keys_in(redis_url) as keys:
        assert keys.accounts()[0].used == 99


def test_a_store_of_a_former_version_is_taken_over(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "keys")) as db:
        db.execute("CREATE TABLE keys (name TEXT PRIMARY KEY, digest TEXT UNIQUE, used INTEGER NOT "
                   "NULL DEFAULT 0, budget INTEGER, rate REAL, due REAL NOT NULL DEFAULT 0) "
                   "STRICT, WITHOUT ROWID")  # fmt: skip
        db.execute("INSERT INTO keys VALUES ('old', ?, 5, 10, 4.0, ?)",
                   (digest_of("dn-old"), time.time() + 3))  # fmt: skip
        db.commit()
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        assert spend(keys, "dn-old", 2) == "old"
        [account] = keys.accounts()
        assert (account.used, account.budget, account.rate, account.burst) == (7, 10, 4.0, None)
    (tmp_path / "other").write_bytes(b"")
    with pytest.raises(KeysUnavailable, match="no such table"):
        SqliteKeys(tmp_path / "other", make=False)


def test_a_file_of_another_program_is_no_store_and_stays_as_it_is(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as db:
        db.execute("CREATE TABLE notes (text TEXT)")
        db.commit()
    before = (tmp_path / "other").read_bytes()
    for make in (False, True):
        with pytest.raises(KeysUnavailable, match="other tables and no keys"):
            SqliteKeys(tmp_path / "other", make=make)
    assert (tmp_path / "other").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "bounds"),
    [
        (["--budget", "2000"], (2000, 50.0, 64)),
        (["--rate", "20"], (1000, 20.0, 64)),
        (["--unlimited", "budget"], (None, 50.0, 64)),
        (["--unlimited", "rate"], (1000, None, None)),
        (["--unlimited", "burst", "--rate", "5"], (1000, 5.0, None)),
    ],
)
def test_a_change_keeps_the_bounds_that_it_does_not_name(
    place: str, words: list[str], bounds: tuple[int | None, float | None, int | None]
) -> None:
    with keys_in(place) as keys:
        keys.add("alice", budget=1000, rate=50, burst=64)
        assert main(["keys", place, "--change", "alice", *words]) == 0
        [account] = keys.accounts()
    assert (account.budget, account.rate, account.burst) == bounds


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--change", "alice"], "Name what changes"),
        (["--change", "alice", "--rate", "5", "--unlimited", "rate"], "rate has a value and"),
        (["--add", "bob", "--unlimited", "rate"], "leave --unlimited out"),
        (["--unlimited", "rate"], "belong to a key"),
        (["--change", "eve", "--budget", "5"], "no key called 'eve'"),
    ],
)
def test_a_change_that_says_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    place = str(tmp_path / "keys")
    with keys_in(place) as keys:
        keys.add("alice", budget=1000, rate=50, burst=64)
        assert main(["keys", place, *words]) == 1
    assert said in capsys.readouterr().err
