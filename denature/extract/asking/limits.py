"""Hard limits of the queries to a victim, numbers of queries and dollars, and what is spent."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from denature.core.errors import ConfigError

ROUNDING = 1e-9
"""Queries by which a quotient of dollars may miss a whole number in floating point."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class QueryLimits:
    """Limits on the queries to a target, those of earlier calls included."""

    queries: int
    """Queries for one purpose."""
    total: int | None = None
    """Queries for all purposes together; None for no limit."""
    max_cost: float | None = None
    """US dollars for all purposes together; None for no limit."""
    elsewhere: float = 0.0
    """US dollars for other targets, which count within `max_cost`."""


@final
class Spending:
    """Queries that were or may have been billed, by target, purpose and price.

    One thread books, others read: they copy before they iterate.

    Args:
        rows: target, purpose, price (None if unknown) and number of queries.
    """

    def __init__(self, rows: Iterable[tuple[int, str, float | None, int]]) -> None:
        self._queries: defaultdict[int, dict[tuple[str, float | None], int]] = defaultdict(dict)
        for row in rows:
            self.book(*row)

    def book(self, target: int, purpose: str, price: float | None, queries: int) -> None:
        """Count queries; a number below 0 gives them back."""
        of_target = self._queries[target]
        of_target[purpose, price] = of_target.get((purpose, price), 0) + queries

    def _rows(self, target: int) -> list[tuple[tuple[str, float | None], int]]:
        return list(self._queries.get(target, {}).items())

    def queries(self, target: int, purpose: str | None = None) -> int:
        """Queries for a purpose, or for all."""
        return sum(n for (of, _), n in self._rows(target) if purpose in (None, of))

    def dollars(self, target: int, price: float | None) -> float:
        """US dollars for all purposes; queries of unknown price count at `price`."""
        return math.fsum(
            n * ((price or 0.0) if own is None else own) for (_, own), n in self._rows(target)
        )

    def left(
        self, target: int, purpose: str, limits: QueryLimits, price: float | None
    ) -> tuple[int, str]:
        """Queries that limits still allow, and the sentence about the limit that ends them.

        Args:
            target: number of the target.
            purpose: of the next queries.
            limits: see `QueryLimits`.
            price: US dollars for each of the next queries; without one no cost is limited.
        """
        of = f"The budget of {limits.queries:,} queries is spent"
        found = [(limits.queries - self.queries(target, purpose), of)]
        if limits.total is not None:
            of = f"The budget of {limits.total:,} queries, those for fidelity included, is spent"
            found.append((limits.total - self.queries(target), of))
        if limits.max_cost is not None and price:
            of = f"The limit of {in_dollars(limits.max_cost)} (--max-cost) is reached"
            money = limits.max_cost - limits.elsewhere - self.dollars(target, price)
            found.append((affordable(money, price), of))
        count, why = min(found, key=lambda each: each[0])
        return max(0, count), why


def affordable(money: float, price: float) -> int:
    """Queries that so many US dollars pay for, at a price above 0."""
    return max(0, math.floor(money / price + ROUNDING))


def check_max_cost(max_cost: float | None, price: float | None) -> None:
    """Check that a limit in dollars can be held.

    Raises:
        ConfigError: it is no amount of money, or the price of a query is unknown.
    """
    if max_cost is None:
        return
    if not 0 < max_cost < math.inf:
        raise ConfigError(f"max_cost is {max_cost}; it must be above 0, and finite.")
    if price is None:
        raise ConfigError(
            f"max_cost is {max_cost:g} US dollars, and the price of a query is not known. State it "
            "with --price-per-1000."
        )


def in_dollars(money: float) -> str:
    """`US $ 12.50`; `US $ 0.0015` where cents would be too coarse below a dollar."""
    cents = f"{money:,.2f}"
    coarse = 0 < money < 1 and abs(float(cents) - money) > ROUNDING
    return f"US $ {money:.4g}" if coarse else f"US $ {cents}"
