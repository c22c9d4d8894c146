"""Accounts in a Redis, for servers on several machines.

All decisions run inside Redis as scripts, one after the other, by the clock of Redis, so a budget
is exact over all machines. The settings of Redis (`appendonly yes`) determine how much of it
survives a crash.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from denature.core.errors import ConfigError
from denature.serve.keys.base import (
    BURST_S,
    PATIENCE_S,
    Booking,
    Charge,
    Key,
    Keys,
    KeysUnavailable,
    check_account,
    digest_of,
    new_key,
)

PASSWORD = "DENATURE_REDIS_PASSWORD"
"""Environment variable with the password of the Redis."""

REPLY_S = 2 * PATIENCE_S
"""Seconds for a connection, and for a reply. A script that Redis begins later than `PATIENCE_S`
after it was sent books nothing, so what was given up is not booked behind the caller's back."""

NAMES = "denature:keys"
"""A hash from the accounts' names to the digests of their keys."""

ACCOUNT = "denature:key:"
"""Prefix of a digest in the name of its account's hash."""

SET_BOUNDS = """
local function set_bounds(account, first)
  for place, field in ipairs({'budget', 'rate', 'burst'}) do
    local value = ARGV[first + place - 1]
    if value == '' then redis.call('HDEL', account, field)
    else redis.call('HSET', account, field, value) end
  end
  redis.call('HSET', account, 'due', 0)
end
"""

ADD = (
    SET_BOUNDS
    + """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'name', ARGV[1], 'used', 0)
set_bounds(KEYS[2], 3)
return 1
"""
)

CHANGE = (
    SET_BOUNDS
    + """
local digest = redis.call('HGET', KEYS[1], ARGV[1])
if not digest then return 0 end
set_bounds(ARGV[2] .. digest, 3)
return 1
"""
)

REMOVE = """
local digest = redis.call('HGET', KEYS[1], ARGV[1])
if not digest then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', ARGV[2] .. digest)
return 1
"""

BOOK = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local replies = {string.format('%.17g', now)}
if now > tonumber(ARGV[1]) then return replies end
local burst_s, slack_s = tonumber(ARGV[2]), 1e-6
for place, account in ipairs(KEYS) do
  local images = tonumber(ARGV[place + 2])
  local name, used, budget, rate, burst, due =
    unpack(redis.call('HMGET', account, 'name', 'used', 'budget', 'rate', 'burst', 'due'))
  if not name then
    replies[place + 1] = {}
  else
    local within = not budget or tonumber(used) + images <= tonumber(budget)
    local lead, after = 0, 0
    if rate then
      local most = (tonumber(burst) or math.max(tonumber(rate) * burst_s, 1)) / tonumber(rate)
      lead = tonumber(due) - now
      if lead < 0 or lead > most + slack_s then lead = 0 end
      after = math.max(0, lead + images / tonumber(rate))
      within = within and after <= most + slack_s
    end
    local allowed = images <= 0 or within
    if allowed and images ~= 0 then
      redis.call('HSET', account, 'used', string.format('%d', math.max(0, used + images)),
        'due', string.format('%.17g', now + after))
    end
    replies[place + 1] = {name, used, budget or '', rate or '', burst or '',
      allowed and 1 or 0, string.format('%.17g', lead)}
  end
