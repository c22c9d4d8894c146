"""Loss of landmark coordinates."""

import torch

from denature.core.errors import ConfigError
from denature.core.types import PerExample


def coordinate_error(found: torch.Tensor, wanted: torch.Tensor) -> PerExample:
    """Mean absolute error of an example's coordinates, as a share of the image's side.

    Loss and metric are the same. The optimum is the median of the likely coordinates, which a few
    badly placed labels do not move.

    Raises:
        ConfigError: the shapes differ.
    """
    if found.shape != wanted.shape:
        raise ConfigError(
            f"Landmarks of the shapes {tuple(found.shape)} and {tuple(wanted.shape)} were "
            "compared; both must be examples x coordinates, of the same points."
        )
    return (found - wanted).abs().mean(-1)
