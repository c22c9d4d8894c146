"""What an evaluation may take, before it starts."""

import time
from collections.abc import Callable, Sequence

import torch

from denature.core.types import Pixels
from denature.robust.catalogue import ATTACKS, Cost, budgets_of
from denature.robust.config import AttackConfig
from denature.robust.target import PROBE, Attacked

TURNS = 3


def cost(names: Sequence[str], asked: AttackConfig, *, channels: int) -> Cost:
    """Of one image, at most: whoever is fooled early is left alone."""
    gradients = answers = 0.0
    for name in names:
        each = ATTACKS[name].cost(asked.preset)
        count = len(budgets_of(name, asked, channels=channels))
        gradients += count * each.gradients
        answers += count * (each.answers + 1)  # what is proposed is looked at again
    return Cost(gradients, answers)


def seconds_of(
    target: Attacked, names: Sequence[str], asked: AttackConfig, images: Pixels, count: int
) -> float:
    """Seconds that attacks on `count` images take, at most, by timing a few passes.

    Args:
        target: who shows gradients.
        names: of the attacks.
        asked: how hard.
        images: some of them, in [0, 1].
        count: how many there are.
    """
    images = images[: min(PROBE, asked.batch)].to(target.device)

    def back() -> None:
        at = images.clone().requires_grad_()
        logits = target(at)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), at, allow_unused=True)

    def forth() -> None:
        with torch.no_grad():
            target(images)

    each = cost(names, asked, channels=images.shape[1])
    spent = each.gradients * _timed(back, target) + each.answers * _timed(forth, target)
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
