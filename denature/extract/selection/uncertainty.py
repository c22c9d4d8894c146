"""Uncertainty of ActiveThief (Pal et al. 2020, arXiv:1905.09165)."""

import torch
from torch import Tensor

from denature.extract.selection.base import Selection


def uncertainty(candidates: Tensor, queried: Tensor, count: int) -> Tensor:
    """The candidates of the highest entropy."""
    return entropy(candidates).sort(descending=True, stable=True).indices[:count]


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats of each row."""
    entropies: Tensor = torch.special.entr(probabilities).sum(-1)
    return entropies


UNCERTAINTY = Selection(name="uncertainty", select=uncertainty)
