"""Somebody who only answers, such as a served model: what can be attacked without gradients."""

from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np
import torch
from torch import nn

from denature.core.errors import DenatureError
from denature.core.types import Labels, Logits, Pixels
from denature.robust.target import Shows, gap_of

STEPS = 255
"""Images are sent as bytes."""

TWICE = 8
"""Images that are asked twice, to see whether answers are random."""

NUDGE = 1e-5
"""By so much the class that was named leads where others were filled in as large."""


class Said(NamedTuple):
    """Answers to a batch of images."""

    labels: np.ndarray
    """int64, batch: the classes that are named."""
    scores: np.ndarray | None
    """float32, batch x classes: logits or probabilities; None where labels are all that is shown.
    """
    probabilities: bool = False


Ask = Callable[[np.ndarray, int], Said]
"""From images, uint8, batch x channels x height x width, and how often they were asked before."""


class OutOfQueries(DenatureError):
    """Nobody may be asked any more: an attack that meets this did not run."""


@final
class BlackBox(nn.Module):
    """A model across a wire, or a function, as somebody who can be attacked.

    Images travel as bytes: what an attack proposes is judged as it arrives there, in steps of
    1/255. Where answers are random, what an attack found is judged by another answer than that
    which it saw.

    Args:
        ask: see `Ask`.
        name: by which people know it.
        digest: by which its answers are known.
        images: some of its data, batch x channels x height x width, in [0, 1].
        classes: how many it knows.
    """

    net = kind = "unknown"
    trained_at = 1.0
    chosen_on_test = False

    def __init__(self, ask: Ask, name: str, digest: str, images: Pixels, *, classes: int) -> None:
        super().__init__()
        self._ask, self.name, self.digest, self._classes = ask, name, digest, classes
        self.device = torch.device("cpu")
        self.eval()
        few = _bytes(images[:TWICE])
        first, again = ask(few, 0), ask(few, 1)
        self.shows: Shows = "labels" if first.scores is None else "scores"
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
        said = self._ask(_bytes(pixels), 0)
        named = nn.functional.one_hot(torch.from_numpy(said.labels), self._classes).float()
        if said.scores is None:
            return named
        scores = torch.from_numpy(said.scores)
        if said.probabilities:
            scores = scores.clamp_min(torch.finfo(torch.float32).tiny).log()
        return scores + NUDGE * named

    @property
    def temperature(self) -> float:
        return 1.0

    def says(self, pixels: Pixels) -> Labels:
        return torch.from_numpy(self._ask(_bytes(pixels), int(self.is_random)).labels)

    def as_sent(self, pixels: Pixels) -> Pixels:
        return (pixels * STEPS).round().clamp(0, STEPS) / STEPS


def whole_steps(epsilon: float) -> float:
    """A budget in linf, rounded down to what bytes can be changed by."""
    return float(np.floor(epsilon * STEPS + 1e-6)) / STEPS


def _bytes(pixels: Pixels) -> np.ndarray:
    return (pixels * STEPS).round().clamp(0, STEPS).to(torch.uint8).cpu().numpy()
