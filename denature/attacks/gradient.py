"""Gradient attacks: one step (FGSM) and many (PGD)."""

from collections.abc import Callable
from typing import TypeAlias

import torch

from denature.attacks.config import Ball
from denature.attacks.losses import Goal, cross_entropy
from denature.core.errors import ConfigError
from denature.core.types import Labels, Logits, Pixels

Ask: TypeAlias = Callable[[Pixels], Logits]
"""Maps images in [0, 1] to logits, with gradients."""


def fgsm(
    network: Ask, images: Pixels, labels: Labels, ball: Ball, *, goal: Goal = cross_entropy
) -> Pixels:
    """One step to the edge of the ball (Goodfellow et al. 2015, arXiv:1412.6572).

    In linf the step is epsilon times the gradient's sign, in l2 epsilon times its direction.

    Args:
        network: is called once, with gradients.
        images: batch x channels x height x width, in [0, 1].
        labels: the true classes.
        ball: bound of the perturbation.
        goal: the loss to maximise.

    Returns:
        Images in [0, 1], within the ball.
    """
    return pgd(
        network, images, labels, ball, steps=1, step_size=ball.epsilon, start=False, goal=goal
    )


def pgd(
    network: Ask,
    images: Pixels,
    labels: Labels,
    ball: Ball,
    *,
    steps: int = 20,
    step_size: float | None = None,
    start: bool = True,
    goal: Goal = cross_entropy,
) -> Pixels:
    """Many small steps, each projected onto the ball (Madry et al. 2018, arXiv:1706.06083).

    Random numbers come from torch's generator of the images' device.

    Args:
        network: is called once a step, with gradients.
        images: batch x channels x height x width, in [0, 1].
        labels: the true classes.
        ball: bound of the perturbation.
        steps: number of steps.
        step_size: length of a step; 2.5 epsilon / steps by default, as in Madry et al., so that
            every point of the ball can be reached.
        start: begin at a random point of the ball instead of the image.
        goal: the loss to maximise.

    Returns:
        Images in [0, 1], within the ball.

    Raises:
        ConfigError: steps below 1, a negative step, or images that are not in [0, 1].
    """
    if steps < 1:
        raise ConfigError(f"steps is {steps}; it must be at least 1.")
    size = 2.5 * ball.epsilon / steps if step_size is None else step_size
    if size < 0:
        raise ConfigError(f"step_size is {size}; it must be at least 0.")
    images = images.detach()
    least, most = (float(value) for value in images.aminmax())
    if not 0 <= least <= most <= 1:
        raise ConfigError(
            f"Values of the images lie in [{least:g}, {most:g}]; wanted are [0, 1]: divide bytes "
            "by 255, and normalise inside the network."
        )
    low, high = _bounds(images, ball)
    change = _random(images, ball) if start else torch.zeros_like(images)
    at = (images + change).clamp_(0, 1)
    for _ in range(steps):
        at.requires_grad_()
        losses = goal(network(at).float(), labels)
        [gradient] = torch.autograd.grad(losses.sum(), at)
        with torch.no_grad():
            # A pixel without a gradient stays, and the others move on.
            gradient.nan_to_num_(0.0, posinf=0.0, neginf=0.0)
            if ball.norm == "linf":
                # In place: a copy of the images per step takes a tenth of a small network's time.
                at = at.detach().add_(gradient.sign_(), alpha=size)
                at = torch.minimum(torch.maximum(at, low), high)
            else:
                at = at.detach().add_(_unit(gradient), alpha=size)
                at = (images + _within(at.sub_(images), ball.epsilon)).clamp_(0, 1)
    return at.detach()


def _bounds(images: Pixels, ball: Ball) -> tuple[Pixels, Pixels]:
    """Lower and upper bound of each pixel in linf, within [0, 1]."""
    return (images - ball.epsilon).clamp_(0, 1), (images + ball.epsilon).clamp_(0, 1)


def _lengths(change: torch.Tensor) -> torch.Tensor:
    lengths: torch.Tensor = change.flatten(1).norm(dim=1)
    return lengths.view(-1, *[1] * (change.ndim - 1))


def _unit(gradient: torch.Tensor) -> torch.Tensor:
    """Gradients of unit length; a gradient of 0 stays 0."""
    return gradient / _lengths(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)


def _within(change: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Changes, scaled down to a length of at most epsilon."""
    lengths = _lengths(change).clamp_min(torch.finfo(change.dtype).tiny)
    return change * (epsilon / lengths).clamp_max(1)


def _random(images: Pixels, ball: Ball) -> torch.Tensor:
    """Uniform changes in the ball; in l2 drawn by direction and radius."""
    if ball.norm == "linf":
        return torch.empty_like(images).uniform_(-ball.epsilon, ball.epsilon)
    directions = _unit(torch.randn_like(images))
    values = images[0].numel()
    radii = torch.rand(len(images), device=images.device).pow_(1 / values)
    return directions * (ball.epsilon * radii).view(-1, *[1] * (images.ndim - 1))
