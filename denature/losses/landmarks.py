"""Learning where things are."""

import torch

from denature.core.errors import ConfigError
from denature.core.types import PerExample


def coordinate_error(found: torch.Tensor, wanted: torch.Tensor) -> PerExample:
    """Mean distance of an example's coordinates, axis by axis, as a share of the picture's side.

    The mean absolute error, as a loss and as the measure: it asks for the median of what is likely,
    which a few badly placed labels do not move.

    Raises:
        ConfigError: the two differ in shape.
    """
    if found.shape != wanted.shape:
        raise ConfigError(
            f"Landmarks of the shapes {tuple(found.shape)} and {tuple(wanted.shape)} were "
            "compared; both must be examples x coordinates, of the same points."
        )
    return (found - wanted).abs().mean(-1)
