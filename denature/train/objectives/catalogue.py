"""The objectives of the training loop, by the kind of run that each makes."""

from collections.abc import Mapping

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

OBJECTIVES: Mapping[str, type[Objective]] = {
    objective.kind: objective
    for objective in (
        Normal,
        Nasty,
        Distilled,
        Cloned,
        Hardened,
        Adversarial,
        Skeptical,
        Misinformed,
        FixMatch,
    )
}
