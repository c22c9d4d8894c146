"""All selections by name."""

from collections.abc import Mapping

from denature.core.errors import unknown
from denature.extract.selection.base import Selection
from denature.extract.selection.both import BOTH
from denature.extract.selection.k_center import K_CENTER
from denature.extract.selection.random import RANDOM
from denature.extract.selection.uncertainty import UNCERTAINTY

SELECTIONS: Mapping[str, Selection] = {
    selection.name: selection for selection in (RANDOM, UNCERTAINTY, K_CENTER, BOTH)
}
"""The names are those of `denature.extract.config.Choose`."""


def find_selection(name: str) -> Selection:
    """The selection of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in SELECTIONS:
        raise unknown("selection", name, SELECTIONS)
    return SELECTIONS[name]
