"""Budgets of a theft, divided into queries to learn from and queries that measure fidelity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from denature.core.errors import ConfigError
from denature.extract.asking.limits import in_dollars
from denature.extract.config import ExtractionConfig


class Level(NamedTuple):
    """What the clones of one budget learn from."""

    budget: int
    """As it was named."""
    queries: int
    """Those of it that clones learn from."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """The queries of a theft at most."""

    levels: tuple[Level, ...]
    """By ascending budget."""
    repeats: int
    """Queries of each image to learn from."""
    fidelity: int
    """Test images; each is one query."""
    total: int | None
    """Queries for both purposes, as a hard limit; None where each has a budget of its own."""
    note: str = ""
    """What `--max-cost` cuts off, as a sentence."""

    @property
    def learning(self) -> int:
        """Queries to learn from."""
        return self.levels[-1].queries // self.repeats * self.repeats

    @property
    def queries(self) -> int:
        """All queries, where none is lost."""
        return self.learning + self.fidelity


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Purse:
    """Dollars for the queries of a theft, and what it has queried so far."""

    max_cost: float
    price: float
    """US dollars a query, above 0."""
    queries: int
    """Queries that this pays for in all, those of earlier calls included."""
    measured: int = 0
    """Queries of earlier calls that measured fidelity, which teach nothing."""


def divided(
    budgets: Sequence[int],
    stealing: ExtractionConfig,
    *,
    tests: int,
    purse: Purse | None = None,
) -> Division:
    """Divide budgets: a clone's depends on its own budget alone, so that larger ones can follow.

    Args:
        budgets: numbers of queries, ascending; those for fidelity are among them, unless
            `stealing.fidelity_extra`.
        stealing: number of repeats, and of test images.
        tests: test images that there are.
        purse: limit in dollars, if there is one.

    Raises:
        ConfigError: a budget, or the purse, does not pay for fidelity and two images.
    """
    levels: list[Level] = []
    fidelity, note, total = 0, "", None
    for budget in budgets:
        cut = purse is not None and purse.queries < budget + _extra(budget, stealing, tests)
        allowed = purse.queries if cut and purse is not None else budget
        if cut and stealing.fidelity_extra:
            allowed -= _extra(budget, stealing, tests)
        of_budget = min(stealing.test_images(allowed), tests)
        queries = allowed if stealing.fidelity_extra else allowed - of_budget
        if cut and purse is not None:
            queries = min(queries, purse.queries - purse.measured)
        if queries < 2 * stealing.repeats:
            raise _too_small(budget, of_budget, stealing, purse if cut else None)
        if cut and purse is not None:
            note = (
                f"--max-cost {purse.max_cost:g} pays for {purse.queries:,} queries at "
                f"{in_dollars(purse.price)} each, fewer than the budget of {budgets[-1]:,} takes."
            )
        if not levels or queries > levels[-1].queries:
            levels.append(Level(budget, queries))
            fidelity, total = of_budget, None if stealing.fidelity_extra else budget
        if cut:
            break
    return Division(
        levels=tuple(levels), repeats=stealing.repeats, fidelity=fidelity, total=total, note=note
    )


def _extra(budget: int, stealing: ExtractionConfig, tests: int) -> int:
    """Queries on top of a budget."""
    return min(stealing.test_images(budget), tests) if stealing.fidelity_extra else 0


def _too_small(
    budget: int, fidelity: int, stealing: ExtractionConfig, purse: Purse | None
) -> ConfigError:
    wanted = fidelity + 2 * stealing.repeats
    what = f"{fidelity:,} test images for fidelity and {2 * stealing.repeats} to learn from"
    if stealing.repeats > 1:
        what += f" ({stealing.repeats} for each of two images)"
    if purse is not None:
        before = f", {purse.measured:,} test images of earlier calls among them"
        return ConfigError(
            f"--max-cost {purse.max_cost:g} pays for {purse.queries:,} queries at "
            f"{in_dollars(purse.price)} each{before if purse.measured else ''}; wanted are "
            f"{wanted:,}: {what}. Take a larger --max-cost, or a smaller --fidelity."
        )
    if stealing.fidelity_extra:
        wanted, what = 2 * stealing.repeats, "for two images"
        return ConfigError(
            f"A budget is {budget:,} queries, with {stealing.repeats} an image; wanted are at "
            f"least {wanted}, for at least two images."
        )
    return ConfigError(
        f"A budget is {budget:,} queries; wanted are at least {wanted:,}: {what}, for at least two "
        "images. Take a larger --budget, a smaller --fidelity, or --fidelity-extra, by which "
        "fidelity comes on top."
    )
