"""A network that answers with logits, probabilities, labels or landmarks."""

from typing import final

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.answers.inference import Inference
from denature.answers.kinds import AnswerKind
from denature.core.types import Logits, Pixels


@final
class NetworkAnswerer:
    """A network's answers with low latency; see `Inference.low_latency`.

    Args:
        inference: computes the logits, or the coordinates of a landmark network.
        kind: kind of the answers.
        digest: of the network's weights.
        dtype: of the scores; a softmax is computed in it.
    """

    def __init__(
        self,
        inference: Inference,
        *,
        kind: AnswerKind,
        digest: str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.kind: AnswerKind = kind
        self.digest = digest
        self._inference = inference
        self._dtype = dtype

    def __call__(self, pixels: Pixels) -> Answers:
        device = self._inference.compute.device
        return answers_from(
            self._inference.low_latency(pixels.to(device)), self.kind, dtype=self._dtype
        )


def answers_from(
    logits: Logits, kind: AnswerKind, *, dtype: torch.dtype = torch.float32
) -> Answers:
    """Answers of a kind from a network's outputs, batch x classes; landmarks are raw outputs."""
    if kind == "label":
        return Answers(kind, logits.argmax(-1))
    scores = logits.to(dtype)
    return Answers(kind, scores.softmax(-1) if kind == "probabilities" else scores)


def converted(values: np.ndarray, answered: AnswerKind, kind: AnswerKind) -> Answers:
    """Answers of a kind that follows from that of a model's answers, in float64."""
    tensor = torch.from_numpy(values)
    if kind == answered:
        return Answers(kind, tensor if kind == "label" else tensor.double())
    return answers_from(tensor, kind, dtype=torch.float64)  # the label of scores is their largest
