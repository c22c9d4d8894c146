"""Selection of the next query images, after ActiveThief (Pal et al. 2020, arXiv:1905.09165).

The paper has uncertainty, k-center, DFAL (the smallest DeepFool distance) and DFAL narrowed by
k-center. This module has the first two; `both` is an addition.

All strategies read the last clone's probabilities for images that were not queried yet.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from denature.extract.config import Choose

Chooser = Callable[[Tensor, Tensor, int], Tensor]
"""From candidates (n x classes), queried images (m x classes) and a number k to k positions among
the candidates, best first."""


def uncertainty(candidates: Tensor, queried: Tensor, count: int) -> Tensor:
    """The candidates of the highest entropy."""
    return _entropy(candidates).sort(descending=True, stable=True).indices[:count]


def k_center(candidates: Tensor, queried: Tensor, count: int) -> Tensor:
    """Greedily the farthest from all queried and chosen images, in Euclidean distance."""
    return _greedy(candidates, queried, count, torch.zeros(len(candidates)))


def both(candidates: Tensor, queried: Tensor, count: int) -> Tensor:
    """Greedily the largest sum of entropy and distance, each as a share of its largest value.

    ActiveThief has no such strategy: it narrows a DFAL selection by k-center. A sum needs no
    parameter for the width of that selection.
    """
    entropy = _entropy(candidates)
    return _greedy(candidates, queried, count, entropy / entropy.max().clamp_min(1e-12))


def _entropy(probabilities: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probabilities).sum(-1)
    return entropy


def _greedy(candidates: Tensor, queried: Tensor, count: int, bonus: Tensor) -> Tensor:
    """Repeatedly the candidate with the largest sum of its share of distance and its `bonus`."""
    nearest, bonus = _distances(candidates, queried), bonus.clone()
    scale = nearest.max().clamp_min(1e-12)
    chosen = torch.empty(min(count, len(candidates)), dtype=torch.int64)
    for number in range(len(chosen)):
        place = int((nearest / scale + bonus).argmax())
        chosen[number] = place
        bonus[place] = float("-inf")
        apart = (candidates - candidates[place]).norm(dim=-1)
        torch.minimum(nearest, apart, out=nearest)
    return chosen


def _distances(candidates: Tensor, queried: Tensor) -> Tensor:
    """Distance of each candidate to the nearest queried image, in parts that fit into memory."""
    parts = [torch.cdist(part, queried).amin(-1) for part in candidates.split(4096)]
    return torch.cat(parts)


CHOOSERS: Mapping[Choose, Chooser] = {
    "uncertainty": uncertainty,
    "k-center": k_center,
    "both": both,
}
