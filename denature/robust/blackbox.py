"""A model that only answers queries, such as a served one: attacked without gradients."""

from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np
import torch
from torch import nn

from denature.core.errors import DenatureError
from denature.core.types import Labels, Logits, Pixels
from denature.robust.target import AccessLevel, gap_of

STEPS = 255
"""Images are sent as bytes."""

TWICE = 8
"""Images that are queried twice, to detect random answers."""

NUDGE = 1e-5
"""Margin that keeps the returned class the argmax after hidden scores are imputed."""


class Reply(NamedTuple):
    """Answers to a batch of images."""

    labels: np.ndarray
    """int64, batch: the returned classes."""
    scores: np.ndarray | None
    """float32, batch x classes: logits or probabilities; None if only labels are shown."""
    probabilities: bool = False


Ask = Callable[[np.ndarray, int], Reply]
"""From images, uint8, batch x channels x height x width, and the number of earlier queries of each,
to answers."""


class OutOfQueries(DenatureError):
    """The query budget is exhausted; the attack counts as not run."""


@final
class BlackBox(nn.Module):
    """A remote model or a function as a model under attack.

    Images travel as bytes: a proposed image is judged as the model receives it, in steps of 1/255.
    If answers are random, a proposed image is judged by another answer than the one that the attack
    saw.

    Args:
        ask: see `Ask`.
        name: the model's name in reports.
        digest: key of its stored attack results.
        images: a few images of its data, batch x channels x height x width, in [0, 1].
        classes: number of classes.
    """

    net = kind = "unknown"
    trained_at = 1.0
    chosen_on_test = False

    def __init__(self, ask: Ask, name: str, digest: str, images: Pixels, *, classes: int) -> None:
        super().__init__()
        self._ask, self.name, self.digest, self._classes = ask, name, digest, classes
        self.device = torch.device("cpu")
        self.eval()
        probes = _bytes(images[:TWICE])
        first, again = ask(probes, 0), ask(probes, 1)
        self.shows: AccessLevel = "labels" if first.scores is None else "scores"
        self.shows_probabilities = first.probabilities
        if first.scores is None or again.scores is None:
            self.is_random = not np.array_equal(first.labels, again.labels)
            self.gap = 0.0
        else:
            self.is_random = not np.allclose(first.scores, again.scores, rtol=1e-3, atol=1e-4)
            self.gap = gap_of([self(images[:TWICE])])

    @torch.no_grad()
    def forward(self, pixels: Pixels) -> Logits:
        if not len(pixels):
            return torch.zeros(0, self._classes)
        reply = self._ask(_bytes(pixels), 0)
        one_hot = nn.functional.one_hot(torch.from_numpy(reply.labels), self._classes).float()
        if reply.scores is None:
            return one_hot
        scores = torch.from_numpy(reply.scores)
        if reply.probabilities:
            scores = scores.clamp_min(torch.finfo(torch.float32).tiny).log()
        return scores + NUDGE * one_hot

    @property
    def temperature(self) -> float:
        return 1.0

    def says(self, pixels: Pixels) -> Labels:
        return torch.from_numpy(self._ask(_bytes(pixels), int(self.is_random)).labels)

    def as_sent(self, pixels: Pixels) -> Pixels:
        return (pixels * STEPS).round().clamp(0, STEPS) / STEPS


def whole_steps(epsilon: float) -> float:
    """A budget in linf, rounded down to whole steps of 1/255."""
    return float(np.floor(epsilon * STEPS + 1e-6)) / STEPS


def _bytes(pixels: Pixels) -> np.ndarray:
    return (pixels * STEPS).round().clamp(0, STEPS).to(torch.uint8).cpu().numpy()
