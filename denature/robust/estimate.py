"""Upper bounds of an evaluation's passes and seconds, before the evaluation starts."""

import time
from collections.abc import Callable, Sequence

import torch

from denature.core.types import Pixels
from denature.robust.base import AttackCost
from denature.robust.catalogue import ATTACKS, budgets_of
from denature.robust.config import AttackConfig
from denature.robust.target import PROBE, Attacked

TURNS = 3


def cost(names: Sequence[str], config: AttackConfig, *, channels: int) -> AttackCost:
    """Passes for one image, at most: an image that is fooled early is not attacked again."""
    gradients = answers = 0.0
    for name in names:
        passes = ATTACKS[name].cost(config.preset)
        count = len(budgets_of(name, config, channels=channels))
        gradients += count * passes.gradients
        answers += count * (passes.answers + 1)  # one more pass verifies the proposed image
    return AttackCost(gradients, answers)


def attack_seconds(
    target: Attacked, names: Sequence[str], config: AttackConfig, images: Pixels, count: int
) -> float:
    """Seconds that attacks on `count` images take, at most, by timing a few passes.

    Args:
        target: the model under attack; it shows gradients.
        names: names of the attacks.
        config: effort and budgets.
        images: a few of the images, in [0, 1].
        count: number of images in all.
    """
    images = images[: min(PROBE, config.batch)].to(target.device)

    def back() -> None:
        at = images.clone().requires_grad_()
        logits = target(at)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), at, allow_unused=True)

    def forth() -> None:
        with torch.no_grad():
            target(images)

    passes = cost(names, config, channels=images.shape[1])
    spent = passes.gradients * _timed(back, target) + passes.answers * _timed(forth, target)
    return spent * count / len(images)


def _timed(work: Callable[[], None], target: Attacked) -> float:
    taken = []
    for _ in range(TURNS + 1):
        started = time.perf_counter()
        work()
        if target.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken[1:])
