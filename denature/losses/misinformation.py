"""The loss of a network that is to be wrong."""

import torch
from torch.nn import functional as F

from denature.core.types import Labels, Logits, PerExample


def misinformed(logits: Logits, labels: Labels) -> PerExample:
    """-log(1 - p_y), per example, in nats, where p_y is the probability of the true class.

    Adaptive misinformation (Kariyappa & Qureshi 2020). With m the lead of the true logit over the
    logsumexp of the others, 1 - p_y = sigmoid(-m), and the loss is softplus(m). So p_y needs no
    floor, and the gradient reaches 1 as p_y does: the released re-implementations add 1e-12 or 1e-7
    to 1 - p_y, which bounds the loss and ends its gradient where the network is surest.

    Args:
        logits: batch x classes, at least 2.
        labels: batch, the true classes.
    """
    true = logits.gather(-1, labels[:, None])
    others = logits.scatter(-1, labels[:, None], -torch.inf).logsumexp(-1)
    return F.softplus(true[:, 0] - others)
