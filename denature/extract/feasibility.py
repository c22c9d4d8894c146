"""What thefts and audits are refused for before their first paid query: images, and clones."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from denature.answers.kinds import AnswerKind
from denature.answers.transfer import Transfer
from denature.core.errors import ConfigError
from denature.data.dataset import Dataset, Split
from denature.extract.asking.pool import Pool
from denature.train.config import Training
from denature.train.objectives.cloned import Cloned
from denature.train.order import Order
from denature.train.run import Run
from denature.train.runs import check_order


def check_count(name: str, found: int, wanted: int, *, option: str = "--pool") -> None:
    """Check that a pool has as many images as a budget asks about.

    Args:
        name: of the pool.
        found: its images that may be queried.
        wanted: images of the budget.
        option: which names the pool.

    Raises:
        ConfigError: it has fewer.
    """
    if found < wanted:
        raise ConfigError(
            f"{wanted:,} images are wanted, and {name} has {found:,} images that differ from each "
            f"other and from the test images. Take a smaller --budget or a larger {option}."
        )


def sample_of(pool: Pool, rows: Sequence[int], like: Dataset) -> Dataset:
    """Images of a pool as training data, for estimates and checks; the labels are not true.

    Args:
        pool: the images.
        rows: their numbers in it.
        like: data with the classes and the shape of the clones' data.
    """
    labels = torch.zeros((len(rows), *like.train.labels.shape[1:]), dtype=like.train.labels.dtype)
    split = Split(torch.from_numpy(pool.images(rows)), labels, torch.arange(len(rows)))
    return replace(like, train=split, validation=None, skipped=0)


def check_clone(
    net: str,
    sample: Dataset,
    *,
    objective: Cloned,
    training: Training,
    backbone: Run | str | None = None,
) -> None:
    """Check that a clone can be trained on as many images as `sample` has.

    Args:
        net: network of the clone.
        sample: see `sample_of`.
        objective: training objective of the clone.
        training: settings of its training.
        backbone: initial weights of all layers but the last.

    Raises:
        DenatureError: see `denature.train.make`.
    """
    kind: AnswerKind = "landmarks" if sample.landmarks else "label"
    order = Order(
        net=net,
        objective=objective,
        training=training,
        source=Transfer(kind, sample.train.labels, victim="the model"),
        backbone=backbone,
    )
    check_order(order, sample)