end
return replies
"""


@final
class RedisKeys(Keys):
    """See `denature.serve.keys.base.Keys`.

    Args:
        url: the Redis, without a password, which comes from the environment.

    Raises:
        ConfigError: the URL is invalid or holds a password, or Redis does not answer.
    """

    def __init__(self, url: str) -> None:
        try:
            if "password" in parse_url(url):  # type: ignore[no-untyped-call]
                raise ConfigError(
                    f"The URL of the keys in {_without_password(url)} holds a password, which the "
                    f"list of processes shows; leave it out and set {PASSWORD}."
                )
            self._redis = redis.Redis.from_url(
                url,
                password=os.environ.get(PASSWORD),
                decode_responses=True,
                socket_timeout=REPLY_S,
                socket_connect_timeout=REPLY_S,
                # A script that was sent again could book twice.
                retry=Retry(NoBackoff(), 0),
            )
            seconds, micros = self._redis.time()
        except ConfigError:
            raise
        except (redis.RedisError, ValueError) as error:
            raise ConfigError(f"The keys in {_without_password(url)}: {error}.") from None
        self._ahead_s = seconds + micros / 1e6 - time.monotonic()
        """Seconds by which the clock of Redis is ahead of this process's."""
        self._scripts = {
            name: self._redis.register_script(text)
            for name, text in (("add", ADD), ("change", CHANGE), ("remove", REMOVE))
        }
        self._book = self._redis.register_script(BOOK)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise KeysUnavailable(f"Redis does not answer for the keys: {error}.") from None

    def _run(self, script: str, *arguments: str, account: str = "") -> bool:
        with self._errors():
            keys = [NAMES, *([ACCOUNT + account] if account else [])]
            return bool(self._scripts[script](keys=keys, args=list(arguments)))

    def add(
        self, name: str, *, budget: int | None, rate: float | None, burst: int | None = None
    ) -> str:
        check_account(name, budget, rate, burst)
        key = new_key()
        bounds = _texts(budget, rate, burst)
        if not self._run("add", name, digest_of(key), *bounds, account=digest_of(key)):
            raise ConfigError(
                f"There is a key called {name!r} already; pass --change {name}, or another name."
            )
        return key

    def change(
        self, name: str, *, budget: int | None, rate: float | None, burst: int | None = None
    ) -> None:
        check_account(name, budget, rate, burst)
        self._expect(name, self._run("change", name, ACCOUNT, *_texts(budget, rate, burst)))

    def remove(self, name: str) -> None:
        self._expect(name, self._run("remove", name, ACCOUNT))

    def _expect(self, name: str, done: bool) -> None:
        if not done:
            raise ConfigError(f"There is no key called {name!r}; `denature keys URL` lists them.")

    def accounts(self) -> list[Key]:
        fields = ("name", "used", "budget", "rate", "burst")
        with self._errors():
            names: Any = self._redis.hgetall(NAMES)
            accounts: Any = [
                self._redis.hmget(ACCOUNT + digest, fields) for _, digest in sorted(names.items())
            ]
        # The name is missing if the account was removed meanwhile.
        return [_key(*account) for account in accounts if account[0] is not None]

    def book(self, charges: Sequence[Charge]) -> list[Booking]:
        names = [ACCOUNT + charge.digest for charge in charges]
        images = [charge.images for charge in charges]
        for _ in range(2):  # again if the clock of Redis was set
            deadline = time.monotonic() + self._ahead_s + PATIENCE_S
            with self._errors():
                now, *replies = self._book(keys=names, args=[repr(deadline), BURST_S, *images])
            self._ahead_s = float(now) - time.monotonic()
            if replies:
                return [_booking(*pair) for pair in zip(charges, replies, strict=True)]
        raise KeysUnavailable(f"Redis takes more than {PATIENCE_S:g} s for the keys.")

    def close(self) -> None:
        self._redis.close()


def _booking(charge: Charge, reply: Sequence[Any]) -> Booking:
    if not reply:
        return Booking(charge, None)
    *account, allowed, lead = reply
    return Booking(charge, _key(*account), bool(allowed), float(lead))


def _key(name: str, used: str, budget: str, rate: str, burst: str) -> Key:
    return Key(
        name=name,
        used=int(used),
        budget=int(budget) if budget else None,
        rate=float(rate) if rate else None,
        burst=int(burst) if burst else None,
    )


def _texts(*bounds: float | None) -> list[str]:
    return ["" if bound is None else repr(bound) for bound in bounds]


def _without_password(url: str) -> str:
    head, at, tail = url.partition("?")[0].rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at else tail
