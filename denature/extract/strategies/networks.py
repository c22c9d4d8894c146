"""What networks of a thief say of images."""

import numpy as np
import torch
from torch import Tensor, nn

from denature.answers.answerer import Answers
from denature.core.compute import resolve
from denature.extract.strategies.common import usable

CHUNK = 256
"""Images per forward pass."""


@torch.no_grad()
def outputs(network: nn.Module, images: np.ndarray, *, device: str = "auto") -> Tensor:
    """Outputs of a network for uint8 images, on the CPU, in the network's own dtype.

    The network is put in eval mode, and computes in the precision of its weights.
    """
    compute = resolve(network, device=device, precision="fp32")
    network = compute.place(network).eval()
    parts = [
        network(compute.pixels(torch.tensor(images[start : start + CHUNK]).to(compute.device)))
        for start in range(0, len(images), CHUNK)
    ]
    return torch.cat(parts).cpu()


def log_scores(answers: Answers, *, floor: float) -> np.ndarray:
    """Logarithms of the probabilities of answers, float64, n x classes, from log(`floor`) on.

    Answers are completed first, see `denature.extract.strategies.common.usable`.

    Args:
        answers: logits or probabilities.
        floor: least probability that counts; a zero of a rounded answer would have no logarithm.
    """
    shown = usable(answers)
    values = shown.values
    if shown.kind == "label":  # logits of which one is shown
        values = nn.functional.one_hot(values, answers.values.shape[1])
    values = values.double()
    logs = values.log_softmax(-1) if shown.kind == "logits" else values.log()
    clipped: np.ndarray = logs.clamp_min(np.log(floor)).numpy()
    return clipped
