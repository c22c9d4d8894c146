"""k-center of ActiveThief (Pal et al. 2020, arXiv:1905.09165)."""

import torch
from torch import Tensor

from denature.extract.selection.base import Selection


def k_center(candidates: Tensor, queried: Tensor, count: int) -> Tensor:
    """Greedily the farthest from all queried and chosen images, in Euclidean distance."""
    return greedy(candidates, queried, count, torch.zeros(len(candidates)))


def greedy(candidates: Tensor, queried: Tensor, count: int, bonus: Tensor) -> Tensor:
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


K_CENTER = Selection(name="k-center", select=k_center)
