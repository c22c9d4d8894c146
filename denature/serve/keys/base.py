"""Accounts of callers: the interface of a store, and what all stores have in common."""

import hashlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from denature.core.errors import ConfigError
from denature.serve.refusal import Refused

BURST_S = 1.0
"""Seconds' worth of a rate that may pass at once, where an account names no other burst."""

SLACK_S = 1e-6
"""Seconds that rounding may add."""

PATIENCE_S = 0.5
"""Seconds for which a store is waited for, while it is locked or does not reply."""

UNAVAILABLE_RETRY_S = 1.0
"""Retry-After while a store cannot be used."""

SPENT_RETRY_S = 86_400.0
"""Retry-After for a spent budget: the owner may grant more within a day."""


class KeysUnavailable(ConfigError):
    """The store of the keys cannot be used now: it is locked, damaged, full, stopped or gone."""


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
    burst: int | None = None
    """Images at once under the rate; None for one second's worth, and at least one image."""

    @property
    def at_once(self) -> float:
        """Images that the rate lets through at once."""
        assert self.rate is not None
        return max(self.rate * BURST_S, 1.0) if self.burst is None else self.burst

    @property
    def longest_lead_s(self) -> float:
        """Seconds by which an account can be ahead of its rate."""
        return 0.0 if self.rate is None else self.at_once / self.rate

    def lead_s(self, noted_s: float) -> float:
        """Seconds by which the account is ahead of its rate, of those that were noted.

        A lead that no charges can have given was noted by another clock, such as that of an
        earlier start of the machine, and counts as none.
        """
        return noted_s if 0 <= noted_s <= self.longest_lead_s + SLACK_S else 0.0


class Charge(NamedTuple):
    """Images to book on an account."""

    digest: str
    """Of the key."""
    images: int
    """0 to look the account up, below 0 to give images back; both are always allowed."""


@final
@dataclass(frozen=True, slots=True)
class Booking:
    """What became of a charge."""

    charge: Charge
    key: Key | None
    """The account before the charge; None for an unknown key."""
    booked: bool = False
    lead_s: float = 0.0
    """Seconds by which the account was ahead of its rate before the charge."""

    def check(self) -> str:
        """The account's name.

        Raises:
            Refused: with 401 for an unknown key, 413 for more images than the rate ever lets
                through at once, 429 where budget or rate do not allow them now.
        """
        if self.key is None:
            raise Refused(401, "There is no such key.")
        if not self.booked:
            raise _refusal(self.key, self.charge.images, self.lead_s)
        return self.key.name


class Keys(ABC):
    """Accounts of the callers.

    All methods raise `KeysUnavailable` where the store cannot be used, in little more than the
    seconds for which it is waited.
    """

    @abstractmethod
    def add(
        self, name: str, *, budget: int | None, rate: float | None, burst: int | None = None
    ) -> str:
        """Open an account; returns its key, which is not stored."""

    @abstractmethod
    def change(
        self, name: str, *, budget: int | None, rate: float | None, burst: int | None = None
    ) -> None:
        """Set another budget, rate and burst for an account."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Close an account."""

    @abstractmethod
    def accounts(self) -> list[Key]:
        """All accounts, sorted by name."""

    @abstractmethod
    def book(self, charges: Sequence[Charge]) -> list[Booking]:
        """Check charges one after another and book those that are allowed, in one transaction.

        Either all bookings that are returned are in the store, or an error is raised and none is.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the store."""


def after(key: Key, lead_s: float, images: int) -> tuple[bool, float]:
    """Whether a charge is allowed, and the account's lead over its rate once it was booked.

    A rate is a bucket of `at_once` images that refills all the time (the generic cell rate
    algorithm); the lead is what is missing in it, in seconds.
    """
    then_s = max(0.0, lead_s + images / key.rate) if key.rate is not None else 0.0
    within = key.budget is None or key.used + images <= key.budget
    return images <= 0 or (within and then_s <= key.longest_lead_s + SLACK_S), then_s


def unavailable(cause: str) -> Refused:
    """The refusal while a store cannot be used; the log has the cause."""
    return Refused(
        503,
        "Keys cannot be looked up now; retry later.",
        retry_after=UNAVAILABLE_RETRY_S,
        cause=cause,
    )


def check_account(name: str, budget: int | None, rate: float | None, burst: int | None) -> None:
    if not name or len(name) > 64 or not name.isprintable():
        raise ConfigError(f"The key's name is {name!r}; wanted are 1 to 64 printable characters.")
    if budget is not None and budget < 0:
        raise ConfigError(f"budget is {budget}; it must be at least 0.")
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigError(f"rate is {rate}; it must be above 0.")
    if burst is not None and (burst < 1 or rate is None):
        raise ConfigError(f"burst is {burst}; it must be at least 1, and belongs to a rate.")


def digest_of(key: str) -> str:
    """Stored form of a key: with its 256 random bits, a plain hash cannot be inverted."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    return f"dn-{secrets.token_urlsafe(32)}"


def _refusal(key: Key, images: int, lead_s: float) -> Refused:
    if key.budget is not None and key.used + images > key.budget:
        left = max(0, key.budget - key.used)
        return Refused(
            429,
            f"The budget of {key.budget} images allows {left} more; {images} were requested."
            + (f" Send at most {left} in a request." if left else ""),
            retry_after=SPENT_RETRY_S,
        )
    assert key.rate is not None
    if images > key.at_once:
        return Refused(
            413,
            f"The rate of {key.rate:g} images/s allows {int(key.at_once)} at once; {images} were "
            "requested. Send fewer in a request.",
        )
    wait = max(lead_s + images / key.rate - key.longest_lead_s, 0.001)
    return Refused(
        429, f"The rate of {key.rate:g} images/s is used up for {wait:.3g} s.", retry_after=wait
    )
