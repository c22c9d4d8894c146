"""Query images in random order, without duplicates."""

from denature.extract.selection.base import Selection

RANDOM = Selection(name="random", select=None)
