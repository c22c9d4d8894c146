"""A victim that notes the images of each call, and the terms of thefts from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from denature.extract.victims.called import FunctionVictim
from denature.train import Training

HERE = __name__
"""This module, from which commands import the functions below."""

QUICK = Training(epochs=1, batch_size=32, device="cpu", precision="fp32")

ASKED: list[int] = []
"""Images of each call of a victim of this module."""


def answers(pixels: np.ndarray) -> np.ndarray:
    ASKED.append(len(pixels))
    scores = pixels.reshape(len(pixels), -1)[:, 10:20] + 0.01
    found: np.ndarray = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    return found


def labels(pixels: np.ndarray) -> np.ndarray:
    found: np.ndarray = answers(pixels).argmax(1)
    return found


def victim(function: Callable[[np.ndarray], np.ndarray] = answers, **more: Any) -> FunctionVictim:
    return FunctionVictim(function, name="v", **{"kind": "probabilities", **more})


def terms(out: Path, *budgets: int, **more: Any) -> dict[str, Any]:
    usual = {"net": "mlp", "pool": "digits", "budgets": budgets, "out": out, "training": QUICK}
    return {**usual, **more}
