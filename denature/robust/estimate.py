"""Upper bounds of an evaluation's passes and seconds, before the evaluation starts."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from denature.core.progress import Task
from denature.core.types import Logits, Pixels
from denature.robust.base import AttackContext, AttackCost
from denature.robust.catalogue import ATTACKS, budgets_of
from denature.robust.config import AttackConfig
from denature.robust.target import PROBE

TURNS = 3

BACK = 3
"""Forward passes that take as long as one pass forward and back."""


def cost(names: Sequence[str], config: AttackConfig, *, channels: int) -> AttackCost:
    """Passes for one image, at most: an image that is fooled early is not attacked again."""
    gradients = answers = 0.0
    for name in names:
        passes = ATTACKS[name].cost(config.preset)
        count = len(budgets_of(name, config, channels=channels))
        gradients += count * passes.gradients
        answers += count * (passes.answers + 1)  # one more pass verifies the proposed image
    return AttackCost(gradients, answers)


def passes_at_most(name: str, config: AttackConfig, *, channels: int) -> float:
    """Passes of an attack for one image, in forward passes: one back takes as long as two."""
    passes = cost([name], config, channels=channels)
    return BACK * passes.gradients + passes.answers


@contextmanager
def counted(context: AttackContext, task: Task, planned: float) -> Iterator[None]:
    """Count passes through the networks of an attack, as they are made, into a task.

    Args:
        context: has the networks.
        task: has the planned passes in it; afterwards those that were made instead.
        planned: passes at most; images that are fooled early need fewer.
    """
    made = 0.0

    def count(network: nn.Module, inputs: tuple[Pixels, ...]) -> None:
        nonlocal made
        passes = len(inputs[0]) * (BACK if inputs[0].requires_grad else 1)
        task.grow(max(0.0, made + passes - max(made, planned)))
        task.advance(passes)
        made += passes

    networks: tuple[object, ...] = (context.target, context.surrogate)
    hooks = [
        network.register_forward_pre_hook(count)
        for network in networks
        if isinstance(network, nn.Module)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        task.grow(min(0.0, made - planned))


def attack_seconds(
    network: Callable[[Pixels], Logits],
    names: Sequence[str],
    config: AttackConfig,
    images: Pixels,
    count: int,
) -> float:
    """Seconds that attacks on `count` images take, at most, by timing a few passes.

    Args:
        network: from images in [0, 1] to logits, with gradients.
        names: names of the attacks.
        config: effort and budgets.
        images: a few of the images, on the network's device.
        count: number of images in all.
    """
    images = images[: min(PROBE, config.batch_size)]

    def back() -> None:
        at = images.clone().requires_grad_()
        logits = network(at)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), at, allow_unused=True)

    def forth() -> None:
        with torch.no_grad():
            network(images)

    passes = cost(names, config, channels=images.shape[1])
    spent = sum(
        times * _timed(work, images.device)
        for times, work in ((passes.gradients, back), (passes.answers, forth))
    )
    return spent * count / len(images)


def _timed(work: Callable[[], None], device: torch.device) -> float:
    taken = []
    for _ in range(TURNS + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken[1:])
