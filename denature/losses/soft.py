"""Distillation losses: soft answers (Hinton et al. 2015, arXiv:1503.02531) and hard labels."""

import math

import torch
from torch.nn import functional as F

from denature.core.errors import ConfigError
from denature.core.types import Labels, Logits, PerExample


def softened_divergence(target_logits: Logits, logits: Logits, *, temperature: float) -> PerExample:
    """tau^2 KL(softmax(target / tau) || softmax(logits / tau)), in nats, per example.

    The square keeps gradients comparable when tau changes (Hinton et al. 2015, section 2.1). Both
    arguments get gradients; detach a constant one.

    Raises:
        ConfigError: the temperature is not above 0, or the shapes differ.
    """
    _check_alike(target_logits, logits, temperature)
    log_target = F.log_softmax(target_logits / temperature, dim=-1)
    log_own = F.log_softmax(logits / temperature, dim=-1)
    return (log_target.exp() * (log_target - log_own)).sum(-1) * temperature**2


def distillation(
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Labels,
    *,
    temperature: float,
    alpha: float,
) -> PerExample:
    """Alpha tau^2 KL(teacher || student) + (1 - alpha) CE(student, labels), per example.

    Hinton et al. 2015; the weights as in the Nasty Teacher paper. Log-probabilities can replace
    teacher logits: softmax(log p / tau) is the teacher's answer at tau.

    Raises:
        ConfigError: temperature not above 0, alpha outside [0, 1], shapes that differ.
    """
    check_alpha(alpha)
    soft = softened_divergence(teacher_logits, student_logits, temperature=temperature)
    if alpha == 1:
        return soft
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, labels, reduction="none")


def soft_cross_entropy(logits: Logits, target_logits: Logits, *, temperature: float) -> PerExample:
    """CE(softmax(target / T), softmax(logits / T)), per example, in nats.

    Defensive distillation (Papernot et al. 2016, arXiv:1511.04508, eq. 8): the teacher's answers at
    T serve as labels. There is no factor T^2: gradients shrink as T grows.

    Raises:
        ConfigError: the temperature is not above 0, or the shapes differ.
    """
    _check_alike(target_logits, logits, temperature)
    target = F.softmax(target_logits / temperature, dim=-1)
    return -(target * F.log_softmax(logits / temperature, dim=-1)).sum(-1)


def hard_distillation(
    student_logits: Logits, teacher_labels: Labels, labels: Labels, *, alpha: float
) -> PerExample:
    """Alpha CE(student, teacher's label) + (1 - alpha) CE(student, label), per example.

    The loss against a service that returns labels only; alpha 1 uses no true label at all.
    """
    check_alpha(alpha)
    stolen = F.cross_entropy(student_logits, teacher_labels, reduction="none")
    if alpha == 1:
        return stolen
    return alpha * stolen + (1 - alpha) * F.cross_entropy(student_logits, labels, reduction="none")


def log_probabilities(probabilities: torch.Tensor) -> Logits:
    """Log-probabilities, which distillation can use in place of the teacher's logits."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def _check_alike(target_logits: Logits, logits: Logits, temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ConfigError(f"temperature is {temperature}; it must be above 0, and finite.")
    if target_logits.shape != logits.shape:
        raise ConfigError(
            f"Logits of the shapes {tuple(target_logits.shape)} and {tuple(logits.shape)} were "
            "compared; both networks must answer the same images with the same classes."
        )


def check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha}; it is the share of the teacher's term, in [0, 1].")
