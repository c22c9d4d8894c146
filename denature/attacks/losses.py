"""Losses that attacks maximise, one value per example."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch.nn import functional as F

from denature.core.types import Labels, Logits, PerExample

Goal: TypeAlias = Callable[[Logits, Labels], PerExample]
"""A loss that grows as the answer gets more wrong."""


def cross_entropy(logits: Logits, labels: Labels) -> PerExample:
    """Cross-entropy of the softmax of the logits, the loss of FGSM and PGD.

    Where the true class has a probability of 1 in float32, the gradient is 0.
    """
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Logits, labels: Labels) -> PerExample:
    """The largest wrong logit minus the true one (Carlini and Wagner 2017, f_6, infinite kappa).

    Above 0 where the answer is wrong. The loss contains no softmax that could saturate.
    """
    right = logits.gather(1, labels[:, None])[:, 0]
    wrong = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return wrong - right
