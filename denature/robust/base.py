"""The form of an attack: it proposes images; the evaluation checks in fp32 whether they fool."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from denature.core.types import Labels, Pixels
from denature.robust.config import AttackPreset
from denature.robust.target import AccessLevel, Attacked


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackContext:
    """Target, effort and surrogate of an attack."""

    target: Attacked
    surrogate: Attacked | None
    """Another network, whose gradients a transfer attack follows."""
    preset: AttackPreset
    seed: int
    data: str
    """Digest of the data of the samples."""


Propose = Callable[[AttackContext, Pixels, Labels, float], Pixels]
"""From a context, rightly answered images, their labels and a budget to changed images."""


class AttackCost(NamedTuple):
    """Passes through a network that an attack needs."""

    gradients: float
    """Forward and backward passes."""
    answers: float = 0.0
    """Forward passes alone; of a black box, queries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """One entry of the catalogue."""

    about: str
    norm: str
    """linf, l2 or l0."""
    propose: Propose
    cost: Callable[[AttackPreset], AttackCost]
    """Cost of one image at one budget, at most."""
    needs: AccessLevel = "gradients"
    """Outputs that the target must show."""
    smallest: bool = False
    """Whether the attack minimises the change, so that no budget is needed."""
    only: float | None = None
    """A fixed budget, in place of the configured ones."""
