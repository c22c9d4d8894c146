"""Gradient attacks that make adversarial examples, for adversarial training and evaluation."""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.attacks.config import Ball
    from denature.attacks.gradient import fgsm, pgd
    from denature.attacks.losses import cross_entropy, margin

__getattr__ = attach(
    __name__,
    {
        "Ball": "config",
        "fgsm": "gradient",
        "pgd": "gradient",
        "cross_entropy": "losses",
        "margin": "losses",
    },
)

__all__ = ["Ball", "cross_entropy", "fgsm", "margin", "pgd"]
