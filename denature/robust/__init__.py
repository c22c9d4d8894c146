"""Adversarial robustness of networks: attacks, checks for gradient masking, and verdicts."""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.robust.catalogue import ATTACKS, Attack
    from denature.robust.config import AttackConfig, Effort
    from denature.robust.evaluation import Robustness, evaluate
    from denature.robust.masking import Check
    from denature.robust.target import Target

__getattr__ = attach(
    __name__,
    {
        "ATTACKS": "catalogue",
        "Attack": "catalogue",
        "AttackConfig": "config",
        "Effort": "config",
        "Robustness": "evaluation",
        "evaluate": "evaluation",
        "Check": "masking",
        "Target": "target",
    },
)

__all__ = [
    "ATTACKS",
    "AttackConfig",
    "Attack",
    "Check",
    "Effort",
    "Robustness",
    "Target",
    "evaluate",
]
