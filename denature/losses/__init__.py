"""Losses: pure functions of tensors, one value per example; the caller takes the mean."""

from denature.losses.nasty import self_undermining
from denature.losses.soft import distillation, hard_distillation, softened_divergence

__all__ = ["distillation", "hard_distillation", "self_undermining", "softened_divergence"]
