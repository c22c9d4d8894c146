"""A run in this process as a victim, with the answers that a server would give."""

import numpy as np
import torch

from denature.answers.answerer import Answerer
from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.kinds import CLASS_ANSWER_KINDS, AnswerKind
from denature.answers.network import NetworkAnswerer
from denature.core.compute import resolve
from denature.core.errors import ConfigError
from denature.extract.victims.called import FunctionVictim
from denature.train.run import Run


def local(run: Run, *, kind: AnswerKind | None = None, device: str = "auto") -> FunctionVictim:
    """A run that answers with `kind`: probabilities, or landmarks, by default.

    Raises:
        ConfigError: the run has no answers of this kind.
    """
    return victim_of(answerer_of(run, kind=kind, device=device), run)


def answerer_of(
    run: Run, *, kind: AnswerKind | None = None, device: str = "auto"
) -> NetworkAnswerer:
    """A run's network as an answerer, in fp32; see `local`."""
    kinds = ("landmarks",) if run.record.landmarks else CLASS_ANSWER_KINDS
    kind = kind or ("landmarks" if run.record.landmarks else "probabilities")
    if kind not in kinds:
        raise ConfigError(f"This run can answer with {', '.join(kinds)}, not with {kind!r}.")
    net = run.record.net
    compute = resolve(run.network, device=device, precision="fp32")
    shape = (net.channels, net.image_size, net.image_size)
    inference = Inference(run.network, compute, InferenceConfig(), shape=shape)
    return NetworkAnswerer(inference, kind=kind, digest=net.digest)


def victim_of(answerer: Answerer, run: Run) -> FunctionVictim:
    """An answerer to a run's images as a victim, such as its network with a defense."""
    net = run.record.net

    def answer(pixels: np.ndarray) -> np.ndarray:
        return answerer(torch.from_numpy(pixels)).values.cpu().numpy()

    return FunctionVictim(
        answer,
        name=f"{net.name} {answerer.digest} {answerer.kind}",
        kind=answerer.kind,
        channels=net.channels,
        image_size=net.image_size,
        names=run.class_names or (),
        hides=True,  # a defense may
    )
