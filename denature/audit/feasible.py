"""What an audit is refused for before its model is asked, and images of the thief of threat A."""

import torch

from denature.audit.attempt import PoolOrder
from denature.audit.config import AuditConfig
from denature.core.errors import ConfigError
from denature.core.seeds import derive, generator
from denature.data import Dataset
from denature.extract.asking.pool import digest_of, pool_of_tests
from denature.extract.config import thief_training
from denature.extract.feasibility import check_clone, check_count, sample_of
from denature.extract.strategies.base import LabelledImages
from denature.train.config import CheckpointConfig, Training
from denature.train.objectives.cloned import Cloned


def seed_of(training: Training, number: int) -> int:
    """Seed of all that a thief draws in the repetition of this number."""
    return derive(training.seed, "thief", number)


def contents_of_tests(dataset: Dataset) -> frozenset[bytes]:
    """Digests of the test images."""
    tests = pool_of_tests(dataset)
    return frozenset(tests.contents(range(tests.size)))


def owned_images(
    dataset: Dataset, tests: frozenset[bytes], *, count: int, seed: int
) -> tuple[LabelledImages, frozenset[bytes]]:
    """Labelled images of a thief, and their digests.

    They are drawn from the training split, differ from each other and from test images.

    Args:
        dataset: the labelled data.
        tests: digests of its test images.
        count: number of images.
        seed: determines them.

    Raises:
        ConfigError: there are not so many.
    """
    train, seen = dataset.train, set(tests)
    order = generator(seed, "owned images").permutation(len(train.rows))
    chosen: list[int] = []
    for row in train.rows[torch.from_numpy(order)].tolist():
        if len(chosen) == count:
            break
        content = digest_of(train.images[row].numpy())
        if content not in seen:
            seen.add(content)
            chosen.append(row)
    if len(chosen) < count:
        raise ConfigError(
            f"The thief owns {count:,} labelled images, and {dataset.config.source} has "
            f"{len(chosen):,} training images that differ from each other and from the test "
            "images. Take a smaller --labelled."
        )
    images, labels = train.images[chosen].numpy(), train.labels[chosen].numpy()
    return LabelledImages(images, labels), frozenset(seen - tests)


def check_plan(
    config: AuditConfig,
    *,
    data: Dataset,
    pool: PoolOrder,
    other: PoolOrder | None,
    net: str,
    training: Training,
    checkpointing: CheckpointConfig,
) -> None:
    """Refuse what is impossible, as far as it is known before the model is asked.

    Raises:
        DenatureError: a pool is too small, or no clone can be trained.
    """
    budgets = config.budgets(len(pool.rows), channels=data.channels)
    check_count(pool.name, len(pool.rows), budgets[-1])
    if other is not None:
        check_count(other.name, len(other.rows), budgets[-1], option="--other-pool")
    owned = config.owned(len(data.classes))
    owned_images(data, contents_of_tests(data), count=owned, seed=seed_of(training, 0))
    rows = pool.rows[: budgets[0]]
    check_clone(
        net,
        sample_of(pool.pool, rows, data),
        objective=Cloned(),
        training=thief_training(len(rows), training, net=net),
        checkpointing=checkpointing,
    )
