"""A run in this process as a victim, with the answers that a server would give."""

from typing import get_args

import numpy as np
import torch

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.sources import Kind
from denature.core.compute import resolve
from denature.core.errors import ConfigError
from denature.extract.victims.called import FunctionVictim
from denature.train.run import Run

KINDS: tuple[Kind, ...] = get_args(Kind)


def local(run: Run, *, kind: Kind | None = None, device: str = "auto") -> FunctionVictim:
    """A run that answers with `kind`: probabilities, or landmarks, by default.

    Raises:
        ConfigError: the run has no answers of this kind.
    """
    kinds = ("landmarks",) if run.record.landmarks else tuple(k for k in KINDS if k != "landmarks")
    kind = kind or ("landmarks" if run.record.landmarks else "probabilities")
    if kind not in kinds:
        raise ConfigError(f"This run can answer with {', '.join(kinds)}, not with {kind!r}.")
    net = run.record.net
    compute = resolve(run.network, device=device, precision="fp32")
    shape = (net.channels, net.image_size, net.image_size)
    inference = Inference(run.network, compute, InferenceConfig(), shape=shape)

    def answer(pixels: np.ndarray) -> np.ndarray:
        logits = inference.low_latency(torch.from_numpy(pixels).to(compute.device))
        if kind in ("logits", "landmarks"):
            return logits.cpu().numpy()
        if kind == "label":
            return logits.argmax(-1).cpu().numpy()
        return logits.softmax(-1).cpu().numpy()

    return FunctionVictim(
        answer,
        name=f"{net.name} {net.digest} {kind}",
        kind=kind,
        channels=net.channels,
        image_size=net.image_size,
        names=run.class_names or (),
    )
