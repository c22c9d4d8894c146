"""Functions that audits take as models: classes of digits by the nearest mean."""

from functools import cache

import numpy as np
import torch

from denature.data import load

HERE = __name__
"""This module, whose functions are models."""


@cache
def _means() -> np.ndarray:
    split = load("digits").train
    images, labels = split.images[split.rows].float() / 255, split.labels[split.rows]
    means = torch.stack([images[labels == c].mean(0).flatten() for c in range(10)])
    found: np.ndarray = means.numpy()
    return found


ASKED: list[bytes] = []


def probabilities(images: np.ndarray) -> np.ndarray:
    """Of the nearest mean of the classes of digits."""
    ASKED.extend(image.tobytes() for image in images)
    distances = ((images.reshape(len(images), 1, -1) - _means()) ** 2).sum(-1)
    weights = np.exp(distances.min(1, keepdims=True) - distances)
    found: np.ndarray = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return found


def percent(images: np.ndarray) -> np.ndarray:
    return 100 * probabilities(images)


def halves(images: np.ndarray) -> np.ndarray:
    return probabilities(images) / 2


def three_shown(images: np.ndarray) -> np.ndarray:
    found = probabilities(images)
    return np.where(found >= np.sort(found, 1)[:, -3:-2], found, np.float32(np.nan))


def some_nan(images: np.ndarray) -> np.ndarray:
    """As after an overflow: dark images lose a score."""
    found = probabilities(images)
    found[images.mean((1, 2, 3)) < 0.3, 3] = np.nan
    return found


def all_nan(images: np.ndarray) -> np.ndarray:
    """Each answer holds NaN, and not as many as the one before it."""
    found = probabilities(images)
    for place, row in enumerate(found):
        row[: 1 + place % 3] = np.nan
    return found


def one_hidden(images: np.ndarray) -> np.ndarray:
    found = probabilities(images)
    found[:, 3] = np.nan
    return found


def turned_round(images: np.ndarray) -> np.ndarray:
    """The classes in another order than those of the data."""
    found: np.ndarray = np.roll(probabilities(images), 5, axis=1)
    return found


class Network(torch.nn.Module):
    """What is no function from images to answers."""


def labels(images: np.ndarray) -> np.ndarray:
    found: np.ndarray = probabilities(images).argmax(1)
    return found


def words(images: np.ndarray) -> np.ndarray:
    return np.array(["cat"] * len(images))


def eleven(images: np.ndarray) -> np.ndarray:
    return np.pad(probabilities(images), ((0, 0), (0, 1)))


BROKEN: list[int] = []
"""Images after which `breaking` fails."""


def breaking(images: np.ndarray) -> np.ndarray:
    if BROKEN and len(ASKED) + len(images) > BROKEN[0]:
        raise ValueError("out of memory")
    return probabilities(images)
