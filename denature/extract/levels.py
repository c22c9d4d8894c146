"""Budgets of a theft, divided into queries to learn from and queries that measure fidelity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from denature.core.errors import ConfigError
from denature.extract.asking.limits import in_dollars
from denature.extract.config import ExtractionConfig


class Level(NamedTuple):
    """What the clones of one budget learn from, and what measures them."""

    budget: int
    """As it was named."""
    queries: int
    """Queries to learn from."""
    fidelity: int
    """Test images; each is one query."""
    cut: bool = False
    """Whether the dollars pay for less than the budget."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """The queries of a theft at most."""

    levels: tuple[Level, ...]
    """By ascending budget."""
    repeats: int
    """Queries of each image to learn from."""
    on_top: bool
    """Whether the queries for fidelity come on top of the budgets."""
    note: str = ""
    """What `--max-cost` cuts off, as a sentence."""

    @property
    def fidelity(self) -> int:
        """Test images, those of the largest budget."""
        return self.levels[-1].fidelity

    @property
    def learning(self) -> int:
        """Queries to learn from."""
        return self.levels[-1].queries // self.repeats * self.repeats

    @property
    def queries(self) -> int:
        """All queries, where none is lost."""
        return self.learning + self.fidelity

    @property
    def total(self) -> int | None:
        """Hard limit on all queries; None where fidelity has a budget of its own."""
        if self.on_top:
            return None
        last = self.levels[-1]  # one that was cut is limited by the dollars
        return last.budget if last.cut else self.queries


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class CostBudget:
    """Dollars for the queries of a theft, and what it has queried so far."""

    max_cost: float
    price: float
    """US dollars a query, above 0."""
    queries: int
    """Queries that this pays for in all, those of earlier calls included."""
    measured: int = 0
    """Queries of earlier calls that measured fidelity, which teach nothing."""

    def __str__(self) -> str:
        before = f", {self.measured:,} of them spent on test images before" if self.measured else ""
        return (
            f"--max-cost {self.max_cost:g} pays for {self.queries:,} queries at "
            f"{in_dollars(self.price)} each{before}"
        )


def divided(
    budgets: Sequence[int],
    stealing: ExtractionConfig,
    *,
    tests: int,
    cost_budget: CostBudget | None = None,
) -> Division:
    """Divide budgets: a clone's depends on its own budget alone, so that larger ones can follow.

    Args:
        budgets: numbers of queries, ascending; those for fidelity are among them, unless
            `stealing.fidelity_extra`.
        stealing: number of repeats, and of test images.
        tests: test images that there are.
        cost_budget: limit in dollars, if there is one.

    Raises:
        ConfigError: a budget, or the cost budget, does not pay for fidelity and two images.
    """
    levels: list[Level] = []
    note = ""
    for budget in budgets:
        level = _level(budget, stealing, tests, cost_budget)
        if not levels or level.queries > levels[-1].queries:
            levels.append(level)
        elif not level.cut:
            note = (
                f"A budget of {budget:,} teaches as many queries as one of {levels[-1].budget:,}, "
                "which are made once."
            )
        if level.cut and cost_budget is not None:
            note = f"{cost_budget}, fewer than the budget of {budgets[-1]:,} takes."
            break
    return Division(
        levels=tuple(levels), repeats=stealing.repeats, on_top=stealing.fidelity_extra, note=note
    )


def _level(
    budget: int, stealing: ExtractionConfig, tests: int, cost_budget: CostBudget | None
) -> Level:
    """One budget, or as much of it as the cost budget pays for."""
    on_top, allowed, most = stealing.fidelity_extra, budget, budget
    fidelity = min(stealing.tested(budget), tests)
    cut = cost_budget is not None and cost_budget.queries < budget + on_top * fidelity
    if cut and cost_budget is not None:
        allowed = cost_budget.queries - on_top * fidelity
        fidelity = min(stealing.tested(allowed), tests)
        most = cost_budget.queries - cost_budget.measured
    queries = min(most, allowed if on_top else allowed - fidelity)
    if queries < 2 * stealing.repeats:
        raise _too_small(budget, fidelity, stealing, cost_budget if cut else None)
    return Level(budget, queries, fidelity, cut)


def _too_small(
    budget: int, fidelity: int, stealing: ExtractionConfig, cost_budget: CostBudget | None
) -> ConfigError:
    wanted = fidelity + 2 * stealing.repeats
    what = f"{fidelity:,} test images for fidelity and {2 * stealing.repeats} to learn from"
    if stealing.repeats > 1:
        what += f" ({stealing.repeats} for each of two images)"
    if cost_budget is not None:
        return ConfigError(
            f"{cost_budget}; wanted are {wanted:,}: {what}. Take a larger --max-cost, or a smaller "
            "--test-images."
        )
    if stealing.fidelity_extra:
        wanted, what = 2 * stealing.repeats, "for two images"
        return ConfigError(
            f"A budget is {budget:,} queries, with {stealing.repeats} an image; wanted are at "
            f"least {wanted}, for at least two images. Take a larger --budget, or fewer --repeats."
        )
    return ConfigError(
        f"A budget is {budget:,} queries; wanted are at least {wanted:,}: {what}, for at least two "
        "images. Take a larger --budget, a smaller --test-images, or --fidelity-extra, by which "
        "fidelity comes on top."
    )
