"""Accounts of callers: the interface of a store, and what all stores have in common."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Protocol, final

from denature.core.errors import ConfigError
from denature.serve.refusal import Refused

BURST_S = 1.0
"""Seconds that a key may be ahead of its rate."""

SPENT_RETRY_S = 86_400.0
"""Retry-After for a spent budget: the owner may grant more within a day."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A caller's account."""

    name: str
    used: int
    budget: int | None
    """Images in all; None for no bound."""
    rate: float | None
    """Images a second; None for no bound."""


class Keys(Protocol):
    """Accounts of the callers."""

    def add(self, name: str, *, budget: int | None, rate: float | None) -> str:
        """Open an account; returns its key, which is not stored."""

    def change(self, name: str, *, budget: int | None, rate: float | None) -> None:
        """Set another budget and rate for an account."""

    def remove(self, name: str) -> None:
        """Close an account."""

    def accounts(self) -> list[Key]:
        """All accounts, sorted by name."""

    def spend(self, key: str, images: int) -> str:
        """Book images on a key's account; returns its name.

        Raises:
            Refused: with 401 for an unknown key, 429 where budget or rate do not allow it.
        """

    def close(self) -> None:
        """Close the store."""


def check_account(name: str, budget: int | None, rate: float | None) -> None:
    if not name or len(name) > 64 or not name.isprintable():
        raise ConfigError(f"The key's name is {name!r}; wanted are 1 to 64 printable characters.")
    if budget is not None and budget < 0:
        raise ConfigError(f"budget is {budget}; it must be at least 0.")
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigError(f"rate is {rate}; it must be above 0.")


def digest_of(key: str) -> str:
    """Stored form of a key: with its 256 random bits, a plain hash cannot be inverted."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    return f"dn-{secrets.token_urlsafe(32)}"


def refusal(key: Key, images: int, ahead_s: float) -> Refused:
    """The refusal of a request beyond an account's budget or rate.

    Args:
        key: the account.
        images: number of images in the request.
        ahead_s: seconds that the account is ahead of its rate.
    """
    if key.budget is not None and key.used + images > key.budget:
        left = max(0, key.budget - key.used)
        return Refused(
            429,
            f"The budget of {key.budget} images allows {left} more; {images} were requested.",
            retry_after=SPENT_RETRY_S,
        )
    wait = max(ahead_s - BURST_S, 0.001)
    return Refused(
        429, f"The rate of {key.rate:g} images/s is used up for {wait:.3g} s.", retry_after=wait
    )
