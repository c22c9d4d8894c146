"""How long the clones of an audit take to train."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from denature.audit.measurements import Trial
from denature.data import Dataset
from denature.extract.config import thief_training
from denature.recipes.estimate import training_seconds
from denature.train import Normal, Order, Training
from denature.train.runs import planned_images


def seconds_of_cells(
    data: Dataset,
    *plans: Iterable[Trial],
    net: str,
    training: Training,
    done: Path,
    workers: int,
) -> list[float]:
    """Seconds of the training of the cells of each plan.

    Args:
        data: images of the clones' shape, for the steps that are timed.
        plans: cells.
        net: network of the clones.
        training: of the clones.
        done: see `training_seconds`.
        workers: processes that train them.
    """
    images = [Counter[int]() for _ in plans]
    for found, trials in zip(images, plans, strict=True):
        for trial in trials:
            found[trial.budget] += math.ceil(trial.images(training))

    def seconds_an_image(budget: int) -> float:
        sample = replace(data, train=replace(data.train, rows=data.train.rows[:budget]))
        clone = thief_training(budget, training, net=net)
        order = Order(net=net, objective=Normal(), training=clone)
        return training_seconds([(order, sample)], done, workers=workers) / planned_images(
            order, sample
        )

    one = {budget: seconds_an_image(budget) for budget in {b for found in images for b in found}}
    return [
        sum(number * one[budget] for budget, number in found.items()) / workers for found in images
    ]
