"""All strategies by name."""

from collections.abc import Mapping

from denature.core.errors import unknown
from denature.extract.strategies.base import Strategy
from denature.extract.strategies.both import BOTH
from denature.extract.strategies.k_center import K_CENTER
from denature.extract.strategies.random import RANDOM
from denature.extract.strategies.uncertainty import UNCERTAINTY

STRATEGIES: Mapping[str, Strategy] = {
    strategy.name: strategy for strategy in (RANDOM, UNCERTAINTY, K_CENTER, BOTH)
}
"""The names are those of `denature.extract.config.Choose`."""


def find_strategy(name: str) -> Strategy:
    """The strategy of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    return STRATEGIES[name]
