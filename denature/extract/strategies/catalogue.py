"""All strategies by name."""

from collections.abc import Mapping

from denature.core.errors import unknown
from denature.extract.strategies.base import Strategy
from denature.extract.strategies.naive import Naive

STRATEGIES: Mapping[str, type[Strategy]] = {strategy.name: strategy for strategy in (Naive,)}


def strategy_of(name: str) -> Strategy:
    """The strategy of this name, with its default settings.

    Raises:
        ConfigError: there is none.
    """
    if name not in STRATEGIES:
        raise unknown("thief", name, STRATEGIES)
    return STRATEGIES[name]()
