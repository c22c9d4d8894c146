"""The interface of a selection, and the random one that needs no clone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

from torch import Tensor

Select: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]
"""From the last clone's probabilities for candidates (n x classes) and for queried images (m x
classes), and a number k, to k positions among the candidates, int64, best first; all positions
where k exceeds n."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A selection of query images."""

    name: str
    """Spelling in plans and results, and in the identity of a clone."""
    select: Select | None
    """Selection of a round's images by the clone of the rounds before; the first round is random.
    None queries all images in random order, without rounds."""
