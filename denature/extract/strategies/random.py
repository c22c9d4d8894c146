"""Query images in random order, without duplicates."""

from denature.extract.strategies.base import Strategy

RANDOM = Strategy(name="random", select=None)
