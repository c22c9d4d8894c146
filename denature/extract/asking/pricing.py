"""Prices of queries: a dated table of services, or one price from the caller."""

import math
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import final

from denature.core.errors import ConfigError


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Queries of a month at the same price."""

    up_to: float
    """Number of the last query of the band; infinity for the last band."""
    price: float
    """US dollars a query."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Prices of a service."""

    bands: tuple[Band, ...]
    as_of: str
    source: str

    def cost(self, queries: float) -> float:
        """US dollars for this number of queries in one month."""
        total, before = 0.0, 0.0
        for band in self.bands:
            total += band.price * max(0.0, min(queries, band.up_to) - before)
            before = band.up_to
        return total

    def queries_for(self, money: float) -> float:
        """Number of queries in one month for these US dollars; infinity where queries are free."""
        spent, before = 0.0, 0.0
        for band in self.bands:
            whole = band.price * (band.up_to - before) if band.price else 0.0
            if band.price and spent + whole >= money:
                return before + (money - spent) / band.price
            spent, before = spent + whole, band.up_to
        return math.inf


def check_price(per_1000: float) -> None:
    """Check a price in US dollars for a thousand queries.

    Raises:
        ConfigError: it is below 0, or not finite.
    """
    if not 0 <= per_1000 < math.inf:
        raise ConfigError(f"price_per_1000 is {per_1000}; it must be at least 0, and finite.")


def one_price(per_1000: float) -> Prices:
    """One price for all queries; see `check_price`."""
    check_price(per_1000)
    return Prices(
        bands=(Band(up_to=math.inf, price=per_1000 / 1000),), as_of="", source="given by the caller"
    )


def prices_of(service: str) -> Prices | None:
    """The prices in the table; None for a service that is not in it."""
    text = (files("denature.extract.asking") / "prices.toml").read_text(encoding="utf-8")
    entry = tomllib.loads(text).get(service)
    if entry is None:
        return None
    bands = tuple(
        Band(up_to=float(band.get("up_to", math.inf)), price=band["price"])
        for band in entry["bands"]
    )
    return Prices(bands=bands, as_of=entry["as_of"], source=entry["source"])
