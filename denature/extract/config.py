"""Settings of model extraction; this module imports nothing heavy."""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, final

from denature.core.names import with_options
from denature.core.schema import check_fields
from denature.train.config import DEFAULT_LR, Training

Choose: TypeAlias = Literal["random", "uncertainty", "k-center", "both"]

Threat: TypeAlias = Literal["A", "B"]
"""A: the thief owns some labelled images and may query. B: the thief has unlabelled images only."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionConfig:
    """Selection of the queries, and number of clones."""

    choose: Choose = "random"
    """Selection of the query images: random; the least certain for the last clone; the farthest
    from all queried images in the last clone's outputs (both from ActiveThief); or the sum of the
    two, an addition: the paper combines k-center with DeepFool distances."""
    round_size: int = 1000
    """Images chosen in a round, except at random; a clone is trained after each round."""
    repeats: int = 1
    """Queries of each image, against randomised answers; the clone learns their mean. Each repeat
    counts as a query."""
    pool_seed: int = 0
    """Seed of the random query images, and of the test images that measure fidelity."""
    seeds: int = 1
    """Clones for each budget, trained from different initial weights on the same answers."""
    test_images: int | None = None
    """Test images that the victim is queried about, to measure how often a clone agrees with it. By
    default a fifth of the budget, and 1,000 at most. They count within the budget."""
    fidelity_extra: bool = False
    """Query the test images on top of the budgets, 1,000 by default; lost ones once more."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "round_size": (self.round_size >= 2, "at least 2"),
                "repeats": (self.repeats >= 1, "at least 1"),
                "seeds": (self.seeds >= 1, "at least 1"),
                "test_images": (self.test_images is None or self.test_images >= 2, "at least 2"),
            },
        )

    def tested(self, budget: int) -> int:
        """Test images that are queried, as far as there are so many."""
        if self.test_images is not None:
            return self.test_images
        return MOST_FIDELITY if self.fidelity_extra else min(MOST_FIDELITY, max(2, budget // 5))


MOST_FIDELITY = 1000
"""Test images that measure fidelity by default, at most."""

SOLVED, FITTED = "the head was solved from", "the head was fitted to"
"""How a clone of the thief with the same features came about, as its note says."""

LEAST_STEPS = 500
"""Steps of the optimizer from which fidelity gained little more on digits and CIFAR-10, see
docs/decisions/0025-steps-of-a-clone.md."""

SMALLEST_BATCH = 32
"""Images a step at small budgets; 16 take half as much time again for the same fidelity."""


RATE = 2.0
"""Highest learning rate of a clone, over Adam's usual one: the mean of a cycle is half its peak."""


def thief_training(
    images: int,
    training: Training | None = None,
    *,
    net: str | None = None,
    length: float = 1.0,
) -> Training:
    """A training with enough steps for a clone of few images.

    Thirty epochs of 200 images in batches of 128 are 60 steps, which are too few. Batches are
    halved down to 32 images, and then epochs are added, until there are at least 500 steps.

    Args:
        images: number of images that the clone learns from, at least 2.
        training: its other settings. Its batch size is the largest, its epochs the fewest that are
            returned; 128 and 30 by default.
        net: network of the clone. One of the catalogue that Adam trains gets twice the usual
            learning rate, unless `training` names a rate or another optimizer or schedule.
        length: share of these epochs that is returned, at least one epoch.
    """
    training = training or Training()
    batch = training.batch_size
    while batch // 2 >= SMALLEST_BATCH and training.epochs * _steps(images, batch) < LEAST_STEPS:
        batch //= 2
    epochs = max(training.epochs, math.ceil(LEAST_STEPS / _steps(images, batch)))
    epochs = max(1, round(length * epochs))
    training = replace(training, batch_size=batch, epochs=epochs)
    if net is not None and _takes_rate(net, training):
        return replace(training, lr=RATE * DEFAULT_LR["adam"])
    return training


def _takes_rate(net: str, training: Training) -> bool:
    """Whether a network trains as those on which the rate was measured, and no rate is named."""
    from denature.nets import NETS  # brings torch

    listed = NETS.get(with_options(net)[0])
    by_adam = training.optimizer == "adam" or (
        training.optimizer == "auto" and listed is not None and listed.optimizer == "adam"
    )
    cycle = training.schedule in ("auto", "one-cycle")
    return training.lr is None and listed is not None and by_adam and cycle


def _steps(images: int, batch: int) -> int:
    """Steps of an epoch; a last batch of one image is left out."""
    return max(images // batch + (images % batch >= 2), 1)
