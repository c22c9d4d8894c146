"""The nasty teacher's loss (Ma et al., ICLR 2021, arXiv:2105.07381, eq. 2)."""

import math

from torch.nn import functional as F

from denature.core.errors import ConfigError
from denature.core.types import Labels, Logits, PerExample
from denature.losses.soft import softened_divergence


def self_undermining(
    nasty_logits: Logits,
    adversary_logits: Logits,
    labels: Labels,
    *,
    temperature: float,
    omega: float,
    cap: float | None = None,
) -> PerExample:
    """CE(nasty, labels) - omega tau^2 KL(softmax(nasty/tau) || softmax(adversary/tau)).

    The gradient flows through the nasty side, which is the first argument of the divergence; the
    adversary is constant. The divergence is bounded only by the adversary's logits and can lie far
    above the cross-entropy; see `cap`. The official code has the same gradients (it adds 100 to the
    loss).

    Args:
        nasty_logits: batch x classes, of the network in training.
        adversary_logits: batch x classes, of a frozen normally trained network.
        labels: batch, the true classes.
        temperature: tau, above 0; 4 on CIFAR-10, 20 on CIFAR-100 and Tiny-ImageNet in the paper.
        omega: weight of the divergence, at least 0.
        cap: tau^2 KL, in nats, above which an example is pushed no further; None, the paper's form,
            sets no limit.

    Raises:
        ConfigError: temperature not above 0, omega below 0, shapes that differ.
    """
    if not 0 <= omega < math.inf:
        raise ConfigError(f"omega is {omega}; it must be at least 0, and finite.")
    if cap is not None and not cap > 0:
        raise ConfigError(f"cap is {cap}; it must be above 0.")
    divergence = softened_divergence(
        nasty_logits, adversary_logits.detach(), temperature=temperature
    )
    if cap is not None:
        divergence = divergence.clamp_max(cap)
    return F.cross_entropy(nasty_logits, labels, reduction="none") - omega * divergence
