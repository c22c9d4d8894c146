"""Objectives of the training loop: losses of networks, teachers, students and clones.

An objective is a value: a record keeps its fields, and calling it gives the loss.
"""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.train.objectives.adversarial import Adversarial
    from denature.train.objectives.base import Objective
    from denature.train.objectives.cloned import Cloned
    from denature.train.objectives.distilled import Distilled
    from denature.train.objectives.fixmatch import FixMatch
    from denature.train.objectives.hardened import Hardened
    from denature.train.objectives.misinformed import Misinformed
    from denature.train.objectives.nasty import Nasty
    from denature.train.objectives.normal import Normal
    from denature.train.objectives.skeptical import Skeptical

__getattr__ = attach(
    __name__,
    {
        "Objective": "base",
        "Normal": "normal",
        "Nasty": "nasty",
        "Distilled": "distilled",
        "Cloned": "cloned",
        "Hardened": "hardened",
        "Adversarial": "adversarial",
        "Skeptical": "skeptical",
        "Misinformed": "misinformed",
        "FixMatch": "fixmatch",
    },
)

__all__ = [
    "Objective",
    "Normal",
    "Nasty",
    "Distilled",
    "Cloned",
    "Hardened",
    "Adversarial",
    "Skeptical",
    "Misinformed",
    "FixMatch",
]
