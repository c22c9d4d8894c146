"""Attacks that follow gradients, from `denature.attacks`: FGSM, and PGD in several forms."""

import torch

from denature.attacks import Ball, cross_entropy, fgsm, margin, pgd
from denature.attacks.config import Norm
from denature.attacks.losses import Goal
from denature.core.types import Labels, Logits, PerExample, Pixels
from denature.robust.base import AttackContext, AttackCost
from denature.robust.config import AttackPreset

RESTARTS = 5
"""Random starts of an attack with restarts."""


def pgd_cost(preset: AttackPreset) -> AttackCost:
    return AttackCost(preset.steps)


def restarted_cost(preset: AttackPreset) -> AttackCost:
    return AttackCost(RESTARTS * preset.steps, RESTARTS)


def fast_gradient(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    return fgsm(context.target, images, labels, Ball(epsilon=epsilon))


def projected_gradient(
    context: AttackContext, images: Pixels, labels: Labels, epsilon: float, *, norm: Norm = "linf",
    goal: Goal = cross_entropy,
) -> Pixels:  # fmt: skip
    ball = Ball(norm=norm, epsilon=epsilon)
    return pgd(context.target, images, labels, ball, steps=context.preset.steps, goal=goal)


def rescaled(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    """PGD on the cross-entropy of logits / T, whose softmax does not saturate."""
    temperature = context.target.temperature

    def goal(logits: Logits, labels: Labels) -> PerExample:
        return cross_entropy(logits / temperature, labels)

    return projected_gradient(context, images, labels, epsilon, goal=goal)


def restarted(
    context: AttackContext, images: Pixels, labels: Labels, epsilon: float, *, norm: Norm
) -> Pixels:
    """PGD on the logits from several random starts; for each image the one of largest loss."""
    best, most = images, torch.full((len(images),), -torch.inf, device=images.device)
    for _ in range(RESTARTS):
        changed = projected_gradient(context, images, labels, epsilon, norm=norm, goal=margin)
        with torch.no_grad():
            reached = margin(context.target(changed), labels)
        further = reached > most
        best = torch.where(further[:, None, None, None], changed, best)
        most = torch.where(further, reached, most)
    return best


def transfer(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    """PGD against a surrogate network; the changed images are then tried on the target."""
    surrogate = context.surrogate
    assert surrogate is not None
    ball, device = Ball(epsilon=epsilon), surrogate.device
    images, labels = images.to(device), labels.to(device)
    return pgd(surrogate, images, labels, ball, steps=context.preset.steps, goal=margin)
