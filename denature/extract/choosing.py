"""Which images to ask about next: after ActiveThief (Pal et al. 2020, arXiv:1905.09165).

The paper has uncertainty, k-center, DFAL (the smallest DeepFool distance) and DFAL narrowed by
k-center. The first two are here; `both` is ours.

All read the last clone's probabilities for images that were not asked about yet.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from denature.extract.config import Choose

Chooser = Callable[[Tensor, Tensor, int], Tensor]
"""From candidates (n x classes), what was asked before (m x classes) and a number k to k positions
among the candidates, the most wanted first."""


def uncertainty(candidates: Tensor, asked: Tensor, count: int) -> Tensor:
    """Those of the highest entropy."""
    return _entropy(candidates).sort(descending=True, stable=True).indices[:count]


def k_center(candidates: Tensor, asked: Tensor, count: int) -> Tensor:
    """Greedily the farthest from all that was asked or chosen before it, in Euclidean distance."""
    return _greedy(candidates, asked, count, torch.zeros(len(candidates)))


def both(candidates: Tensor, asked: Tensor, count: int) -> Tensor:
    """Greedily the largest sum of entropy and distance, each as a share of its largest value.

    Not a strategy of ActiveThief, which narrows a DFAL selection by k-center: a sum needs no number
    for how far to narrow.
    """
    entropy = _entropy(candidates)
    return _greedy(candidates, asked, count, entropy / entropy.max().clamp_min(1e-12))


def _entropy(probabilities: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probabilities).sum(-1)
    return entropy


def _greedy(candidates: Tensor, asked: Tensor, count: int, bonus: Tensor) -> Tensor:
    """Each time the candidate with the largest share of distance plus `bonus`."""
    nearest, bonus = _distances(candidates, asked), bonus.clone()
    scale = nearest.max().clamp_min(1e-12)
    chosen = torch.empty(min(count, len(candidates)), dtype=torch.int64)
    for number in range(len(chosen)):
        place = int((nearest / scale + bonus).argmax())
        chosen[number] = place
        bonus[place] = float("-inf")
        apart = (candidates - candidates[place]).norm(dim=-1)
        torch.minimum(nearest, apart, out=nearest)
    return chosen


def _distances(candidates: Tensor, asked: Tensor) -> Tensor:
    """Of each candidate to the nearest that was asked, in parts that fit into memory."""
    parts = [torch.cdist(part, asked).amin(-1) for part in candidates.split(4096)]
    return torch.cat(parts)


CHOOSERS: Mapping[Choose, Chooser] = {
    "uncertainty": uncertainty,
    "k-center": k_center,
    "both": both,
}
