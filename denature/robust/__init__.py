"""Adversarial robustness of networks: attacks, checks for gradient masking, and verdicts."""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.robust.base import Attack
    from denature.robust.catalogue import ATTACKS
    from denature.robust.config import AttackConfig, AttackEffort
    from denature.robust.evaluation import evaluate
    from denature.robust.summary import Robustness
    from denature.robust.target import Target

__getattr__ = attach(
    __name__,
    {
        "ATTACKS": "catalogue",
        "Attack": "base",
        "AttackConfig": "config",
        "AttackEffort": "config",
        "Robustness": "summary",
        "evaluate": "evaluation",
        "Target": "target",
    },
)

__all__ = [
    "ATTACKS",
    "AttackConfig",
    "Attack",
    "AttackEffort",
    "Robustness",
    "Target",
    "evaluate",
]
