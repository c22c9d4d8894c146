"""Accounts in a Redis, for servers on several machines.

All decisions run inside Redis as scripts, one after the other, by the clock of Redis, so a budget
is exact over all machines. The settings of Redis (`appendonly yes`) determine how much of it
survives a crash.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import redis

from denature.core.errors import ConfigError
from denature.serve.keys.base import BURST_S, Key, check_account, digest_of, new_key, refusal
from denature.serve.refusal import Refused

NAMES = "denature:keys"
"""A hash from the accounts' names to the digests of their keys."""

ACCOUNT = "denature:key:"
"""Prefix of a digest in the name of its account's hash."""

ADD = """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'name', ARGV[1], 'used', 0, 'due', 0)
return 1
"""

CHANGE = """
local digest = redis.call('HGET', KEYS[1], ARGV[1])
if not digest then return 0 end
local account = ARGV[2] .. digest
for place, field in ipairs({'budget', 'rate'}) do
  local value = ARGV[place + 2]
  if value == '' then redis.call('HDEL', account, field)
  else redis.call('HSET', account, field, value) end
end
redis.call('HSET', account, 'due', 0)
return 1
"""

REMOVE = """
local digest = redis.call('HGET', KEYS[1], ARGV[1])
if not digest then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', ARGV[2] .. digest)
return 1
"""

SPEND = """
local name, used, budget, rate, due =
  unpack(redis.call('HMGET', KEYS[1], 'name', 'used', 'budget', 'rate', 'due'))
if not name then return {'none'} end
local images, burst, time = tonumber(ARGV[1]), tonumber(ARGV[2]), redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local over = budget and tonumber(used) + images > tonumber(budget)
if over or (rate and tonumber(due) > now + burst) then
  return {'refused', name, used, budget or '', rate or '', string.format('%.17g', due - now)}
end
redis.call('HINCRBY', KEYS[1], 'used', images)
if rate then
  local later = math.max(tonumber(due), now) + images / tonumber(rate)
  redis.call('HSET', KEYS[1], 'due', string.format('%.17g', later))
end
return {'spent', name}
"""


@final
class RedisKeys:
    """See `denature.serve.keys.base.Keys`."""

    def __init__(self, url: str) -> None:
        try:
            self._redis = redis.Redis.from_url(
                url, decode_responses=True, socket_timeout=10, socket_connect_timeout=10
            )
            self._redis.ping()
        except (redis.RedisError, ValueError) as error:
            raise ConfigError(f"The keys in {_without_password(url)}: {error}.") from None
        self._scripts = {
            name: self._redis.register_script(text)
            for name, text in (("add", ADD), ("change", CHANGE), ("remove", REMOVE))
        }
        self._spend = self._redis.register_script(SPEND)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise ConfigError(f"Redis does not answer for the keys: {error}.") from None

    def _run(self, script: str, *arguments: str, account: str = "") -> bool:
        with self._errors():
            keys = [NAMES, *([ACCOUNT + account] if account else [])]
            return bool(self._scripts[script](keys=keys, args=list(arguments)))

    def add(self, name: str, *, budget: int | None, rate: float | None) -> str:
        check_account(name, budget, rate)
        key = new_key()
        if not self._run("add", name, digest_of(key), account=digest_of(key)):
            raise ConfigError(f"There is a key called {name!r} already.")
        self.change(name, budget=budget, rate=rate)
        return key

    def change(self, name: str, *, budget: int | None, rate: float | None) -> None:
        check_account(name, budget, rate)
        bounds = ("" if bound is None else repr(bound) for bound in (budget, rate))
        self._expect(name, self._run("change", name, ACCOUNT, *bounds))

    def remove(self, name: str) -> None:
        self._expect(name, self._run("remove", name, ACCOUNT))

    def _expect(self, name: str, done: bool) -> None:
        if not done:
            raise ConfigError(f"There is no key called {name!r}.")

    def accounts(self) -> list[Key]:
        with self._errors():
            names: Any = self._redis.hgetall(NAMES)
            accounts: list[tuple[str, Any]] = [
                (name, self._redis.hgetall(ACCOUNT + digest)) for name, digest in names.items()
            ]
        return [
            Key(
                name=name,
                used=int(account["used"]),
                budget=int(account["budget"]) if "budget" in account else None,
                rate=float(account["rate"]) if "rate" in account else None,
            )
            for name, account in sorted(accounts)
            if account  # empty if it was removed meanwhile
        ]

    def spend(self, key: str, images: int) -> str:
        try:
            reply: Any = self._spend(keys=[ACCOUNT + digest_of(key)], args=[images, BURST_S])
        except redis.RedisError:
            # Without Redis no budget can be checked, so every request is refused.
            raise Refused(
                503, "Keys cannot be looked up now; retry later.", retry_after=1
            ) from None
        if reply[0] == "none":
            raise Refused(401, "There is no such key.")
        if reply[0] == "spent":
            return str(reply[1])
        _, name, used, budget, rate, ahead = reply
        account = Key(
            name=name,
            used=int(used),
            budget=int(budget) if budget else None,
            rate=float(rate) if rate else None,
        )
        raise refusal(account, images, float(ahead))

    def close(self) -> None:
        self._redis.close()


def _without_password(url: str) -> str:
    head, at, tail = url.partition("?")[0].rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at else tail
