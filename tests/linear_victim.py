"""A linear victim of random images, and attempts on it."""

from typing import Any

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.core.types import Pixels
from tests.attempts import Bench

CLASSES, BUDGET = 5, 40


def pictures(count: int, seed: int) -> np.ndarray:
    """Random images, uint8, count x 1 x 8 x 8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)


POOL, TESTS = pictures(120, seed=1), pictures(30, seed=2)
WEIGHTS = torch.randn(64, CLASSES, generator=torch.Generator().manual_seed(0))


def logits(pixels: Pixels) -> Answers:
    return Answers("logits", 4 * (pixels - 0.5).flatten(1) @ WEIGHTS)


def probabilities(pixels: Pixels) -> Answers:
    return Answers("probabilities", logits(pixels).values.softmax(-1))


def bench(**changed: Any) -> Bench:
    given = {"victim": probabilities, "images": POOL, "budget": BUDGET, "classes": CLASSES}
    return Bench(**{**given, "tests": TESTS, **changed})
