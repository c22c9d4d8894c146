"""Somebody who only answers, such as a served model: what can be attacked without gradients."""

import hashlib
from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import nn

from denature.core.errors import ConfigError, DenatureError
from denature.core.types import Labels, Logits, Pixels
from denature.robust.target import Shows, gap_of

Ask = Callable[[np.ndarray, int], np.ndarray]
"""From images, uint8, batch x channels x height x width, and how often they were asked before, to
answers: floats, batch x classes, NaN where nothing is shown; or labels, whole numbers, batch."""

STEPS = 255
"""Images are sent as bytes."""

TWICE = 8
"""Images that are asked twice, to see whether answers are random."""

SUM_TOLERANCE = 0.05
"""Probabilities may sum to 1 within this, since services round them."""


class OutOfQueries(DenatureError):
    """Nobody may be asked any more: an attack that meets this did not run."""


@final
class BlackBox(nn.Module):
    """A model across a wire, or a function, as somebody who can be attacked.

    Images travel as bytes: what an attack proposes is judged as it arrives there, in steps of
    1/255, and budgets in linf are rounded down to such steps.

    Args:
        ask: see `Ask`.
        name: by which it is known; answers of one name are those of one model.
        images: some of its data, batch x channels x height x width, in [0, 1].
        classes: how many it knows.

    Raises:
        ConfigError: it does not answer with classes.
    """

    net = kind = "unknown"
    trained_at = 1.0

    def __init__(self, ask: Ask, name: str, images: Pixels, *, classes: int) -> None:
        super().__init__()
        self._ask, self.name, self._classes = ask, name, classes
        self.digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        self.device = torch.device("cpu")
        self.eval()
        few = _bytes(images[:TWICE])
        shown, again = ask(few, 0), ask(few, 1)
        if shown.ndim == 2 and shown.shape[1] != classes:
            raise ConfigError(
                f"{name} answers with {shown.shape[1]} numbers an image; wanted are {classes}, one "
                "for each class of the data. Name the data that it was trained on."
            )
        self.shows: Shows = "labels" if shown.ndim == 1 else "scores"
        self.shows_probabilities = shown.ndim == 2 and _are_probabilities(shown)
        self.is_random = not np.allclose(shown, again, rtol=1e-3, atol=1e-4, equal_nan=True)
        self.gap = 0.0 if self.shows == "labels" else gap_of([self(images[:TWICE])])

    @torch.no_grad()
    def forward(self, pixels: Pixels) -> Logits:
        shown = torch.from_numpy(self._ask(_bytes(pixels), 0))
        if shown.ndim == 1:
            return nn.functional.one_hot(shown, self._classes).float()
        shown = shown.float()
        hidden = shown.isnan()
        if self.shows_probabilities:
            # What is not shown shares what is left.
            left = (1 - shown.nansum(dim=1, keepdim=True)).clamp_min(0)
            each = left / hidden.sum(dim=1, keepdim=True).clamp_min(1)
            filled = torch.where(hidden, each, shown)
            return filled.clamp_min(torch.finfo(torch.float32).tiny).log()
        least = torch.where(hidden, torch.inf, shown).amin(dim=1, keepdim=True)
        return torch.where(hidden, least, shown)

    @property
    def temperature(self) -> float:
        return 1.0

    def says(self, pixels: Pixels) -> Labels:
        said: Labels = self(pixels).argmax(dim=1)
        return said

    def reach(self, epsilon: float) -> float:
        return np.floor(epsilon * STEPS + 1e-6) / STEPS if np.isfinite(epsilon) else epsilon

    def as_sent(self, pixels: Pixels) -> Pixels:
        return (pixels * STEPS).round().clamp(0, STEPS) / STEPS


def _bytes(pixels: Pixels) -> np.ndarray:
    return (pixels * STEPS).round().clamp(0, STEPS).to(torch.uint8).cpu().numpy()


def _are_probabilities(shown: np.ndarray) -> bool:
    seen = shown[~np.isnan(shown)]
    totals = np.nansum(shown, axis=1)
    whole = np.isnan(shown).any() or bool((totals >= 1 - SUM_TOLERANCE).all())
    return bool((seen >= 0).all() and (totals <= 1 + SUM_TOLERANCE).all() and whole)
