"""What an attack makes large, one value per example."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch.nn import functional as F

from denature.core.types import Labels, Logits, PerExample

Goal: TypeAlias = Callable[[Logits, Labels], PerExample]
"""A loss that is large where an answer is wrong."""


def cross_entropy(logits: Logits, labels: Labels) -> PerExample:
    """Of the softmax of the logits: what FGSM and PGD follow.

    Where the right class has a probability of 1 in float32, its gradient is 0.
    """
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Logits, labels: Labels) -> PerExample:
    """The largest wrong logit less the right one (Carlini and Wagner 2017, f_6 at kappa infinite).

    Above 0 where the answer is wrong. No softmax is in it that could saturate.
    """
    right = logits.gather(1, labels[:, None])[:, 0]
    wrong = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return wrong - right
