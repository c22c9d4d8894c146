"""The mean over positions before a classifier."""

from torch import Tensor
from torch.nn import functional as F

from denature.core.errors import ConfigError
from denature.core.types import Pixels


def pooled(maps: Pixels, cells: int) -> Tensor:
    """Means over cells x cells parts of the maps: batch x (channels * cells * cells).

    One cell is the usual mean, which tells what an image shows and not where: an output that is a
    place needs more.
    """
    return maps.mean((2, 3)) if cells == 1 else F.adaptive_avg_pool2d(maps, cells).flatten(1)


def check_cells(cells: int, side: int) -> None:
    """Check that maps of this many pixels a side have so many parts.

    Raises:
        ConfigError: they have fewer.
    """
    if cells > side:
        raise ConfigError(
            f"cells is {cells}, and the last maps of this network have {side} pixels a side; take "
            "fewer cells or larger images."
        )
