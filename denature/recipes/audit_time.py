"""How long the clones of an audit take to train."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from denature.audit.measurements import Trial
from denature.data import Dataset
from denature.extract.config import thief_training
from denature.recipes.estimate import training_seconds
from denature.train import Normal, Order, Training


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
        plans: cells, each a number of trainings as long as the naive clone's.
        net: network of the clones.
        training: of the clones.
        done: see `training_seconds`.
        workers: processes that train them.
    """
    counts = [Counter((t.budget, t.strategy.trainings) for t in trials) for trials in plans]

    def seconds(budget: int) -> float:
        sample = replace(data, train=replace(data.train, rows=data.train.rows[:budget]))
        clone = thief_training(budget, training, net=net)
        order = Order(net=net, objective=Normal(), training=clone)
        return training_seconds([(order, sample)], done, workers=workers)

    one = {budget: seconds(budget) for budget in {b for count in counts for b, _ in count}}
    return [
        sum(number * times * one[budget] for (budget, times), number in count.items()) / workers
        for count in counts
    ]
