"""Keys in a Redis: where it is away, stopped or of another time."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from denature.core.errors import ConfigError
from denature.serve.keys import open_keys
from denature.serve.keys.base import Charge, Keys, digest_of
from denature.serve.keys.process import StoreProcess
from denature.serve.keys.queue import ChargeQueue
from denature.serve.keys.sqlite import SqliteKeys
from denature.serve.refusal import Refused
from tests.served import OwnRedis, redis_in, spend

HOUR_S, YEAR_S = 3600.0, 365 * 86_400.0


def keys_in(place: str) -> "contextlib.closing[Keys]":
    return contextlib.closing(open_keys(place, make=True))


def test_no_redis_is_told_without_its_password() -> None:
    with pytest.raises(ConfigError, match="redis://…@localhost:9") as error:
        open_keys("redis://:secret@localhost:9")
    assert "secret" not in str(error.value)


def test_a_redis_that_goes_away_admits_no_client(tmp_path: Path) -> None:
    with redis_in(tmp_path) as (process, url), keys_in(url) as keys:
        key = keys.add("alice", budget=10, rate=None)
        process.kill()
        process.wait()
        with pytest.raises(Refused, match="cannot be looked up") as refused:
            spend(keys, key, 1)
        assert refused.value.status == 503
        with pytest.raises(ConfigError, match="Redis does not answer"):
            keys.accounts()


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
            spend(keys, key, 10)
            with pytest.raises(Refused, match="is used up") as refused:
                spend(keys, key, 10)
            assert refused.value.retry_after is not None
            assert refused.value.retry_after <= 1.0
        keys._ahead_s -= YEAR_S  # type: ignore[attr-defined]  # as if it was set a year ahead
        assert keys.book([Charge(digest_of(key), 0)])[0].check() == "slow"


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
