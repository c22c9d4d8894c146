"""Uncertainty and k-center as a sum, an addition to those of ActiveThief.

ActiveThief (Pal et al. 2020, arXiv:1905.09165) has uncertainty, k-center, DFAL (the smallest
DeepFool distance) and DFAL narrowed by k-center. A sum needs no parameter for the width of such a
preselection.
"""

from torch import Tensor

from denature.extract.selection.base import Selection
from denature.extract.selection.k_center import greedy
from denature.extract.selection.uncertainty import entropy


def both(candidates: Tensor, queried: Tensor, count: int) -> Tensor:
    """Greedily the largest sum of entropy and distance, each as a share of its largest value."""
    entropies = entropy(candidates)
    return greedy(candidates, queried, count, entropies / entropies.max().clamp_min(1e-12))


BOTH = Selection(name="both", select=both)
