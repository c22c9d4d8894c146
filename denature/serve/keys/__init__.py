"""Keys, budgets and rates of callers, exact over all processes that share the store.

A budget is a total number of images, a rate is a number of images a second. One transaction checks
a request and books it, so two requests cannot spend the same image.
"""

from pathlib import Path

from denature.core.errors import ConfigError, MissingExtra
from denature.serve.keys.base import PATIENCE_S, Keys
from denature.serve.keys.sqlite import SqliteKeys

REDIS = ("redis://", "rediss://", "unix://")


def open_keys(place: str, *, make: bool = False, patience_s: float = PATIENCE_S) -> Keys:
    """The accounts in a file or in a Redis.

    Args:
        place: a file, or a URL without a password: `redis://`, `rediss://` or `unix://`.
        make: whether to create a missing file.
        patience_s: seconds for which a locked file is waited for.

    Raises:
        ConfigError: the store does not exist, or cannot be used.
        MissingExtra: the URL is a Redis, and its client is not installed.
    """
    if place.startswith(REDIS):
        try:
            from denature.serve.keys.redis import RedisKeys
        except ModuleNotFoundError:
            raise MissingExtra("redis", "redis", "Keys in a Redis") from None
        return RedisKeys(place)
    path = Path(place)
    if not make and not path.is_file():
        raise ConfigError(f"There are no keys in {path}. Make one: denature keys {path} --add NAME")
    return SqliteKeys(path, make=make, patience_s=patience_s)


def is_readable_by_others(place: str) -> bool:
    """Whether the file of the keys can be read by others than its owner."""
    if place.startswith(REDIS):
        return False
    return bool(Path(place).stat().st_mode & 0o077)
