"""Losses: pure functions of tensors with one value per example; the caller takes the mean."""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.losses.misinformation import misinformed
    from denature.losses.nasty import self_undermining
    from denature.losses.soft import (
        distillation,
        hard_distillation,
        soft_cross_entropy,
        softened_divergence,
    )

__getattr__ = attach(
    __name__,
    {
        "distillation": "soft",
        "hard_distillation": "soft",
        "soft_cross_entropy": "soft",
        "softened_divergence": "soft",
        "self_undermining": "nasty",
        "misinformed": "misinformation",
    },
)

__all__ = [
    "distillation",
    "hard_distillation",
    "misinformed",
    "self_undermining",
    "soft_cross_entropy",
    "softened_divergence",
]
